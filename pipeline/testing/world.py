"""Drivers that run real stages in memory, the faults that an input may hold, and the world that
plays them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from pipeline.domain.outcomes import Answer, Emit, Inbound, Put, Wake
from pipeline.domain.ports_stage import (
    TIMER,
    WINDOW,
    StatefulStage,
    timer_entry,
    timer_of,
    window_entry,
)
from pipeline.testing.memory import Headers, MemoryLog, MemoryState

WAKES_A_TURN: Final = 500  # then records come first again
_TURNS: Final = 100_000  # a world that still moves after so many turns never settles


class StatelessStage(Protocol):
    """A stage without state and timers."""

    def on_record(self, record: Inbound, now: int) -> Sequence[Answer]:
        """What a record leads to; answers are `Emit` only."""
        ...


# What an input may hold


@dataclass(frozen=True, slots=True)
class Input:
    """A record that comes in."""

    topic: str
    key: bytes | str | None
    value: Any
    headers: Headers = ()
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Repeat:
    """The last input comes `times` more times."""

    times: int = 1


@dataclass(frozen=True, slots=True)
class Crash:
    """Workers read what there is and die before they commit it. When `torn`, their outputs are
    seen all the same, as a late commit request of a client makes them. `stage` empty: all."""

    torn: bool = False
    stage: str = ""


@dataclass(frozen=True, slots=True)
class MovePartition:
    """Tasks go to workers that know nothing and rebuild the state from the changelog."""

    stage: str = ""


@dataclass(frozen=True, slots=True)
class Settle:
    """Everything that came so far is worked off and committed."""


@dataclass(frozen=True, slots=True)
class Advance:
    """Everything is worked off, then `ms` milliseconds pass, timer by timer."""

    ms: int


Item = Input | Repeat | Crash | MovePartition | Settle | Advance


class StuckTimer(AssertionError):
    """A stage left a timer that it was woken by; the real runtime would wake it for ever."""


class StrayAnswer(AssertionError):
    """A stage without state answered with a `Put`."""


class Actor(Protocol):
    """Something in a world that works off records and waits for moments."""

    def step(self) -> bool:
        """Does what can be done now; False when there was nothing."""
        ...

    def wake(self) -> bool:
        """Does what is due by the clock; False when nothing was."""
        ...

    def next_due(self) -> int | None:
        """The next moment that it waits for."""
        ...


@dataclass(slots=True)
class _Task:
    number: int
    state: MemoryState
    positions: dict[str, int] = field(default_factory=dict)


class Driver:
    """Runs a stateful stage in memory: every task, one transaction after the other.

    `make` builds the stage; it is called again after a crash or a move, so what a stage only
    keeps in mind is gone then. `reads` are its topics, the most urgent first. `hears` False is a
    world where nobody knows how far has been listened: windows wait for `hold_ms`, then are blind.
    While `away`, no worker runs it.
    `faults` says which of its transactions, counted from 1, end in a crash.
    """

    def __init__(
        self,
        log: MemoryLog,
        name: str,
        make: Callable[[], StatefulStage],
        reads: Sequence[str],
        *,
        batch: int = 1_000,
    ) -> None:
        self.log = log
        self.name = name
        self.hears = True
        self.away = False
        self.order: Callable[[list[str]], list[str]] = list
        self.faults: Mapping[int, Crash] = {}
        self.transactions = 0
        self._make = make
        self._reads = list(reads)
        self._batch = batch
        self._changelog = f"{name}.changelog"
        self._stage = make()
        self._tasks = [
            _Task(number, MemoryState(number, self._stage.index))
            for number in range(log.partitions)
        ]
        for task in self._tasks:
            self._stage.on_start(task.number, task.state, log.clock.now())

    def state(self, task: int) -> MemoryState:
        """A task's state, to look at."""
        return self._tasks[task].state

    def content(self) -> dict[bytes, dict[str, Any]]:
        """The committed state of all tasks."""
        return {key: value for task in self._tasks for key, value in task.state.content().items()}

    def step(self) -> bool:
        """One transaction a task over the records that it has not read."""
        if self.away:
            return False
        return sum(self._transact(task, self._read(task)) for task in self._tasks) > 0

    def wake(self) -> bool:
        """One transaction a task over the timers that are due; records should be worked off."""
        if self.away:
            return False
        return sum(self._transact(task, self._due(task)) for task in self._tasks) > 0

    def next_due(self) -> int | None:
        """When the next timer is due (a window that nobody hears: when its patience ends)."""
        tasks = [] if self.away else self._tasks
        found = [self._ready_at(task, entry) for task in tasks for entry in _first(task)]
        return min(found, default=None)

    def crash(self, *, torn: bool = False) -> None:
        """Works off what there is, dies before the commit, and starts again elsewhere."""
        for task in self._tasks:
            self._transact(task, self._read(task), torn=torn, dies=True)
        self.move()

    def move(self) -> None:
        """Every task starts again from the changelog alone."""
        self._stage = self._make()
        for task in self._tasks:
            before, end = task.state.content(), self.log.end(self._changelog, task.number)
            records = self.log.read(self._changelog, task.number, 0, end)
            task.state = MemoryState(task.number, self._stage.index)
            task.state.restore([(record.key or b"", record.value) for record in records], end)
            if task.state.content() != before:
                raise AssertionError(f"{self._changelog} does not give task {task.number} back")
            self._stage.on_start(task.number, task.state, self.log.clock.now())

    def _read(self, task: _Task) -> list[Inbound | Wake]:
        found: list[Inbound | Wake] = []
        for topic in self.order(list(self._reads)):
            start = task.positions.get(topic, 0)
            found += self.log.read(topic, task.number, start, self._batch - len(found))
        return found

    def _due(self, task: _Task) -> list[Inbound | Wake]:
        now = self.log.clock.now()
        wakes: list[Inbound | Wake] = []
        for prefix, make in ((TIMER, timer_entry), (WINDOW, window_entry)):
            for entry in task.state.scan(prefix, WAKES_A_TURN, make(now + 1, b"")):
                if self._ready_at(task, entry) <= now:
                    due, key = timer_of(entry)
                    wakes.append(Wake(key, due, prefix == WINDOW and not self.hears))
        return sorted(wakes, key=lambda wake: wake.due if isinstance(wake, Wake) else 0)

    def _ready_at(self, task: _Task, entry: bytes) -> int:
        due, key = timer_of(entry)
        if entry.startswith(TIMER) or self.hears:
            return due
        return due + self._stage.hold_ms(key, task.state.get(key) or {})

    def _transact(
        self,
        task: _Task,
        work: Sequence[Inbound | Wake],
        *,
        torn: bool = False,
        dies: bool = False,
    ) -> bool:
        """One transaction; False when there was nothing to do."""
        if not work:
            return False
        self.transactions += 1
        fault = self.faults.get(self.transactions)
        if fault is not None:
            torn, dies = fault.torn, True
        state, positions, outputs = task.state, dict(task.positions), list[Emit]()
        for item in work:
            now = self.log.clock.now()
            if isinstance(item, Wake):
                outputs += self._woken(item, state, now)
            else:
                _apply(self._stage.on_record(item, state, now), state, outputs)
                positions[item.topic] = item.offset + 1
        _apply(self._stage.on_commit(task.number, state, positions), state, outputs)
        if torn or not dies:
            for emit in outputs:
                self.log.append(emit.topic, emit.key, emit.value, emit.headers, emit.partition)
        if dies:
            state.rollback()
            if fault is not None:
                self.move()
            return True
        for key, value in state.changes():
            self.log.append(self._changelog, key, value, partition=task.number)
        state.commit(self.log.end(self._changelog, task.number))
        task.positions = positions
        return True

    def _woken(self, wake: Wake, state: MemoryState, now: int) -> list[Emit]:
        entries = (timer_entry(wake.due, wake.key), window_entry(wake.due, wake.key))
        outputs: list[Emit] = []
        # An earlier wake of this turn may have taken the timer back: a stage has to stand that.
        _apply(self._stage.on_wake(wake, state, now), state, outputs)
        if any(state.scan(entry, 1) == [entry] for entry in entries):
            raise StuckTimer(f"{self.name} left the timer of {wake.key!r} at {wake.due}")
        return outputs


