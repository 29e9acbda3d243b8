"""Counters and histograms, and what records count for."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain import meters, metrics
from pipeline.domain.drafts import blank_event
from pipeline.domain.meters import Labels, Meters, Spread
from pipeline.domain.metrics import METRICS, Metric
from pipeline.domain.tallies import Tallies

EXAMPLES = Path(__file__).resolve().parents[3] / "schemas" / "examples"
PRIVATE = {
    "id",
    "message",
    "message_id",
    "recipient",
    "address",
    "phone",
    "email",
    "tenant",
    "code",
}


def read(found: Meters, metric: Metric) -> dict[Labels, Any]:
    return {series.labels: series.value for series in found.read() if series.metric is metric}


@pytest.fixture
def counted() -> Meters:
    return Meters()


def test_every_metric_is_named_once_and_no_label_can_be_a_person() -> None:
    names = [metric.exposed for metric in METRICS]
    assert len(set(names)) == len(names) >= 20
    for metric in METRICS:
        assert metric.help.endswith("."), metric.name
        assert not set(metric.labels) & PRIVATE, metric.name
        assert bool(metric.bounds) == (metric.kind == "histogram"), metric.name
        assert list(metric.bounds) == sorted(set(metric.bounds)), metric.name


def test_the_document_lists_every_metric_as_it_is() -> None:
    shown = (EXAMPLES.parents[1] / "docs" / "telemetry.md").read_text(encoding="utf-8")
    for metric in METRICS:
        row = f"| `{metric.exposed}` | {', '.join(metric.labels)} | {metric.help} |"
        assert row in shown, metric.name


def test_a_counter_adds_up_by_labels(counted: Meters) -> None:
    tally = counted.tally(metrics.TRANSACTIONS)
    tally.add(("committed",))
    tally.add(("committed",), 2)
    tally.add(("aborted",))
    assert read(counted, metrics.TRANSACTIONS) == {("committed",): 3, ("aborted",): 1}


def test_a_histogram_puts_a_bound_into_its_own_bucket(counted: Meters) -> None:
    spread = counted.histogram(metrics.COMMIT)
    for value in (0.001, 0.0011, 99.0):
        spread.add((), value)
    found = read(counted, metrics.COMMIT)[()]
    assert isinstance(found, Spread)
    assert (found.counts[0], found.counts[1], found.counts[-1]) == (1, 1, 1)
    assert sum(found.counts) == 3
    assert found.total == pytest.approx(99.0021)


def test_labels_that_should_be_few_and_are_not_fill_no_memory(counted: Meters) -> None:
    tally, spread = counted.tally(metrics.TRANSACTIONS), counted.histogram(metrics.ATTEMPTS)
    for number in range(3 * meters.MOST_SERIES):
        tally.add((str(number),))
        spread.add(("sms", str(number), "accepted"), 1.0)
    assert len(tally.values) == len(spread.values) == meters.MOST_SERIES + 1
    assert tally.values[meters.OTHER,] == 2 * meters.MOST_SERIES
    assert sum(spread.values[(meters.OTHER,) * 3][0]) == 2 * meters.MOST_SERIES


def test_a_watched_number_is_looked_up_when_it_is_read(counted: Meters) -> None:
    rows = 0
    counted.watch(metrics.ROWS, lambda: {(): rows})
    rows = 7
    assert read(counted, metrics.ROWS) == {(): 7}


# What records count for


def event(kind: str, **changes: Any) -> dict[str, Any]:
    blank = blank_event("e", kind, "acme", "m", "r")
    return {**blank, "channel": "sms", "provider": "one", "origin": "dispatch", **changes}


def attempt(provider: str, result: str, error_class: str | None, ms: int) -> dict[str, Any]:
    return {
        "provider": provider,
        "result": result,
        "error_class": error_class,
        "latency_ms": ms,
    }


def test_each_attempt_of_a_command_counts_and_its_event_once(counted: Meters) -> None:
    tried = [attempt("one", "refused", "provider", 40), attempt("two", "accepted", None, 200)]
    value = event("dispatched", provider="two", priority="urgent", attempts=tried)
    Tallies(counted).committed("dispatched", value)
    assert read(counted, metrics.EVENTS) == {("dispatched", "sms", "two", "urgent"): 1}
    assert read(counted, metrics.ERRORS) == {("provider", "sms", "one"): 1}
    times = read(counted, metrics.ATTEMPTS)
    assert {labels: spread.total for labels, spread in times.items()} == {
        ("sms", "one", "refused"): 0.04,
        ("sms", "two", "accepted"): 0.2,
    }


def test_an_error_without_an_attempt_counts_and_a_late_copy_of_it_does_not(
    counted: Meters,
) -> None:
    tallies = Tallies(counted)
    tallies.committed("failed", event("failed", error_class="opt_out", provider=""))
    tallies.committed("failed", event("failed", error_class="channel", origin="receipts"))
    late = event("late_receipts", error_class="channel", origin="fallback")
    tallies.committed("late-receipts", late)
    assert read(counted, metrics.ERRORS) == {
        ("opt_out", "sms", ""): 1,
        ("channel", "sms", "one"): 1,
    }
    assert sum(read(counted, metrics.EVENTS).values()) == 3


def test_an_outcome_counts_with_its_time_from_arrival_to_end(counted: Meters) -> None:
    path = next(iter(sorted((EXAMPLES / "Outcome").glob("*.json"))))
    value = json.loads(path.read_text())
    Tallies(counted).committed("outcomes", value)
    (labels,) = read(counted, metrics.END_TO_END)
    assert labels == (value["status"], value["channel"], value["priority"])
    assert read(counted, metrics.END_TO_END)[labels].total == value["latency_ms"] / 1_000
    assert sum(read(counted, metrics.OUTCOMES).values()) == 1


def test_what_a_request_that_cannot_be_read_says_is_no_label(counted: Meters) -> None:
    value = event("rejected", channel="<script>", provider="x", priority="whatever")
    Tallies(counted).committed("rejected", value)
    assert read(counted, metrics.EVENTS) == {("rejected", "", "", ""): 1}


def test_every_example_of_every_written_record_can_be_counted(counted: Meters) -> None:
    """Nothing that a stage may write breaks the counting, and families are told apart."""
    tallies = Tallies(counted)
    topics = {"Message": "accepted.urgent", "Command": "send.sms.bulk", "DeadLetter": "dead-letter"}
    for record, topic in topics.items():
        for path in sorted((EXAMPLES / record).glob("*.json")):
            tallies.committed(topic, json.loads(path.read_text()))
    for path in sorted((EXAMPLES / "Event").glob("*.json")):
        value = json.loads(path.read_text())
        tallies.committed(value["kind"].replace("_", "-"), value)
    tallies.committed("profiles", {"anything": 1})
    tallies.committed("fallback.changelog", None)
    kinds = {labels[0] for labels in read(counted, metrics.EVENTS)}
    assert kinds >= {"accepted", "command", "dispatched", "delivered", "timed_out"}
    assert sum(read(counted, metrics.DEAD_LETTERS).values()) >= 2
