"""Sink: one row of the table `events` for every record of every event topic.

Rows hold ids, words and figures; content, addresses and raw bytes stay in Kafka. A row is a tuple
in the order of `COLUMNS`, and every value fits its column whatever the record says, so that no
record can hold up the ones behind it.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from pipeline.domain import ids
from pipeline.domain.outcomes import Inbound
from pipeline.domain.records import Attempt, DeadLetter, Event, Message, Outcome, Source

STAGE: Final = "sink"
READS: Final = (
    "accepted.{lane}",
    "rejected",
    "dispatched",
    "delivered",
    "read",
    "failed",
    "timed-out",
    "late-receipts",
    "outcomes",
    "dead-letter",
)
WRITES: Final = ()

Row = tuple[Any, ...]

_LOW: Final = "LowCardinality(String)"
_TIME: Final = "DateTime64(3, 'UTC')"
_MAYBE: Final = f"Nullable({_TIME})"

COLUMNS: Final[Mapping[str, str]] = {
    "event_id": "String",
    "kind": _LOW,
    "tenant": _LOW,
    "message_id": "String",
    "recipient_key": "String",
    "command_id": "String",
    "step": "Int64",
    "try_no": "Int64",
    "occurred_at": _TIME,
    "accepted_at": _MAYBE,
    "deadline": _MAYBE,
    "retry_at": _MAYBE,
    "channel": _LOW,
    "provider": _LOW,
    "country": _LOW,
    "priority": _LOW,
    "category": _LOW,
    "campaign": "String",
    "labels_json": "String",
    "status": _LOW,
    "result": _LOW,
    "error_class": _LOW,
    "code": _LOW,
    "reason": _LOW,
    "field": _LOW,
    "provider_message_id": "String",
    "provider_event_id": "String",
    "latency_ms": "Int64",
    "cost_micros": "Int64",
    "currency": _LOW,
    "attempts_json": "String",
    "attempts_made": "Int64",
    "steps_tried": "Int64",
    "origin": _LOW,
    "on_doubt": _LOW,
    "in_doubt": "Bool",
    "resent": "Bool",
    "blind": "Bool",
    "reached_before": "Bool",
    "replay_of": "String",
    "idempotency_hash": "String",
    "source_topic": _LOW,
    "source_partition": "Int64",
    "source_offset": "Int64",
    "trace_id": "String",
    "record_version": "Int64",
    "_topic": _LOW,
    "_topic_id": _LOW,
    "_partition": "Int32",
    "_offset": "Int64",
    "_appended_at": _TIME,
}
"""What is inserted, by name and type, in the order of a row (`deploy/clickhouse/` says more)."""

UNREADABLE: Final = "unreadable"
"""The kind of a row that stands for a record that could not be read."""

_BLANKS: Final[Mapping[str, Any]] = {"Int32": 0, "Int64": 0, "Bool": False, _TIME: 0, _MAYBE: None}
_BLANK: Final[Mapping[str, Any]] = {name: _BLANKS.get(kind, "") for name, kind in COLUMNS.items()}
"""A row of nothing, in the order of the columns."""

_PARENT: Final = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_COST_MAX: Final = 10**12  # in whole units: the column is Decimal(18, 6)
_TIME_MAX: Final = 10_413_791_999_999  # 2299, where DateTime64 ends


def kind_of(topic: str) -> str:
    """The kind of a topic's rows: its catalogue name with `_` for `-`, without the lane."""
    return topic.partition(".")[0].replace("-", "_")


def to_row(record: Inbound, topic_id: str) -> Row:
    """The row of a record of one of the sink's topics; `record.value` is decoded.

    Raises:
        LookupError, TypeError: the value is not of its topic's record (`unreadable` has a row).
    """
    kind = kind_of(record.topic)
    build: Callable[[Any], Mapping[str, Any]] = _BUILDERS.get(kind, _event)
    return _row(build(record.value), record, topic_id, kind)


def unreadable(record: Inbound, topic_id: str, code: str) -> Row:
    """The row of a record that has no readable value: it is counted and named by its place."""
    place: Source = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
    }
    found = {
        "event_id": ids.unreadable_id(record.topic, record.partition, record.offset),
        "occurred_at": _time(record.timestamp),
        "error_class": "config",
        "code": code,
        "origin": "sink",
        **_source(place),
    }
    return _row(found, record, topic_id, UNREADABLE)


def _row(found: Mapping[str, Any], record: Inbound, topic_id: str, kind: str) -> Row:
    row = {**_BLANK, **found}
    row["kind"] = kind
    row["trace_id"] = _trace_id(record)
    row["_topic"] = record.topic
    row["_topic_id"] = topic_id
    row["_partition"] = record.partition
    row["_offset"] = record.offset
    row["_appended_at"] = _time(record.timestamp)
    return tuple(row.values())


def _source(source: Source | None) -> Mapping[str, Any]:
    if source is None:
        return {}
    return {
        "source_topic": source["topic"],
        "source_partition": source["partition"],
        "source_offset": source["offset"],
    }


def _json(value: Mapping[str, str] | list[Attempt]) -> str:
    return orjson.dumps(value).decode() if value else ""


def _micros(cost: float) -> int:
    """A cost in millionths; what is no amount of money counts as none."""
    if not cost or not math.isfinite(cost) or abs(cost) >= _COST_MAX:
        return 0
    return round(cost * 1_000_000)


def _time(at: int) -> int:
    """A time that the column can hold; providers have sent any number."""
    return min(max(at, 0), _TIME_MAX)


