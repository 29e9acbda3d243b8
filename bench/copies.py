"""What a class per record would cost: `python -m bench.copies`.

fastavro reads and writes dictionaries. With classes, a record is copied into one behind every
decode and back before every encode. Here for a message on its way through one stage.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from bench.figures import Figure, show
from bench.load import messages
from pipeline.runtime.codec import Codec

ROUNDS: Final = 15
AMOUNT: Final = 2_000


@dataclass(frozen=True, slots=True)
class Part:
    """A nested record of three fields."""

    a: Any
    b: Any
    c: Any


@dataclass(frozen=True, slots=True)
class Recipient:
    """The recipient of a message."""

    id: Any
    phone: Any
    email: Any
    country: Any


@dataclass(frozen=True, slots=True)
class Message:
    """A message as a class; fields as in domain/records.py."""

    record_version: int
    tenant: str
    message_id: str
    recipient_key: str
    idempotency_hash: str | None
    source: Part
    accepted_at: int
    priority: str
    category: str
    campaign: str | None
    labels: dict[str, str]
    to: Recipient
    country: str
    content: Part
    route: list[Any] | None
    deadline: int
    sequence: str | None
    on_doubt: str
    replay_of: str | None


def to_class(value: dict[str, Any]) -> Message:
    """By hand, the fastest way there is."""
    source, to, content = value["source"], value["to"], value["content"]
    return Message(
        value["record_version"], value["tenant"], value["message_id"], value["recipient_key"],
        value["idempotency_hash"],
        Part(source["topic"], source["partition"], source["offset"]), value["accepted_at"],
        value["priority"], value["category"], value["campaign"], value["labels"],
        Recipient(to["id"], to["phone"], to["email"], to["country"]), value["country"],
        Part(content["text"], content["subject"], content["html"]), value["route"],
        value["deadline"], value["sequence"], value["on_doubt"], value["replay_of"],
    )  # fmt: skip


def to_dict(m: Message) -> dict[str, Any]:
    """By hand as well."""
    return {
        "record_version": m.record_version, "tenant": m.tenant, "message_id": m.message_id,
        "recipient_key": m.recipient_key, "idempotency_hash": m.idempotency_hash,
        "source": {"topic": m.source.a, "partition": m.source.b, "offset": m.source.c},
        "accepted_at": m.accepted_at, "priority": m.priority, "category": m.category,
        "campaign": m.campaign, "labels": m.labels,
        "to": {"id": m.to.id, "phone": m.to.phone, "email": m.to.email, "country": m.to.country},
        "country": m.country,
        "content": {"text": m.content.a, "subject": m.content.b, "html": m.content.c},
        "route": m.route, "deadline": m.deadline, "sequence": m.sequence, "on_doubt": m.on_doubt,
        "replay_of": m.replay_of,
    }  # fmt: skip


def copies() -> list[Figure]:
    """Processor time of one pass of decode and encode, with and without classes in between."""
    codec = Codec()
    raws = [value for _, value in messages(codec, AMOUNT)]

    def plain() -> None:
        for raw in raws:
            codec.encode("Message", codec.decode_as("Message", raw))

    def classes() -> None:
        for raw in raws:
            codec.encode("Message", to_dict(to_class(codec.decode_as("Message", raw))))

    took = _alternate(plain, classes)
    return [
        Figure("dictionaries: decode, encode", took[0], "us/message"),
        Figure("classes: decode, copy, copy, encode", took[1], "us/message", took[0],
               took[1] / took[0]),
    ]  # fmt: skip


def _alternate(*ways: Callable[[], None]) -> list[float]:
    found: list[list[float]] = [[] for _ in ways]
    for _ in range(ROUNDS):
        for way, took in zip(ways, found, strict=True):
            started = time.process_time()
            way()
            took.append((time.process_time() - started) / AMOUNT * 1e6)
    return [median(took) for took in found]


if __name__ == "__main__":
    show(copies(), "records as dictionaries and as classes")
    sys.exit(0)
