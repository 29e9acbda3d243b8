"""A message's life as data: the state that is kept, the names of its index entries, and which
receipt counts as success."""

import hashlib
import struct
from collections.abc import Mapping
from typing import Any, Final

from pipeline.domain import ids
from pipeline.domain.outcomes import Inbound
from pipeline.domain.ports_stage import timer_entry, window_entry
from pipeline.domain.records import (
    RECORD_VERSION,
    Event,
    Message,
    MessageState,
    Outcome,
    StepState,
)
from pipeline.domain.tracing import carried

OPEN: Final = "open"
SETTLED: Final = "settled"

# What an open message waits for.
SEQUENCE: Final = "sequence"  # the outcome of the message before it
TURN: Final = "turn"  # the recipient's turn in its lane
ANSWER: Final = "answer"  # dispatch's word on the live command
RECEIPT: Final = "receipt"  # a receipt, until the window ends
RETRY: Final = "retry"  # the time of the next try

SILENCES: Final = ("window", "command")
"""Timers that mean that nobody said anything: they wait until everything was heard."""

_RANK: Final = {"": 0, "failed": 1, "dispatched": 2, "delivered": 3, "read": 4}
_NUMBER: Final = struct.Struct(">q")
_ENOUGH: Final[Mapping[str, int]] = {"accepted": 2, "delivered": 3, "read": 4}


def message_key(message_id: str) -> bytes:
    """State key of a message's life."""
    return b"m:" + message_id.encode()


def content_key(message_id: str) -> bytes:
    """State key of a message's content, kept while it is open."""
    return b"c:" + message_id.encode()


def profile_key(recipient_key: str) -> bytes:
    """State key of a recipient's profile."""
    return b"p:" + recipient_key.encode()


def reached(status: str, success: str) -> bool:
    """Whether a status (dispatched, delivered or read) is the success that a step asks for."""
    return _RANK[status] >= _ENOUGH[success]


def better(status: str, than: str) -> bool:
    """Whether a status may follow another: it never goes back."""
    return _RANK.get(status, 0) > _RANK.get(than, 0)


def live_prefix(state: MessageState) -> bytes:
    """Index entries of the recipient's live commands in this lane."""
    return f"l:{state['priority']}:{state['recipient_key']}:".encode()


def turn_prefix(state: MessageState) -> bytes:
    """Index entries of the messages that wait for the recipient's turn in this lane, in order."""
    return f"q:{state['priority']}:{state['recipient_key']}:".encode()


def sequence_prefix(state: MessageState) -> bytes:
    """Index entries of the recipient's open messages with this sequence, in order."""
    name = hashlib.blake2b((state["sequence"] or "").encode(), digest_size=8).hexdigest()
    return f"s:{state['recipient_key']}:{name}:".encode()


def turn_entry(state: MessageState) -> bytes:
    """Sorts by the order in which messages were accepted."""
    order = _NUMBER.pack(state["accepted_offset"])
    return turn_prefix(state) + order + state["message_id"].encode()


def _sequence_entry(state: MessageState) -> bytes:
    order = _NUMBER.pack(state["accepted_at"]) + _NUMBER.pack(state["accepted_offset"])
    return sequence_prefix(state) + order + state["message_id"].encode()


def message_of_entry(entry: bytes) -> str:
    """The message that a turn or sequence entry ends with."""
    return entry[-36:].decode()


def index(key: bytes, state: MessageState) -> list[bytes]:
    """Everything by which a message must be found besides its id."""
    entries: list[bytes] = []
    if state["due_at"] is not None:
        make = window_entry if state["due_for"] in SILENCES else timer_entry
        entries.append(make(state["due_at"], key))
    if state["command_id"] is not None:
        entries.append(live_prefix(state) + state["message_id"].encode())
    if state["waiting"] == TURN:
        entries.append(turn_entry(state))
    if state["sequence"] is not None and state["status"] == OPEN:
        entries.append(_sequence_entry(state))
    return entries


