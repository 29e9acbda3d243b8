"""One run from start to verdict: stack, load, faults, drain, history, oracle, books."""

import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import clickhouse_connect

from pipeline.local.kafka import SHORT_LIVED
from pipeline.topology import CATALOGUE
from tests.faults import config_for_faults
from tests.faults.chaos import Chaos
from tests.faults.findings import Finding, finding
from tests.faults.history import History
from tests.faults.load import Load
from tests.faults.mutants import STAGES, Plan
from tests.faults.oracle import judge
from tests.faults.recovery import Recoveries, inputs
from tests.faults.report import Line
from tests.faults.sources import Watcher, from_ledger, from_topics
from tests.faults.special import SPECIAL
from tests.faults.stack import PREFIX, Stack
from tests.faults.stories import stories

DRAIN_S: Final = 300.0
"""The longest deadline (120 s), the patience with receipts, and time to work it off."""

LONG_S: Final = 600.0
"""From here on it pays that the broker compiles its busy parts well."""

STILL_S: Final = 150.0
"""When nothing at all is answered for longer than the longest deadline, nothing will be."""

Say = Callable[[str], None]


@dataclass(slots=True)
class Result:
    """What came out of one run."""

    lines: list[Line]
    findings: list[Finding]
    errors: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    stories: list[str] = field(default_factory=list)

    @property
    def broken(self) -> list[Finding]:
        return [found for found in self.findings if not found.ok]

    @property
    def sound(self) -> bool:
        """Whether the oracle has nothing against the pipeline and the run itself went as planned."""
        return not self.broken and not self.errors

    def count(self, check: str) -> int:
        return sum(found.count for found in self.findings if found.check == check)


def perform(plan: Plan, folder: Path, say: Say, mutant: str = "", seed: int = 1) -> Result:
    """Carries out one plan. `mutant` names the switch to be set in every worker."""
    history = History(rules=config_for_faults.rules(plan.slots))
    java = SHORT_LIVED if plan.seconds < LONG_S else ()
    with Stack(folder, plan.window_s, mutant, plan.slots, seed, java) as stack:
        say(f"Kafka, ClickHouse, the provider and {2 * len(STAGES)} workers run in {folder}")
        watcher = Watcher(stack.bootstrap, PREFIX, patient=plan.rate > 100)
        watcher.start()
        recoveries = Recoveries(stack.bootstrap, PREFIX)
        recoveries.start()
        load = Load(stack.bootstrap, PREFIX, plan.rate, seed)
        load.start()
        warm(watcher)
        say(f"load: {plan.rate} messages a second")
        chaos = Chaos(plan, stack, watcher, recoveries, seed)
        began = time.monotonic()
        if plan.special:
            history.notices += SPECIAL[plan.special](stack, load, seed)
        chaos.run(plan.seconds)
        time.sleep(max(0.0, min(plan.seconds, 20.0) - (time.monotonic() - began)))
        load.stop()
        say(f"{len(load.sent)} requests acknowledged in {load.seconds:.0f} s; waiting for the rest")
        drained = drain(stack, watcher, recoveries, load)
        recoveries.stop()
        audit = stack.command("audit", "--full", "--json")
        stops = stack.supervisor.stop()
        watcher.stop()
        say("reading the topics and the provider's ledger")
        history.sent, history.faults = load.sent, chaos.faults
        from_topics(history, stack.bootstrap, PREFIX, stack.codec)
        compact = {topic.name for topic in CATALOGUE if topic.compact}
        history.live = {
            place: seen for place, seen in watcher.seen().items() if not_judged(place[0], compact)
        }
        foreign = from_ledger(history, stack.ledger, stack.reference_keys)
        rows = store_rows(stack.clickhouse_url)
    findings = judge(history, repeats_allowed=plan.repeats_allowed)
    findings.append(stored(history, rows))
    findings.append(finding("foreign references", "G3", len(history.requests), foreign))
    findings.append(books(audit.returncode, audit.stdout, audit.stderr))
    if plan.judged:
        findings = [found for found in findings if found.check in plan.judged]
    errors = [*chaos.errors, *load.refused[:5], *drained]
    errors += [f"{name} ended with status {status}" for name, status in stops.items() if status]
    if watcher.broken:
        errors.append(f"the watcher: {watcher.broken}")
    told = stories(history, [found for found in findings if not found.ok])
    return Result(chaos.lines, findings, errors, facts(history, chaos, stack), told)


def warm(watcher: Watcher) -> None:
    """Waits until outcomes come out at the end, so that faults meet a pipeline at work."""
    until = time.monotonic() + 60
    while watcher.total("outcomes") < 20 and time.monotonic() < until:
        time.sleep(0.2)


