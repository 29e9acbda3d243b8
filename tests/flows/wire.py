"""Values as they come back from the wire, so that a flow in memory cannot say what Kafka would not
carry."""

from typing import Any

from pipeline.runtime.codec import Codec
from pipeline.topology import CATALOGUE

_CODEC = Codec()


def on_the_wire(topic: str, key: bytes | None, value: Any) -> Any:
    """Encodes and decodes; bytes pass as they are (intake takes JSON)."""
    if isinstance(value, bytes):
        return value
    records = CATALOGUE.topic(topic).records
    letters = (key or b"").partition(b":")[0].decode()
    record = records[letters] if letters in records else records[""]
    return _CODEC.decode_as(record, _CODEC.encode(record, value))