def _first(task: _Task) -> list[bytes]:
    return [entry for prefix in (TIMER, WINDOW) for entry in task.state.scan(prefix, 1)]


def _apply(answers: Sequence[Answer], state: MemoryState, outputs: list[Emit]) -> None:
    for answer in answers:
        if isinstance(answer, Put):
            state.put(answer.key, answer.value)
        else:
            outputs.append(answer)


class StatelessDriver:
    """Runs a stage without state: every partition of its topics, one transaction after the
    other."""

    def __init__(
        self,
        log: MemoryLog,
        name: str,
        make: Callable[[], StatelessStage],
        reads: Sequence[str],
    ) -> None:
        self.log = log
        self.name = name
        self._make = make
        self._reads = list(reads)
        self._stage = make()
        self.faults: Mapping[int, Crash] = {}
        self.transactions = 0
        self._positions: dict[tuple[str, int], int] = {}

    def step(self) -> bool:
        """Works off what there is and commits."""
        positions, outputs = self._work()
        if positions == self._positions:
            return False
        self.transactions += 1
        fault = self.faults.get(self.transactions)
        if fault is not None:
            self.crash(torn=fault.torn)
            return True
        self._write(outputs)
        self._positions = positions
        return True

    def wake(self) -> bool:
        """Nothing is ever due."""
        return False

    def next_due(self) -> int | None:
        """Nothing is ever due."""
        return None

    def crash(self, *, torn: bool = False) -> None:
        """Works off what there is and dies before the commit."""
        _, outputs = self._work()
        if torn:
            self._write(outputs)
        self.move()

    def move(self) -> None:
        """Starts again elsewhere."""
        self._stage = self._make()

    def _work(self) -> tuple[dict[tuple[str, int], int], list[Emit]]:
        positions, outputs = dict(self._positions), list[Emit]()
        for topic in self._reads:
            for partition in range(self.log.partitions):
                start = positions.get((topic, partition), 0)
                for record in self.log.read(topic, partition, start, 1_000):
                    for answer in self._stage.on_record(record, self.log.clock.now()):
                        if isinstance(answer, Put):
                            raise StrayAnswer(f"{self.name} keeps no state")
                        outputs.append(answer)
                    positions[topic, partition] = record.offset + 1
        return positions, outputs

    def _write(self, outputs: Sequence[Emit]) -> None:
        for emit in outputs:
            self.log.append(emit.topic, emit.key, emit.value, emit.headers, emit.partition)