def _maybe(at: int | None) -> int | None:
    return None if at is None else _time(at)


def _trace_id(record: Inbound) -> str:
    for name, value in record.headers:
        if name == "traceparent":
            found = _PARENT.fullmatch(value)
            return found[1].decode() if found else ""
    return ""


def _event(event: Event) -> Mapping[str, Any]:
    return {
        "event_id": event["event_id"],
        "tenant": event["tenant"],
        "message_id": event["message_id"],
        "recipient_key": event["recipient_key"],
        "command_id": event["command_id"] or "",
        "step": event["step"],
        "try_no": event["try_no"],
        "occurred_at": _time(event["occurred_at"]),
        "accepted_at": _maybe(event["accepted_at"]),
        "retry_at": _maybe(event["retry_at"]),
        "channel": event["channel"],
        "provider": event["provider"],
        "country": event["country"],
        "priority": event["priority"],
        "category": event["category"],
        "campaign": event["campaign"] or "",
        "labels_json": _json(event["labels"]),
        "result": event["result"],
        "error_class": event["error_class"] or "",
        "code": event["code"] or "",
        "reason": event["reason"] or "",
        "field": event["field"] or "",
        "provider_message_id": event["provider_message_id"] or "",
        "provider_event_id": event["provider_event_id"] or "",
        "latency_ms": event["latency_ms"],
        "cost_micros": _micros(event["cost"]),
        "currency": event["currency"],
        "attempts_json": _json(event["attempts"]),
        "attempts_made": len(event["attempts"]),
        "origin": event["origin"],
        "in_doubt": event["in_doubt"],
        "resent": event["resent"],
        "blind": event["blind"],
        "reached_before": event["reached_before"],
        "record_version": event["record_version"],
        **_source(event["source"]),
    }


def _message(message: Message) -> Mapping[str, Any]:
    """Named by message and source: a caller's repeat is a row of its own, a repeat of ours is
    not."""
    source = message["source"]
    place = f"{source['topic']}:{source['partition']}:{source['offset']}"
    return {
        "event_id": ids.event_id(message["message_id"], 0, 0, "", "accepted", place),
        "tenant": message["tenant"],
        "message_id": message["message_id"],
        "recipient_key": message["recipient_key"],
        "occurred_at": _time(message["accepted_at"]),
        "accepted_at": _time(message["accepted_at"]),
        "deadline": _time(message["deadline"]),
        "country": message["country"],
        "priority": message["priority"],
        "category": message["category"],
        "campaign": message["campaign"] or "",
        "labels_json": _json(message["labels"]),
        "origin": "accept",
        "on_doubt": message["on_doubt"],
        "replay_of": message["replay_of"] or "",
        "idempotency_hash": message["idempotency_hash"] or "",
        "record_version": message["record_version"],
        **_source(source),
    }


def _outcome(outcome: Outcome) -> Mapping[str, Any]:
    return {
        "event_id": outcome["event_id"],
        "tenant": outcome["tenant"],
        "message_id": outcome["message_id"],
        "recipient_key": outcome["recipient_key"],
        "step": outcome["step"],
        "occurred_at": _time(outcome["occurred_at"]),
        "accepted_at": _time(outcome["accepted_at"]),
        "channel": outcome["channel"],
        "provider": outcome["provider"],
        "country": outcome["country"],
        "priority": outcome["priority"],
        "category": outcome["category"],
        "campaign": outcome["campaign"] or "",
        "labels_json": _json(outcome["labels"]),
        "status": outcome["status"],
        "reason": outcome["reason"],
        "latency_ms": outcome["latency_ms"],
        "cost_micros": _micros(outcome["cost"]),
        "currency": outcome["currency"],
        "attempts_made": outcome["attempts"],
        "steps_tried": outcome["steps_tried"],
        "origin": "fallback",
        "in_doubt": outcome["in_doubt"],
        "resent": outcome["resent"],
        "replay_of": outcome["replay_of"] or "",
        "record_version": outcome["record_version"],
    }


def _dead_letter(letter: DeadLetter) -> Mapping[str, Any]:
    """Without the content, the bytes and the detail: `pipeline dead-letters show` reads those. The
    kind of trouble is the row's `code`; `category` stays the message's."""
    message = letter["message"]
    about: Mapping[str, Any] = (
        {
            "accepted_at": _time(message["accepted_at"]),
            "deadline": _time(message["deadline"]),
            "country": message["country"],
            "category": message["category"],
            "campaign": message["campaign"] or "",
            "labels_json": _json(message["labels"]),
        }
        if message
        else {}
    )
    return {
        "event_id": letter["dead_letter_id"],
        "tenant": letter["tenant"],
        "message_id": letter["message_id"] or "",
        "recipient_key": letter["recipient_key"] or "",
        "occurred_at": _time(letter["occurred_at"]),
        "channel": letter["channel"],
        "provider": letter["provider"],
        "priority": letter["priority"],
        "error_class": letter["error_class"] or "",
        "code": letter["category"],
        "reason": letter["reason"],
        "attempts_json": _json(letter["attempts"]),
        "attempts_made": len(letter["attempts"]),
        "origin": letter["stage"],
        "record_version": letter["record_version"],
        **_source(letter["source"]),
        **about,
    }


_BUILDERS: Final[Mapping[str, Callable[[Any], Mapping[str, Any]]]] = {
    "accepted": _message,
    "outcomes": _outcome,
    "dead_letter": _dead_letter,
}
"""By kind; all other kinds are events."""
