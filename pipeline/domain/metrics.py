"""Every metric that a worker keeps: name, kind, unit, labels and what it means, in one place.

Names are as OpenTelemetry writes them; `exposed` is the same name as Prometheus writes it. Every
series also carries the worker's `stage` and `slot`. Label values come from closed lists or from the
configuration: never an id, an address or anything that a caller wrote.
"""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]

_WORDS: Final = {"s": "_seconds"}
"""How Prometheus writes a unit; a thing that is counted (in braces) has none."""

SHORT_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds for what a machine waits for."""

LONG_S: Final = (
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0, 43_200.0,
    259_200.0,
)  # fmt: skip
"""Bounds for what a person waits for: from a code that is awaited to a window of three days."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `bounds` are a histogram's upper bounds, in its unit."""

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    help: str
    bounds: tuple[float, ...] = ()

    @property
    def exposed(self) -> str:
        """The name for Prometheus."""
        suffix = "_total" if self.kind == "counter" else ""
        return self.name.replace(".", "_") + _WORDS.get(self.unit, "") + suffix


EVENTS: Final = Metric(
    "delivery.events",
    "counter",
    "{event}",
    ("kind", "channel", "provider", "priority"),
    "Events that were committed: accepted, command, rejected, dispatched, failed, delivered, read, "
    "timed_out, late_receipts. Receipts know no priority.",
)
OUTCOMES: Final = Metric(
    "delivery.outcomes",
    "counter",
    "{message}",
    ("status", "channel", "provider", "priority"),
    "Messages that came to their end.",
)
END_TO_END: Final = Metric(
    "delivery.end_to_end",
    "histogram",
    "s",
    ("status", "channel", "priority"),
    "From the request's arrival in Kafka to the outcome.",
    LONG_S,
)
ATTEMPTS: Final = Metric(
    "delivery.attempt",
    "histogram",
    "s",
    ("channel", "provider", "result"),
    "Hand-overs to providers: how long the requests of each took, by what came of it.",
    SHORT_S,
)
ERRORS: Final = Metric(
    "delivery.errors",
    "counter",
    "{error}",
    ("class", "channel", "provider"),
    "Attempts that were refused or are in doubt, and failures that providers reported later.",
)
DEAD_LETTERS: Final = Metric(
    "delivery.dead_letters",
    "counter",
    "{letter}",
    ("category", "channel"),
    "Dead letters that were written.",
)
LAG: Final = Metric(
    "delivery.lag",
    "gauge",
    "{record}",
    ("topic", "lane"),
    "Records that wait in this worker's partitions.",
)
OLDEST_AGE: Final = Metric(
    "delivery.oldest_age",
    "gauge",
    "s",
    ("topic", "lane"),
    "For how long the oldest of them has waited, to about a second; 0 when none waits.",
)
TRANSACTIONS: Final = Metric(
    "delivery.transactions",
    "counter",
    "{transaction}",
    ("result",),
    "Transactions by their end: committed, aborted, or fenced (what became of it is unknown).",
)
COMMIT: Final = Metric(
    "delivery.commit", "histogram", "s", (), "How long a committed transaction took.", SHORT_S
)
REBUILDS: Final = Metric(
    "delivery.rebuilds",
    "counter",
    "{producer}",
    (),
    "Transactional producers that were thrown away because a commit was slow or failed.",
)
RESTORES: Final = Metric(
    "delivery.restore",
    "histogram",
    "s",
    (),
    "How long it took to bring a set of tasks' states up to date after it became ours.",
    LONG_S,
)
RESTORED: Final = Metric(
    "delivery.restored_records",
    "counter",
    "{record}",
    (),
    "Changelog records that were replayed for that.",
)
TASKS: Final = Metric("delivery.tasks", "gauge", "{task}", (), "Tasks, or partitions, owned.")
HELD: Final = Metric(
    "delivery.held", "gauge", "{record}", (), "Records read and not committed yet, in memory."
)
IN_FLIGHT: Final = Metric(
    "delivery.in_flight", "gauge", "{request}", (), "Requests to providers that run now."
)
REPEATS: Final = Metric(
    "delivery.repeats", "counter", "{command}", (), "Commands that were known already."
)
ROWS: Final = Metric("delivery.rows", "counter", "{row}", (), "Rows that ClickHouse took.")
WAITS: Final = Metric(
    "delivery.waits", "counter", "{wait}", (), "How often the sink waited for something away."
)
CALLBACKS: Final = Metric(
    "delivery.callbacks", "counter", "{request}", ("result",), "Webhooks by what became of them."
)
LOOP_AGE: Final = Metric("delivery.loop_age", "gauge", "s", (), "Since the loop last turned.")
TELEMETRY: Final = Metric(
    "delivery.telemetry",
    "counter",
    "{item}",
    ("kind", "result"),
    "Spans and attempt lines by what became of them: exported, failed (the collector did not take "
    "them) or dropped (there was no room, because it is slow).",
)

METRICS: Final[tuple[Metric, ...]] = tuple(
    found for found in list(globals().values()) if isinstance(found, Metric)
)
"""All of them, in the order of this file."""
