"""Counters and histograms as plain Python objects: written by the thread that owns the loop, read
by whoever exports them.

An addition is one look into a dictionary, because it happens for every record. A reader copies a
dictionary in one step of the interpreter, so it needs no lock; it may see a sum a moment before the
count that belongs to it.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.domain.metrics import Metric

Labels = tuple[str, ...]

MOST_SERIES: Final = 500
"""Of one metric in one worker. What would be more is counted under `other`: labels are meant to be
few, and a mistake in that must not fill anybody's memory."""

OTHER: Final = "other"


@dataclass(frozen=True, slots=True)
class Spread:
    """A histogram's state: `counts[i]` values up to bound i and above the one before it (the last
    is above all bounds), and their sum."""

    counts: tuple[int, ...]
    total: float


@dataclass(frozen=True, slots=True)
class Series:
    """One value as it is read."""

    metric: Metric
    labels: Labels
    value: float | Spread


class Tally:
    """A counter, one number for each set of label values."""

    __slots__ = ("metric", "values")

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.values: dict[Labels, float] = {}

    def add(self, labels: Labels = (), amount: float = 1) -> None:
        """Counts. `labels` are the values in the metric's order."""
        values = self.values
        if labels in values:
            values[labels] += amount
        elif len(values) < MOST_SERIES:
            values[labels] = amount
        else:
            rest = (OTHER,) * len(labels)
            values[rest] = values.get(rest, 0) + amount


class Histogram:
    """How values spread, for each set of label values."""

    __slots__ = ("metric", "values")

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.values: dict[Labels, tuple[list[int], list[float]]] = {}

    def add(self, labels: Labels, value: float) -> None:
        """Takes one value, in the metric's unit."""
        found = self.values.get(labels)
        if found is None:
            found = self._new(labels)
        found[0][bisect_left(self.metric.bounds, value)] += 1
        found[1][0] += value

    def _new(self, labels: Labels) -> tuple[list[int], list[float]]:
        if len(self.values) >= MOST_SERIES:
            labels = (OTHER,) * len(labels)
        return self.values.setdefault(labels, ([0] * (len(self.metric.bounds) + 1), [0.0]))


class Meters:
    """All that one worker counts. Tallies, histograms and watches are made before the loop runs."""

    def __init__(self) -> None:
        self._tallies: list[Tally] = []
        self._histograms: list[Histogram] = []
        self._watches: list[tuple[Metric, Callable[[], Mapping[Labels, float]]]] = []

    def tally(self, metric: Metric) -> Tally:
        """A new counter."""
        self._tallies.append(Tally(metric))
        return self._tallies[-1]

    def histogram(self, metric: Metric) -> Histogram:
        """A new histogram."""
        self._histograms.append(Histogram(metric))
        return self._histograms[-1]

    def watch(self, metric: Metric, read: Callable[[], Mapping[Labels, float]]) -> None:
        """A metric that is looked up when it is read. `read` runs on the reader's thread: it may
        look at numbers and lengths, and must not walk through what the loop changes."""
        self._watches.append((metric, read))

    def read(self) -> Iterator[Series]:
        """Everything as of now, metric by metric."""
        for tally in list(self._tallies):
            for labels, value in tally.values.copy().items():
                yield Series(tally.metric, labels, value)
        for histogram in list(self._histograms):
            for labels, (counts, total) in histogram.values.copy().items():
                yield Series(histogram.metric, labels, Spread(tuple(counts), total[0]))
        for metric, read in list(self._watches):
            for labels, value in read().items():
                yield Series(metric, labels, value)
