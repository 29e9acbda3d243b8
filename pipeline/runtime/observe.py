"""What a worker tells of itself: counts, lag, and whether it is alive and ready.

The loop's thread calls; what it tells ends in plain numbers that other threads read
(domain/meters.py). Nothing here waits, does I/O or raises, so no exporter can slow a loop.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.domain import metrics
from pipeline.domain.meters import Labels, Meters
from pipeline.domain.metrics import Metric
from pipeline.domain.outcomes import Emit
from pipeline.domain.tallies import Tallies
from pipeline.runtime.clock import Clock
from pipeline.topology import CATALOGUE

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
"""How often the loop looks at its lag."""

LIVE_S: Final = 60.0
"""A loop that did not turn for so long hangs. The longest that it may take: a commit (10 s to flush,
3 s to commit) and the end of what a dead worker left open."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a worker owns. `joined`: its group has told it what is its own, which may be nothing;
    `taking`: tasks that are ours and not restored or claimed yet."""

    joined: bool
    owned: int
    taking: int = 0
    held: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits in one partition of a topic (the catalogue's name): `lag` records behind the last
    one that is done. `read_at`: the append time (ms) of the last record read, 0 for none."""

    topic: str
    partition: int
    done: int
    lag: int
    read_at: int


class Unobserved:
    """What a loop calls; this one forgets it."""

    def turn(self) -> None:
        """The loop does its next turn."""

    def committed(self, said: Iterable[Emit | None], seconds: float) -> None:
        """A transaction with these records was committed, and took so long."""

    def ended(self, result: str) -> None:
        """A transaction ended otherwise: aborted or fenced."""

    def rebuilt(self) -> None:
        """A producer was thrown away."""

    def restored(self, records: int, seconds: float) -> None:
        """Tasks' states are up to date, after so many changelog records."""

    def repeated(self) -> None:
        """A command was known already."""

    def watch(
        self,
        *,
        standing: Callable[[], Standing] | None = None,
        waiting: Callable[[], Iterable[Waiting]] | None = None,
        numbers: Mapping[Metric, Callable[[], Mapping[Labels, float]]] | None = None,
    ) -> None:
        """Before the loop runs: how to look up what it owns, what waits for it (asked on the
        loop's own thread), and other metrics."""


NONE: Final = Unobserved()


