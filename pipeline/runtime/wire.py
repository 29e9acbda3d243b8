"""Between what stages say and what Kafka carries: names with prefix, values as bytes."""

import traceback
from collections.abc import Mapping
from typing import Any

from pipeline.domain import ids
from pipeline.domain.drafts import blank_letter, source_of
from pipeline.domain.outcomes import Emit, Inbound
from pipeline.domain.records import DeadLetter
from pipeline.runtime.codec import Codec
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.transaction import Encoded
from pipeline.topology import CATALOGUE


class Wire:
    """Encodes answers and decodes records of one cluster."""

    def __init__(self, cluster: Cluster, codec: Codec) -> None:
        self._cluster, self._codec = cluster, codec
        self._by_topic = {topic.name: topic.records for topic in CATALOGUE}

    def encode(self, emit: Emit) -> Encoded:
        """Raises ValueError or TypeError when the value does not fit its schema."""
        name = self._cluster.real(emit.topic)
        key = None if emit.key is None else emit.key.encode()
        value = None
        if emit.value is not None:
            value = self._codec.encode(self._by_topic[emit.topic][""], emit.value)
        return Encoded(name, key, value, emit.headers, emit.partition, emit)

    def decode(self, record: Inbound) -> Inbound:
        """The record with its value decoded.

        Raises:
            Undecodable: it is not what its topic holds.
            RegistryUnavailable: the registry does not answer.
        """
        value = self._codec.decode_as(self._by_topic[record.topic][""], record.value)
        return record.holding(value)

    def state_encoder(self, changelog: str) -> "StateCodec":
        """How a stage's state entries are written."""
        return StateCodec(self._codec, self._by_topic[changelog])


class StateCodec:
    """State entries: the letters of a key before `:` name the record."""

    def __init__(self, codec: Codec, records: Mapping[str, str]) -> None:
        self._codec, self._records = codec, records

    def encode(self, key: bytes, value: Mapping[str, Any]) -> bytes:
        """The bytes of the entry under `key`."""
        return self._codec.encode(self._records[key.partition(b":")[0].decode()], value)

    def decode(self, raw: bytes) -> dict[str, Any]:
        """The entry in `raw`."""
        return self._codec.decode(raw)[1]


def crash_letter(record: Inbound, raw: bytes | None, stage: str, now: int) -> DeadLetter:
    """The dead letter of a record on which our own code raised; call it while handling that."""
    letter = blank_letter(
        ids.unreadable_id(record.topic, record.partition, record.offset), stage, "internal", "bug"
    )
    letter["detail"] = traceback.format_exc(limit=20)[-4000:]
    letter["occurred_at"] = now
    letter["source"] = source_of(record)
    letter["raw_key"], letter["raw_value"] = record.key, raw
    return letter


def poison_letter(record: Inbound, stage: str, code: str, detail: str, now: int) -> DeadLetter:
    """The dead letter of bytes that are no record of ours."""
    letter = blank_letter(
        ids.unreadable_id(record.topic, record.partition, record.offset), stage, "unreadable", code
    )
    letter["detail"] = detail
    letter["occurred_at"] = now
    letter["source"] = source_of(record)
    letter["raw_key"], letter["raw_value"] = record.key, record.value
    return letter
