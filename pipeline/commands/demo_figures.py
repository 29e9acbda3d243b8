"""The demo's figures, each counted where it can be seen best (docs/demo.md has the table)."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipeline.commands.demo_evidence import Evidence, Place

FAULTS: Final = (
    "rejected", "failed", "fallbacks_by_failure", "fallbacks_by_silence", "timed_out", "retries",
    "late_receipts", "double_deliveries", "in_doubt", "in_doubt_resent", "dead_letters",
    "provider_repeated_keys", "provider_double_sends",
)  # fmt: skip
"""Counters of faults: none may be zero in a run of some size, or it tested nothing."""


@dataclass(frozen=True, slots=True)
class Fallback:
    """A message that went on to its next step. `why` is failure or silence."""

    message_id: str
    channel: str  # that was left
    country: str
    why: str


def figures(evidence: Evidence) -> dict[str, Any]:
    """Every counter but `balanced` and `seconds`."""
    outcomes = evidence.outcomes()
    statuses = Counter(outcome["status"] for outcome in outcomes.values())
    fallbacks = Counter(one.why for one in fallbacks_of(evidence))
    attempts = list(attempts_of(evidence))
    return {
        "messages": len(evidence.sent),
        "rejected": len(evidence.records.get("rejected", {})),
        "delivered": statuses["delivered"],
        "failed": statuses["failed"],
        "in_flight": len(opened(evidence) - outcomes.keys()),
        "attempts": len(attempts),
        "fallbacks_by_failure": fallbacks["failure"],
        "fallbacks_by_silence": fallbacks["silence"],
        "timed_out": len(evidence.records.get("timed_out", {})),
        "retries": sum(1 for found in evidence.commands.values() if found.value["try_no"] > 1),
        "late_receipts": sum(late_by_message(evidence).values()),
        "double_deliveries": sum(1 for many in evidence.reached().values() if len(many) > 1),
        "in_doubt": sum(1 for attempt in attempts if attempt["in_doubt"]),
        "in_doubt_resent": sum(1 for attempt in attempts if attempt["resent"]),
        "dead_letters": len(evidence.records.get("dead_letter", {})),
        "provider_requests": len(evidence.ledger.requests),
        "provider_repeated_keys": evidence.ledger.repeated_keys(),
        "provider_double_sends": sum(double_sends(evidence).values()),
        "kafka_events": {kind: len(found) for kind, found in sorted(evidence.records.items())},
        "clickhouse_events": dict(sorted(evidence.stored.items())),
    }


def opened(evidence: Evidence) -> set[str]:
    """Messages that accept took and fallback did not turn away."""
    return set(requests_of_messages(evidence))


def requests_of_messages(evidence: Evidence) -> dict[str, list[Place]]:
    """By message, the requests that asked for it and were not rejected: one, where all is well."""
    refused = {_place(value) for value in evidence.of("rejected")}
    found: dict[str, list[Place]] = defaultdict(list)
    for value in evidence.of("accepted"):
        if _place(value) not in refused:
            found[value["message_id"]].append(_place(value))
    return dict(found)


def attempts_of(evidence: Evidence) -> Iterator[Mapping[str, Any]]:
    """Every attempt that dispatch has written down."""
    for kind in ("dispatched", "failed"):
        for value in evidence.of(kind):
            if value["origin"] == "dispatch":
                yield from value["attempts"]


def late_by_message(evidence: Evidence) -> Counter[str]:
    """Late hand-overs that reached a person; a late failure reached nobody."""
    return Counter(
        value["message_id"]
        for value in evidence.of("late_receipts")
        if value["reason"] in {"delivered", "read"}
    )


def fallbacks_of(evidence: Evidence) -> Iterator[Fallback]:
    """Every first command of a later step: what the step before it ended with."""
    silent = {(value["message_id"], value["step"]) for value in evidence.of("timed_out")}
    commands = [found.value for found in evidence.commands.values()]
    channels = {(value["message_id"], value["step"]): value["channel"] for value in commands}
    for value in commands:
        if value["step"] > 0 and value["try_no"] == 1:
            before = (value["message_id"], value["step"] - 1)
            why = "silence" if before in silent else "failure"
            channel = channels.get(before, "")
            yield Fallback(value["message_id"], channel, value["country"], why)


def double_sends(evidence: Evidence) -> Counter[bool]:
    """Hand-overs beyond the first under one idempotency key, by whether the account honours keys.
    A try after a definite failure has a new key and is no double."""
    seen: dict[str, int] = defaultdict(int)
    found: Counter[bool] = Counter()
    for handover in evidence.ledger.handovers:
        seen[handover.key] += 1
        if seen[handover.key] > 1:
            found[handover.honoured] += 1
    return found


def answers(evidence: Evidence) -> dict[int, list[dict[str, Any]]]:
    """What became of each request, by its number: one rejection or one outcome, where all is well.
    Holds nothing that differs between two runs with one seed."""
    outcomes = evidence.outcomes()
    found: dict[int, list[dict[str, Any]]] = {number: [] for number in evidence.sent.values()}
    refused = set()
    for value in evidence.of("rejected"):
        place = _place(value)
        refused.add(place)
        if place in evidence.sent:
            found[evidence.sent[place]].append(
                {"status": "rejected", "reason": value["reason"], "field": value["field"]}
            )
    for value in evidence.of("accepted"):
        place = _place(value)
        outcome = outcomes.get(value["message_id"])
        if place in evidence.sent and place not in refused and outcome is not None:
            found[evidence.sent[place]].append(
                {name: outcome[name] for name in ("status", "channel", "reason")}
            )
    return found


@dataclass(slots=True)
class Cell:
    """One line of the summary: a channel in a country."""

    sent: int = 0
    delivered: int = 0
    failed: int = 0
    by_failure: int = 0
    by_silence: int = 0
    latencies: list[int] | None = None

    def latency_s(self, share: float) -> float | None:
        """A percentile of the time from intake to delivery; None when nothing was delivered."""
        return None if not self.latencies else percentile(self.latencies, share) / 1000


def percentile(values: Iterable[int], share: float) -> int:
    """The nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def cells(evidence: Evidence) -> dict[tuple[str, str], Cell]:
    """By channel and country. `sent` counts steps that a provider took or may have taken,
    `delivered` and `failed` outcomes by the channel of their last word."""
    found: dict[tuple[str, str], Cell] = defaultdict(Cell)
    steps = {
        (value["message_id"], value["step"]): (value["channel"], value["country"])
        for value in evidence.of("dispatched")
    }
    for place in steps.values():
        found[place].sent += 1
    for outcome in evidence.outcomes().values():
        cell = found[outcome["channel"], outcome["country"]]
        if outcome["status"] == "delivered":
            cell.delivered += 1
            cell.latencies = [*(cell.latencies or ()), outcome["latency_ms"]]
        else:
            cell.failed += 1
    for one in fallbacks_of(evidence):
        cell = found[one.channel, one.country]
        if one.why == "silence":
            cell.by_silence += 1
        else:
            cell.by_failure += 1
    return dict(sorted(found.items()))


def _place(value: Mapping[str, Any]) -> Place:
    source = value["source"] or {"topic": "", "partition": 0, "offset": 0}
    return (source["topic"], source["partition"], source["offset"])
