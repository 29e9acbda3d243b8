"""What a set of records comes to, counted in plain Python: the judge of every view and query.

Times are milliseconds since the epoch. Nothing here knows SQL, or how the tables are made.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipeline.stages.sink import kind_of
from tests.sql.made import Record

Event = Mapping[str, Any]
WORDS = ("dispatched", "failed")


@dataclass
class Attempt:
    """A hand-over and what the provider said of it later."""

    event: Event
    what: Event
    receipts: list[Event] = field(default_factory=list)
    due: bool = False

    @property
    def receipt(self) -> str:
        kinds = {said["kind"] for said in self.receipts}
        return next((kind for kind in ("read", "delivered", "failed") if kind in kinds), "")

    @property
    def refusal(self) -> Event:
        return next(said for said in self.receipts if said["kind"] == "failed")


@dataclass
class Life:
    """All that is known of one message."""

    events: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def first(self) -> Event:
        return min(self.events["accepted"], key=lambda e: e["accepted_at"])

    @property
    def outcome(self) -> Event | None:
        return next(iter(self.events["outcomes"]), None)

    @property
    def status(self) -> str:
        if self.outcome:
            return str(self.outcome["status"])
        if any(event["code"] != "duplicate" for event in self.events["rejected"]):
            return "rejected"
        if self.events["delivered"] or self.events["read"]:
            return "delivered"
        return "dispatched" if self.events["dispatched"] else "accepted"

    @property
    def steps(self) -> list[tuple[int, str]]:
        words = [e for kind in WORDS for e in self.events[kind] if e["origin"] == "dispatch"]
        return sorted({(e["step"], e["channel"]) for e in [*words, *self.events["timed_out"]]})

    def left_for(self, step: int) -> str:
        if any(event["step"] == step for event in self.events["timed_out"]):
            return "timed_out"
        return str([e["error_class"] for e in self.events["failed"] if e["step"] == step][-1])

    @property
    def hops(self) -> list[tuple[str, str, str, int]]:
        """From channel, to channel, why, to step."""
        steps = self.steps
        return [
            (channel, to[1], self.left_for(step), to[0])
            for (step, channel), to in itertools.pairwise(steps)
        ]

    def first_at(self, kind: str) -> int | None:
        return min((event["occurred_at"] for event in self.events[kind]), default=None)

    @property
    def cost(self) -> float:
        return sum(attempt.what["cost"] for attempt in self.attempts)


def once(records: Iterable[Record]) -> list[Event]:
    """Every event once, in the order in which it was first written, with its kind."""
    found: dict[tuple[str, str], Event] = {}
    for topic, value in records:
        kind = kind_of(topic)
        name = value.get("event_id") or value.get("dead_letter_id")
        name = name or f"{value['message_id']}/{value['source']['offset']}"
        found.setdefault((kind, name), {**value, "kind": kind})
    return list(found.values())


def by_message(records: Iterable[Record]) -> dict[str, Life]:
    """Every message that was accepted, by id."""
    found: dict[str, Life] = defaultdict(Life)
    known = {value["message_id"] for topic, value in records if kind_of(topic) == "accepted"}
    for event in once(records):
        if event["message_id"] in known:
            found[event["message_id"]].events[event["kind"]].append(event)
    for life in found.values():
        _add_attempts(life)
    return dict(found)


def _add_attempts(life: Life) -> None:
    seen: set[str] = set()
    receipts = [
        e for k in ("delivered", "read", "failed") for e in life.events[k]
        if e["origin"] == "receipts"
    ]  # fmt: skip
    for event in [e for kind in WORDS for e in life.events[kind] if e["origin"] == "dispatch"]:
        for what in event["attempts"]:
            if what["attempt_id"] in seen:
                continue
            seen.add(what["attempt_id"])
            one = Attempt(event, what)
            if what["result"] != "refused":
                one.receipts = [said for said in receipts if _about(said, event, what)]
                silent = any(e["step"] == event["step"] for e in life.events["timed_out"])
                settled = life.outcome is not None and life.outcome["reason"] != "accepted"
                one.due = bool(one.receipts) or silent or settled
            life.attempts.append(one)


def _about(said: Event, event: Event, what: Event) -> bool:
    mine = what["provider_message_id"]
    return (said["step"], said["provider"]) == (event["step"], what["provider"]) and (
        mine is None or said["provider_message_id"] == mine
    )


def exact(values: Iterable[int], share: float) -> int:
    """The value below which `share` of the others are, as the engine counts it."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def day(at: int) -> str:
    """The date in UTC."""
    return datetime.fromtimestamp(at / 1000, UTC).date().isoformat()


def moment(at: int) -> str:
    """The time as ClickHouse prints it in JSON."""
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def grouped(items: Iterable[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    """Items by what `key` says, in the order of the keys."""
    found: dict[Any, list[Any]] = defaultdict(list)
    for item in items:
        found[key(item)].append(item)
    return dict(sorted(found.items()))


def counts(items: Iterable[Any]) -> list[tuple[Any, int]]:
    """How often each is there, the most frequent first, then by name."""
    return sorted(Counter(items).items(), key=lambda found: (-found[1], found[0]))