def receipt_mark(event: Event) -> str:
    """Short name of what a receipt says of which hand-over; a repeat has the same."""
    said = event["provider_message_id"] or event["provider_event_id"] or event["event_id"]
    text = f"{event['step']}\x1f{event['kind']}\x1f{event['provider']}\x1f{said}"
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def reach_mark(event: Event) -> str:
    """Short name of the hand-over that a receipt says reached the person, whatever its words."""
    said = event["provider_message_id"] or event["provider_event_id"] or event["event_id"]
    text = f"reach\x1f{event['step']}\x1f{event['provider']}\x1f{said}"
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def is_of_earlier_try(state: MessageState, provider_message_id: str | None) -> bool:
    """Whether a hand-over belongs to a command of this message before the last one of its step."""
    if provider_message_id is None:
        return False
    number = state["step"]
    command = ids.command_id(state["message_id"], number, state["steps"][number]["commands"])
    return any(
        attempt["provider_message_id"] == provider_message_id
        and attempt["attempt_id"] != ids.attempt_id(command, attempt["provider"])
        for attempt in state["attempts"]
    )


def opened(message: Message, record: Inbound, steps: list[StepState]) -> MessageState:
    """A message that nothing has been done for yet."""
    trace = {name: value.decode() for name, value in carried(record.headers)}
    return {
        "record_version": RECORD_VERSION,
        "tenant": message["tenant"],
        "message_id": message["message_id"],
        "recipient_key": message["recipient_key"],
        "source": message["source"],
        "status": OPEN,
        "accepted_at": message["accepted_at"],
        "accepted_offset": record.offset,
        "deadline": message["deadline"],
        "priority": message["priority"],
        "category": message["category"],
        "campaign": message["campaign"],
        "labels": message["labels"],
        "country": message["country"],
        "sequence": message["sequence"],
        "on_doubt": message["on_doubt"],
        "replay_of": message["replay_of"],
        "traceparent": trace.get("traceparent"),
        "tracestate": trace.get("tracestate"),
        "step": 0,
        "steps": steps,
        "command_id": None,
        "command_expires_at": None,
        "waiting": "",
        "due_at": None,
        "due_for": "",
        "seen": [],
        "attempts": [],
        "delivered_channel": "",
        "outcome": "",
        "outcome_reason": "",
        "settled_at": None,
        "cost": 0.0,
        "currency": "",
        "in_doubt": False,
        "resent": False,
    }


def forget_what_is_over(state: MessageState) -> None:
    """Drops what a settled message needs no more: about 200 bytes stay, to know repeats and to
    price late receipts."""
    state["attempts"] = []
    state["labels"] = {}
    for step in state["steps"]:
        step["reason"] = step["negative_class"] = step["negative_code"] = ""


def trace_headers(state: MessageState) -> tuple[tuple[str, bytes], ...]:
    """The caller's trace context as Kafka headers."""
    pairs = (("traceparent", state["traceparent"]), ("tracestate", state["tracestate"]))
    return tuple((name, text.encode()) for name, text in pairs if text)


def outcome_of(
    state: MessageState, event_id: str, status: str, reason: str, step: int, now: int
) -> Outcome:
    """The final word. `step` is the one that reached the person, or the last one tried."""
    known = state["steps"][step] if step < len(state["steps"]) else None
    return {
        "record_version": RECORD_VERSION,
        "event_id": event_id,
        "tenant": state["tenant"],
        "message_id": state["message_id"],
        "recipient_key": state["recipient_key"],
        "status": status,
        "reason": reason,
        "channel": known["channel"] if known else "",
        "provider": known["provider"] if known else "",
        "step": step,
        "steps_tried": sum(1 for s in state["steps"] if s["commands"]),
        "attempts": len(state["attempts"]),
        "country": state["country"],
        "priority": state["priority"],
        "category": state["category"],
        "campaign": state["campaign"],
        "labels": state["labels"],
        "accepted_at": state["accepted_at"],
        "occurred_at": now,
        "latency_ms": max(0, now - state["accepted_at"]),
        "cost": state["cost"],
        "currency": state["currency"],
        "in_doubt": state["in_doubt"],
        "resent": state["resent"],
        "replay_of": state["replay_of"],
    }


def as_dict(state: MessageState) -> dict[str, Any]:
    """The state as the desk keeps it; the same object."""
    return state  # type: ignore[return-value]