def drain(stack: Stack, watcher: Watcher, recoveries: Recoveries, load: Load) -> list[str]:
    """Waits until everything is answered and every stage is done; what is missing, in words."""
    until = time.monotonic() + DRAIN_S

    def left() -> list[str]:
        missing = len(load.sent) - watcher.total("outcomes") - watcher.total("rejected")
        if missing > 0:
            return [f"{missing} of {len(load.sent)} requests have neither outcome nor rejection"]
        stats = stack.provider_stats() or {}
        if stats.get("pending_receipts", 1):
            return [f"the provider still owes receipts: {stats}"]
        found = []
        for stage in STAGES:
            topics = [topic for names in inputs(stage).values() for topic in names]
            behind = recoveries.positions.behind(stage, watcher.ends(topics))
            if behind:
                found.append(f"{stage} is behind: {dict(list(behind.items())[:4])}")
        return found

    quiet_since = None
    answered, moved_at = 0, time.monotonic()
    while time.monotonic() < min(until, moved_at + STILL_S):
        now_answered = watcher.total("outcomes") + watcher.total("rejected")
        if now_answered != answered:
            answered, moved_at = now_answered, time.monotonic()
        missing = left()
        quiet_since = (quiet_since or time.monotonic()) if not missing else None
        if quiet_since is not None and time.monotonic() - quiet_since > 2.0:
            return []
        time.sleep(0.5)
    return [f"not finished: {text}" for text in left()]


def not_judged(topic: str, compact: set[str]) -> bool:
    """Topics whose records stay where they are; compacted ones lose theirs by right."""
    return topic not in compact and not topic.startswith(("intake", "callbacks", "recipients"))


def store_rows(url: str) -> dict[str, tuple[int, int]]:
    """Rows and different events in ClickHouse by topic (with the prefix)."""
    client = clickhouse_connect.get_client(dsn=url)
    try:
        found = client.query(
            "SELECT _topic, count(), uniqExact(event_id) FROM events_unique GROUP BY _topic"
        )
        return {topic: (rows, events) for topic, rows, events in found.result_rows}
    finally:
        client.close()


def stored(history: History, rows: dict[str, tuple[int, int]]) -> Finding:
    """Every event stands in ClickHouse once."""
    expected: dict[str, set[str]] = defaultdict(set)
    for topic in CATALOGUE.inputs("sink"):
        for record in history.of(topic.name):
            name = record.value.get("event_id") or record.value.get("dead_letter_id")
            if name is not None:
                expected[topic.name].add(name)
    wrong = []
    for topic_name, names in expected.items():
        count, events = rows.get(topic_name) or rows.get(PREFIX + topic_name) or (0, 0)
        if (count, events) != (len(names), len(names)):
            wrong.append(
                f"{topic_name}: {len(names)} events in Kafka, {count} rows of {events} events"
            )
    return finding("rows in ClickHouse", "G1", sum(map(len, expected.values())), wrong)


def books(status: int, out: str, err: str) -> Finding:
    """What `pipeline audit` says."""
    wrong = [] if status == 0 else [f"exit status {status}: {(out + err)[-2000:]}"]
    return finding("pipeline audit", "G10", 1, wrong)


def facts(history: History, chaos: Chaos, stack: Stack) -> dict[str, Any]:
    """Figures that show that the run tested something."""
    answers = [request.answer for request in history.requests]
    attempts = [
        attempt
        for record in history.of("dispatched", "failed")
        for attempt in record.value["attempts"]
    ]
    events = [event for kind in ("held", "released") for event in stack.proxy.events(kind)]
    return {
        "requests acknowledged": len(history.sent),
        "outcomes": len(history.outcomes()),
        "delivered": sum(
            records[0].value["status"] == "delivered" for records in history.outcomes().values()
        ),
        "rejected": len(history.topics.get("rejected", ())),
        "provider requests": len(history.requests),
        "hand-overs": len(history.handovers),
        "in doubt": sum(attempt["in_doubt"] for attempt in attempts),
        "resent": sum(attempt["resent"] for attempt in attempts),
        "blind timeouts": sum(record.value["blind"] for record in history.of("timed-out")),
        "timed out": len(history.topics.get("timed-out", ())),
        "late receipts": len(history.topics.get("late-receipts", ())),
        "answers": {name: answers.count(name) for name in sorted(set(answers))},
        "rebalances by guests": chaos.rebalances,
        "EndTxn held": sum(event["event"] == "held" for event in events),
        "EndTxn released": sum(event["event"] == "released" for event in events),
        "late EndTxn refused by the broker": sum(
            event["event"] == "released" and bool(event["error"]) for event in events
        ),
        "worker exits": len(stack.exits),
    }


def as_json(result: Result) -> str:
    """Facts for the log."""
    return json.dumps(result.facts, indent=2)
