"""What fallback says of a message, as records."""

from pipeline.domain import ids
from pipeline.domain.drafts import blank_event, blank_letter
from pipeline.domain.errors import ErrorClass
from pipeline.domain.records import DeadLetter, Event, Message, MessageState

_CLASSES = frozenset(ErrorClass)


def rejected(asked: Message, reason: str, field: str, now: int) -> Event:
    """A request that was understood and not taken; a repeat of it gets the same id."""
    source = asked["source"]
    place = f"{source['topic']}/{source['partition']}/{source['offset']}"
    name = ids.event_id(asked["message_id"], 0, 0, "", "rejected", f"{reason}/{place}")
    blank = blank_event(
        name, "rejected", asked["tenant"], asked["message_id"], asked["recipient_key"]
    )
    return {
        **blank,
        "occurred_at": now,
        "accepted_at": asked["accepted_at"],
        "country": asked["country"],
        "priority": asked["priority"],
        "category": asked["category"],
        "campaign": asked["campaign"],
        "labels": asked["labels"],
        "code": reason,
        "reason": reason,
        "field": field,
        "origin": "fallback",
        "source": source,
    }


def timed_out(state: MessageState, blind: bool, now: int) -> Event:
    """The step at work stayed silent until its window ended."""
    number = state["step"]
    step = state["steps"][number]
    name = ids.event_id(
        state["message_id"], number, step["commands"], step["provider"], "timed_out", ""
    )
    blank = blank_event(
        name, "timed_out", state["tenant"], state["message_id"], state["recipient_key"]
    )
    return {
        **blank,
        "command_id": ids.command_id(state["message_id"], number, step["commands"]),
        "step": number,
        "try_no": step["commands"],
        "occurred_at": now,
        "accepted_at": state["accepted_at"],
        "channel": step["channel"],
        "provider": step["provider"],
        "country": state["country"],
        "priority": state["priority"],
        "category": state["category"],
        "campaign": state["campaign"],
        "labels": state["labels"],
        "result": step["result"],
        "reason": "silence",
        "latency_ms": max(0, now - (step["dispatched_at"] or now)),
        "origin": "fallback",
        "in_doubt": step["result"] == "unknown",
        "blind": blind,
    }


def late_receipt(state: MessageState, event: Event, twice: bool, now: int) -> Event:
    """A receipt that came after the outcome; `twice`: the person had been reached before, so the
    cost of this hand-over was for nothing."""
    step = state["steps"][event["step"]]
    return {
        **event,
        "event_id": ids.event_id(
            state["message_id"],
            event["step"],
            event["try_no"],
            event["provider"],
            "late_receipts",
            event["event_id"],
        ),
        "kind": "late_receipts",
        "reason": event["kind"],
        "occurred_at": now,
        "accepted_at": state["accepted_at"],
        "channel": step["channel"],
        "country": state["country"],
        "priority": state["priority"],
        "category": state["category"],
        "campaign": state["campaign"],
        "cost": step["cost"] if twice else 0.0,
        "currency": state["currency"],
        "origin": "fallback",
        "reached_before": twice,
    }


def dead_letter(state: MessageState, reason: str, content: Message | None, now: int) -> DeadLetter:
    """A message that failed for good, with everything needed to understand and replay it."""
    step = state["steps"][state["step"]] if state["steps"] else None
    name = ids.event_id(state["message_id"], state["step"], 0, "", "dead_letter", reason)
    return {
        **blank_letter(name, "fallback", "failed", reason),
        "tenant": state["tenant"],
        "message_id": state["message_id"],
        "recipient_key": state["recipient_key"],
        "error_class": reason if reason in _CLASSES else None,
        "detail": "; ".join(f"{s['channel']}: {s['status']} {s['reason']}" for s in state["steps"]),
        "channel": step["channel"] if step else "",
        "provider": step["provider"] if step else "",
        "priority": state["priority"],
        "occurred_at": now,
        "source": state["source"],
        "message": content,
        "attempts": state["attempts"],
    }
