"""A message's status and story, from its events as the store has them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from pipeline.domain.api import MessageStatus, StatusWord, StoryLine, WaitsFor

EVENTS_TOLD: Final = 200
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_REFUSED: Final = "opted_out"  # a rejection that is a message's end; a duplicate says nothing of it


class Seen(NamedTuple):
    """One event of one message. Times in ms; empty where the event does not say."""

    kind: str
    occurred_at: int
    step: int
    channel: str
    provider: str
    status: str
    result: str
    error_class: str
    code: str
    reason: str
    retry_at: int | None
    deadline: int | None
    cost: float
    currency: str


def status_of(message_id: str, seen: Sequence[Seen]) -> MessageStatus | None:
    """What became of the message so far, from its events in the order of time; None when there is
    none that says so."""
    seen = _own(seen)
    if not seen:
        return None
    kinds = {event.kind: event for event in seen}  # the last of each
    end = kinds.get("outcomes") or kinds.get("rejected")
    accepted = kinds.get("accepted")
    word, where = _now(kinds)
    waits_for, until = (None, None) if end else _waits(seen)
    return {
        "message_id": message_id,
        "status": word,
        "final": end is not None,
        "reason": (end.reason if end else "") or None,
        "channel": (where.channel if where else "") or None,
        "provider": (where.provider if where else "") or None,
        "waits_for": waits_for,
        "waits_until": _time(until),
        "accepted_at": _time(accepted.occurred_at if accepted else None),
        "settled_at": _time(end.occurred_at if end else None),
        "deadline": _time(accepted.deadline if accepted else None),
        "cost": end.cost if end else None,
        "currency": (end.currency if end else "") or None,
        "events": [_line(event) for event in seen[-EVENTS_TOLD:]],
    }


def _own(seen: Sequence[Seen]) -> list[Seen]:
    """Without what repeats of the message left behind: they were accepted too, and then rejected."""
    found: list[Seen] = []
    for event in seen:
        repeat = event.kind == "accepted" and any(one.kind == "accepted" for one in found)
        duplicate = event.kind == "rejected" and event.reason != _REFUSED
        if not repeat and not duplicate:
            found.append(event)
    return found


def _now(kinds: dict[str, Seen]) -> tuple[StatusWord, Seen | None]:
    """The status, and the event that says channel and provider."""
    outcome = kinds.get("outcomes")
    if outcome is not None:
        return "delivered" if outcome.status == "delivered" else "failed", outcome
    if "rejected" in kinds:
        return "rejected", None
    reached = kinds.get("read") or kinds.get("delivered")
    if reached is not None:
        return "delivered", reached
    if "dispatched" in kinds:
        return "dispatched", kinds["dispatched"]
    return "accepted", None


def _waits(seen: Sequence[Seen]) -> tuple[WaitsFor | None, int | None]:
    """What an open message waits for, as far as its events tell: they do not say whose turn it is
    or how long a window is."""
    last = next((event for event in reversed(seen) if event.kind in _WAITS), None)
    if last is None:
        return None, None
    if last.kind == "failed" and last.retry_at is not None:
        return "retry", last.retry_at
    return _WAITS[last.kind], None


_WAITS: Final[Mapping[str, WaitsFor]] = {
    "accepted": "turn",
    "dispatched": "receipt",
    "failed": "next_step",
    "timed_out": "next_step",
    "delivered": "outcome",
    "read": "outcome",
}


def _line(event: Seen) -> StoryLine:
    found: StoryLine = {"at": _time(event.occurred_at) or "", "event": event.kind}
    if event.channel:
        found["channel"] = event.channel
        found["step"] = event.step
    for name in ("provider", "status", "result", "error_class", "code", "reason"):
        value = getattr(event, name)
        if value:
            found[name] = value
    return found


def _time(at: int | None) -> str | None:
    if at is None:
        return None
    moment = _EPOCH + timedelta(milliseconds=at)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