class Observe(Unobserved):
    """Keeps what one worker tells."""

    def __init__(
        self, clock: Clock, on_commit: Callable[[Sequence[Emit], int, int], None] | None = None
    ) -> None:
        """`on_commit` gets the records of each transaction and when it began and ended (ms)."""
        self.meters = Meters()
        self._clock, self._on_commit = clock, on_commit
        self._tallies = Tallies(self.meters)
        self._transactions = self.meters.tally(metrics.TRANSACTIONS)
        self._commit = self.meters.histogram(metrics.COMMIT)
        self._rebuilds = self.meters.tally(metrics.REBUILDS)
        self._restores = self.meters.histogram(metrics.RESTORES)
        self._restored = self.meters.tally(metrics.RESTORED)
        self._repeats = self.meters.tally(metrics.REPEATS)
        self._turned_at = clock.monotonic()
        self._look_at = 0.0
        self._waiting: Callable[[], Iterable[Waiting]] = tuple
        self._standing: Callable[[], Standing] | None = None
        self._ages = Ages()
        self._complained = False
        self._lags: Mapping[Labels, float] = {}
        self._oldest: Mapping[Labels, float] = {}
        self.meters.watch(metrics.LAG, lambda: self._lags)
        self.meters.watch(metrics.OLDEST_AGE, lambda: self._oldest)
        self.meters.watch(metrics.LOOP_AGE, lambda: {(): self.loop_age_s})

    def turn(self) -> None:
        """See Unobserved."""
        now = self._clock.monotonic()
        self._turned_at = now
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            try:
                self._lags, self._oldest = self._ages.look(self._waiting(), self._clock.now())
            except Exception as error:  # noqa: BLE001 - see _failed
                self._failed(error)

    def committed(self, said: Iterable[Emit | None], seconds: float) -> None:
        """See Unobserved."""
        self._transactions.add(("committed",))
        self._commit.add((), seconds)
        emits = [one for one in said if one is not None]
        try:
            for emit in emits:
                self._tallies.committed(emit.topic, emit.value)
            if emits and self._on_commit is not None:
                ended = self._clock.now()
                self._on_commit(emits, ended - int(seconds * 1_000), ended)
        except Exception as error:  # noqa: BLE001 - see _failed
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        """A fault of ours in the telling must not undo what was done: it is said, once."""
        if not self._complained:
            self._complained = True
            log.warning("telemetry is not complete: %s", type(error).__name__, exc_info=error)

    def ended(self, result: str) -> None:
        """See Unobserved."""
        self._transactions.add((result,))

    def rebuilt(self) -> None:
        """See Unobserved."""
        self._rebuilds.add()

    def restored(self, records: int, seconds: float) -> None:
        """See Unobserved."""
        self._restores.add((), seconds)
        self._restored.add((), records)

    def repeated(self) -> None:
        """See Unobserved."""
        self._repeats.add()

    def watch(
        self,
        *,
        standing: Callable[[], Standing] | None = None,
        waiting: Callable[[], Iterable[Waiting]] | None = None,
        numbers: Mapping[Metric, Callable[[], Mapping[Labels, float]]] | None = None,
    ) -> None:
        """See Unobserved."""
        if standing is not None:
            self._standing = standing
            self.meters.watch(metrics.TASKS, lambda: {(): standing().owned})
            self.meters.watch(metrics.HELD, lambda: {(): standing().held})
        if waiting is not None:
            self._waiting = waiting
        for metric, read in (numbers or {}).items():
            self.meters.watch(metric, read)

    @property
    def loop_age_s(self) -> float:
        """Seconds since the loop last turned."""
        return self._clock.monotonic() - self._turned_at

    def live(self) -> str:
        """Empty when the loop turns; else why it counts as dead."""
        age = self.loop_age_s
        return "" if age < LIVE_S else f"the loop has not turned for {age:.0f} s"

    def ready(self) -> str:
        """Empty when this worker does its part, or stands by for others; else what is missing."""
        dead = self.live()
        if dead or self._standing is None:
            return dead or "starting"
        standing = self._standing()
        if not standing.joined:
            return "not in its group yet"
        return f"{standing.taking} tasks are being restored" if standing.taking else ""


class Ages:
    """How long the oldest record of each topic has waited, from what is seen at each look.

    The oldest record of a partition came after the last one that was read, and after the last look
    at which nothing waited. If the position has not moved since a look at which something waited,
    the record was there then.
    """

    def __init__(self) -> None:
        self._empty_at: dict[tuple[str, int], int] = {}
        self._stuck: dict[tuple[str, int], tuple[int, int]] = {}

    def look(
        self, found: Iterable[Waiting], now: int
    ) -> tuple[Mapping[Labels, float], Mapping[Labels, float]]:
        """Lag, and age in seconds, by topic and lane."""
        lags: dict[Labels, float] = {}
        ages: dict[Labels, float] = {}
        empty_at: dict[tuple[str, int], int] = {}
        stuck: dict[tuple[str, int], tuple[int, int]] = {}
        for one in found:
            labels = (one.topic, CATALOGUE.topic(one.topic).lane or "")
            part = (one.topic, one.partition)
            age = 0.0
            if one.lag > 0:
                done, since = self._stuck.get(part, (-1, now))
                stuck[part] = (one.done, since if done == one.done else now)
                after = max(one.read_at, self._empty_at.get(part, 0)) or now
                empty_at[part] = self._empty_at.get(part, 0)
                age = max(now - after, now - stuck[part][1]) / 1_000
            else:
                empty_at[part] = now
            lags[labels] = lags.get(labels, 0) + one.lag
            ages[labels] = max(ages.get(labels, 0.0), age)
        self._empty_at, self._stuck = empty_at, stuck
        return lags, ages
