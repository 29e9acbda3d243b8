"""Records to measure with. Every call makes new ones: a number names a message for good."""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, Final

import orjson
from confluent_kafka import Producer

from pipeline.domain import ids
from pipeline.domain.drafts import blank_event
from pipeline.runtime.codec import Codec

PEPPER: Final = bytes(range(32))
TENANT: Final = "default"
KNOWN_PEOPLE: Final = 5_000

Record = tuple[bytes, bytes]
"""Key and value, ready for the wire."""

_FAR: Final = 1 << 50
_numbers: Final = count(1)

# Mobile numbers that exist whatever follows, with how many digits do.
_PREFIXES: Final = (
    ("+49151", 8), ("+5511987", 6), ("+9198765", 5), ("+336123", 5), ("+447400", 6)
)  # fmt: skip


def phone(person: int) -> str:
    """A valid number; different ones for different people below half a million."""
    start, digits = _PREFIXES[person % len(_PREFIXES)]
    return f"{start}{person // len(_PREFIXES) % 10**digits:0{digits}d}"


def requests(amount: int, *, new_people: bool, priority: str | None = None) -> list[Record]:
    """Requests as clients write them, in JSON. Without a priority: one in five urgent, five in
    ten normal, three in ten bulk."""
    made = []
    for _ in range(amount):
        number = next(_numbers)
        person = number if new_people else number % KNOWN_PEOPLE
        lane = priority or ("urgent", "normal", "bulk", "normal", "normal", "bulk", "urgent",
                            "normal", "bulk", "normal")[number % 10]  # fmt: skip
        made.append(
            (
                f"caller-{person}".encode(),
                orjson.dumps(
                    {
                        "idempotency_key": f"bench-{number}",
                        "to": {"phone": phone(person), "email": f"person{person}@mail.example"},
                        "content": {
                            "text": f"Your parcel {number} is on its way.",
                            "subject": "News for you",
                        },
                        "priority": lane,
                        "category": "transactional",
                        "labels": {"batch": str(number // 1000)},
                    }
                ),
            )
        )
    return made


def commands(codec: Codec, amount: int) -> list[Record]:
    """Commands of as many people."""
    made = []
    for _ in range(amount):
        number = next(_numbers)
        recipient = ids.recipient_key(PEPPER, TENANT, "phone", phone(number))
        message = ids.message_id(TENANT, recipient, str(number))
        value = {
            "record_version": 1,
            "tenant": TENANT,
            "message_id": message,
            "recipient_key": recipient,
            "command_id": ids.command_id(message, 0, 1),
            "step": 0,
            "try_no": 1,
            "key_no": 0,
            "channel": "sms",
            "address": phone(number),
            "content": {
                "text": f"Your parcel {number} is on its way.", "subject": None, "html": None
            },
            "country": "DE",
            "category": "transactional",
            "campaign": None,
            "priority": "normal",
            "on_doubt": "wait",
            "window_ms": 600_000,
            "expires_at": _FAR,
            "accepted_at": 1,
            "order": number,
        }  # fmt: skip
        made.append((recipient.encode(), codec.encode("Command", value)))
    return made


def dispatched(codec: Codec, amount: int) -> list[Record]:
    """Events of commands that a provider took, with their attempt."""
    made = []
    for _ in range(amount):
        number = next(_numbers)
        recipient = ids.recipient_key(PEPPER, TENANT, "phone", str(number % KNOWN_PEOPLE))
        message = ids.message_id(TENANT, recipient, str(number))
        command = ids.command_id(message, 0, 1)
        event: dict[str, Any] = dict(
            blank_event(
                ids.event_id(message, 0, 1, "sms-a", "dispatched", ""),
                "dispatched",
                TENANT,
                message,
                recipient,
            )
        )
        event |= {
            "command_id": command,
            "try_no": 1,
            "occurred_at": 1_767_225_600_000 + number,
            "accepted_at": 1_767_225_599_000 + number,
            "channel": "sms",
            "provider": "sms-a",
            "country": "DE",
            "priority": "normal",
            "category": "transactional",
            "labels": {"batch": str(number // 1000)},
            "result": "accepted",
            "provider_message_id": f"id-{number}",
            "latency_ms": 12,
            "cost": 0.032,
            "currency": "EUR",
            "origin": "dispatch",
            "source": {"topic": "send.sms.normal", "partition": 0, "offset": number},
            "attempts": [
                {
                    "attempt_id": ids.attempt_id(command, "sms-a"),
                    "provider": "sms-a",
                    "requests": 1,
                    "started_at": 1_767_225_599_500 + number,
                    "latency_ms": 12,
                    "result": "accepted",
                    "error_class": None,
                    "code": None,
                    "provider_message_id": f"id-{number}",
                    "cost": 0.032,
                    "currency": "EUR",
                    "in_doubt": False,
                    "resent": False,
                }
            ],
        }
        made.append((recipient.encode(), codec.encode("Event", event)))
    return made


def messages(codec: Codec, amount: int) -> list[Record]:
    """Accepted messages."""
    made = []
    for key, raw in requests(amount, new_people=False):
        del key
        request = orjson.loads(raw)
        number = next(_numbers)
        recipient = ids.recipient_key(PEPPER, TENANT, "phone", request["to"]["phone"])
        value = {
            "record_version": 1,
            "tenant": TENANT,
            "message_id": ids.message_id(TENANT, recipient, str(number)),
            "recipient_key": recipient,
            "idempotency_hash": ids.idempotency_hash(PEPPER, TENANT, str(number)),
            "source": {"topic": "intake", "partition": 0, "offset": number},
            "accepted_at": 1_767_225_600_000,
            "priority": "normal",
            "category": "transactional",
            "campaign": None,
            "labels": request["labels"],
            "to": {**request["to"], "id": None, "country": None},
            "country": "DE",
            "content": {**request["content"], "html": None},
            "route": None,
            "deadline": _FAR,
            "sequence": None,
            "on_doubt": "wait",
            "replay_of": None,
        }
        made.append((recipient.encode(), codec.encode("Message", value)))
    return made


def blast(producer: Producer, topic: str, records: Sequence[Record]) -> None:
    """Writes them as fast as the client takes them; returns when the broker has them all."""
    for key, value in records:
        while True:
            try:
                producer.produce(topic, value, key)
                break
            except BufferError:
                producer.poll(0.01)
    producer.flush(60)


def chunks(amount: int, parts: int) -> Iterator[int]:
    """`amount` in `parts` about equal parts."""
    for part in range(parts):
        yield amount * (part + 1) // parts - amount * part // parts