class World:
    """Stages, and what is around them (`others`: a provider, a person), on one log and clock."""

    def __init__(
        self,
        log: MemoryLog,
        drivers: Sequence[Driver | StatelessDriver],
        others: Sequence[Actor] = (),
    ) -> None:
        self.log = log
        self.clock = log.clock
        self._drivers = list(drivers)
        self._actors: list[Actor] = [*others, *drivers]

    def play(self, items: Iterable[Item]) -> None:
        """Plays an input with its faults, and settles."""
        last: Input | None = None
        for item in items:
            match item:
                case Input():
                    last = item
                    self._take(item)
                case Repeat(times):
                    if last is None:
                        raise ValueError("Repeat has nothing before it")
                    for _ in range(times):
                        self._take(last)
                case Crash(torn, stage):
                    for driver in self._named(stage):
                        driver.crash(torn=torn)
                case MovePartition(stage):
                    for driver in self._named(stage):
                        driver.move()
                case Settle():
                    self.settle()
                case Advance(ms):
                    self.advance(ms)
        self.settle()

    def settle(self) -> None:
        """Records first, then what is due, until nothing moves."""
        for _ in range(_TURNS):
            if sum(actor.step() for actor in self._actors) > 0:
                continue
            if sum(actor.wake() for actor in self._actors) == 0:
                return
        raise AssertionError("the world does not settle: something answers itself for ever")

    def advance(self, ms: int) -> None:
        """Lets time pass, stopping at every moment that somebody waits for."""
        self.settle()
        target = self.clock.now() + ms
        while True:
            due = [moment for actor in self._actors if (moment := actor.next_due()) is not None]
            moment = min(due, default=target)
            if moment >= target:
                break
            self.clock.advance(max(moment - self.clock.now(), 0))
            self.settle()
        self.clock.advance(target - self.clock.now())
        self.settle()

    def _take(self, item: Input) -> None:
        self.log.append(item.topic, item.key, item.value, item.headers, item.partition)

    def _named(self, stage: str) -> list[Driver | StatelessDriver]:
        found = [driver for driver in self._drivers if stage in ("", driver.name)]
        if not found:
            raise ValueError(f"no stage {stage} in this world")
        return found
