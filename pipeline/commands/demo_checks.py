"""Whether the demo's figures can be true together. Each line of the result says what is wrong and
names the first messages or requests that it concerns."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pipeline.commands.demo_evidence import Evidence
from pipeline.commands.demo_figures import (
    FAULTS,
    answers,
    attempts_of,
    double_sends,
    late_by_message,
    requests_of_messages,
)

SHOWN: Final = 5
ENOUGH: Final = 2_000
"""Messages from which on every kind of fault must have happened."""


def check(evidence: Evidence, figures: Mapping[str, Any]) -> list[str]:
    """Everything that does not add up; empty when all is well."""
    return [
        *_books(figures),
        *_answered(evidence),
        *_provider(evidence, figures),
        *_outcomes_against_ledger(evidence),
        *_late(evidence),
        *_stored(figures),
        *(_faults(figures) if figures["messages"] >= ENOUGH else ()),
    ]


def _books(figures: Mapping[str, Any]) -> Iterator[str]:
    parts = ("rejected", "delivered", "failed", "in_flight")
    total = sum(figures[name] for name in parts)
    if figures["messages"] != total:
        shown = " + ".join(f"{name} {figures[name]}" for name in parts)
        yield f"messages {figures['messages']} are not {shown} = {total}"
    if figures["in_flight"]:
        yield f"{figures['in_flight']} messages have no outcome"


def _answered(evidence: Evidence) -> Iterator[str]:
    found = answers(evidence)
    none = [str(number) for number, said in found.items() if not said]
    if none:
        yield _named("requests have no answer", none)
    many = [str(number) for number, said in found.items() if len(said) > 1]
    if many:
        yield _named("requests have more than one answer", many)
    owners = requests_of_messages(evidence)
    wrong = [message for message in evidence.outcomes() if len(owners.get(message, ())) != 1]
    if wrong:
        yield _named("outcomes belong to no request, or to several", wrong)


def _provider(evidence: Evidence, figures: Mapping[str, Any]) -> Iterator[str]:
    doubles = double_sends(evidence)
    if doubles[True]:
        yield f"{doubles[True]} double sends where keys are honoured"
    if doubles[False] > figures["in_doubt_resent"]:
        yield (
            f"{doubles[False]} double sends where keys are not honoured, but only"
            f" {figures['in_doubt_resent']} were declared in doubt and resent"
        )
    said = sum(attempt["requests"] for attempt in attempts_of(evidence))
    if said != figures["provider_requests"]:
        yield f"dispatch says {said} requests, the provider {figures['provider_requests']}"
    if evidence.foreign:
        yield f"{evidence.foreign} references at the provider are not ours"


def _outcomes_against_ledger(evidence: Evidence) -> Iterator[str]:
    deliveries = defaultdict(list)
    for delivery in evidence.deliveries():
        deliveries[delivery.message_id].append(delivery)
    ends = window_ends(evidence)
    invented, missed = [], []
    for found in evidence.records.get("outcomes", {}).values():
        outcome, message = found.value, found.value["message_id"]
        mine = deliveries.get(message, [])
        if outcome["status"] == "delivered":
            # The provider notes our answer after it read it, so what counts is when it spoke.
            if outcome["reason"] != "accepted" and not any(d.sent_at <= found.at for d in mine):
                invented.append(message)
        else:
            decided = outcome["occurred_at"]
            end = min(decided, ends.get((message, outcome["step"]), decided))
            heard = [d.acknowledged_at for d in mine if d.acknowledged_at is not None]
            if any(at < end for at in heard):
                missed.append(message)
    if invented:
        yield _named("messages count as delivered before anybody said so", invented)
    if missed:
        yield _named("messages failed although a delivery was acknowledged in time", missed)


def window_ends(evidence: Evidence) -> dict[tuple[str, int], int]:
    """When the silence of a message's step was over: of steps that ended in silence, the last
    hand-over and its window; what failed earlier ended with its failure."""
    silent = {(value["message_id"], value["step"]) for value in evidence.of("timed_out")}
    windows = {name: found.value["window_ms"] for name, found in evidence.commands.items()}
    ends: dict[tuple[str, int], int] = {}
    for value in evidence.of("dispatched"):
        step = (value["message_id"], value["step"])
        if step in silent and value["command_id"] in windows:
            end = value["occurred_at"] + windows[value["command_id"]]
            ends[step] = max(end, ends.get(step, 0))
    return ends


def _late(evidence: Evidence) -> Iterator[str]:
    heard = Counter(
        delivery.message_id
        for delivery in evidence.deliveries()
        if delivery.acknowledged_at is not None
    )
    late, outcomes = late_by_message(evidence), evidence.outcomes()
    wrong = []
    for message, outcome in outcomes.items():
        in_time = outcome["status"] == "delivered" and outcome["reason"] != "accepted"
        if heard[message] - in_time != late[message]:
            wrong.append(f"{message} ({heard[message]} deliveries, {late[message]} late)")
    if wrong:
        yield _named("messages have deliveries that are neither outcome nor late receipt", wrong)


def _stored(figures: Mapping[str, Any]) -> Iterator[str]:
    kafka, stored = figures["kafka_events"], figures["clickhouse_events"]
    for kind in sorted({*kafka, *stored}):
        if kafka.get(kind, 0) != stored.get(kind, 0):
            yield f"{kind}: {kafka.get(kind, 0)} in Kafka, {stored.get(kind, 0)} in ClickHouse"


def _faults(figures: Mapping[str, Any]) -> Iterator[str]:
    never = [name for name in FAULTS if not figures[name]]
    if never:
        yield f"never happened: {', '.join(never)}"


def _named(what: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} {what}: {', '.join(names[:SHOWN])}{more}"
