"""The loop of a stage that keeps state: read, answer, commit, for whole tasks.

    membership -> take over tasks -> fetch -> stage -> one transaction -> state on disk

Nothing acts before the commit: an abort drops the state's open transaction, rewinds and reads the
same records again. Of what is here, records come in the order of the lanes' topics, and before
timers: so a receipt wins against the failure or the end of the window that would send once more.
"""

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaException, TopicPartition

from pipeline.domain.errors import Undecodable
from pipeline.domain.outcomes import Answer, Emit, Inbound, Put, Wake
from pipeline.domain.ports_stage import (
    TIMER,
    WINDOW,
    StatefulStage,
    timer_entry,
    timer_of,
    window_entry,
)
from pipeline.domain.switches import NONE, Switches
from pipeline.runtime import observe
from pipeline.runtime.clock import Clock, wait
from pipeline.runtime.fetch import IDLE_POLL_S, Fetch, Part
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.listening import Silence
from pipeline.runtime.registry import RegistryUnavailable
from pipeline.runtime.restore import Restorer
from pipeline.runtime.state import TaskState
from pipeline.runtime.tasks import Handover, Membership, committed
from pipeline.runtime.transaction import Aborted, Encoded, Fenced, Transactions, rest_s
from pipeline.runtime.wire import Wire, crash_letter, poison_letter

log = logging.getLogger(__name__)

MAX_RECORDS: Final = 1_000
MAX_PARTITIONS: Final = 24
MAX_TIMERS: Final = 500
TIMER_SPACING_MS: Final = 20
PAUSE_MS: Final = 10
BUFFERED: Final = 2_000
RETRY_S: Final = 0.2


@dataclass(slots=True)
class Task:
    """An owned task: its state, where its inputs are committed, and what waits to be processed."""

    number: int
    state: TaskState
    positions: dict[str, int]
    since: int  # when it became ours: nobody listened for it before
    waiting: deque[Inbound] = field(default_factory=deque)


Prepared = Encoded | tuple[Put, bytes | None]


@dataclass(slots=True)
class Batch:
    """One transaction in the making."""

    outputs: list[Encoded] = field(default_factory=list)
    changelog: list[Encoded] = field(default_factory=list)
    positions: dict[int, dict[str, int]] = field(default_factory=dict)
    records: int = 0
    written: set[tuple[str, int]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Lane:
    """Topics read by one consumer, those first whose records count first, and how long (ms) a
    commit may wait for more of them."""

    topics: tuple[str, ...]
    spacing_ms: int


class StatefulWorker:
    """Runs the tasks of one stage that this slot owns. `run` is the only entry; one thread."""

    def __init__(
        self,
        cluster: Cluster,
        wire: Wire,
        name: str,
        stage: StatefulStage,
        slot: int,
        directory: Path,
        clock: Clock,
        *,
        lanes: Sequence[Lane],
        silence: Callable[[], Silence] | None = None,
        each_pass: Callable[["StatefulWorker"], None] = lambda _worker: None,
        static: bool = True,
        switches: Switches = NONE,
        on_step: Callable[[str], None] = lambda _step: None,
        observed: observe.Unobserved = observe.NONE,
    ) -> None:
        self.name, self.clock = name, clock
        self.tasks: dict[int, Task] = {}
        self.transactions = Transactions(
            cluster, cluster.transactional_id(name, slot), clock, switches, on_step, observed
        )
        self._observed = observed
        changelog = f"{name}.changelog"
        self._cluster, self._wire, self._stage, self._switches = cluster, wire, stage, switches
        self._changelog = cluster.real(changelog)
        self._spacing = {topic: lane.spacing_ms for lane in lanes for topic in lane.topics}
        self._rank = {topic: rank for rank, topic in enumerate(self._spacing)}
        self._fetch = Fetch(
            cluster,
            cluster.group(name),
            [[cluster.real(topic) for topic in lane.topics] for lane in lanes],
            switches,
        )
        codec = wire.state_encoder(changelog)
        self._restorer = Restorer(
            cluster,
            name,
            changelog,
            directory,
            clock,
            (codec.encode, codec.decode),
            stage.index,
            observed,
        )
        self._silence = silence() if silence else None
        self._each_pass = each_pass
        self._to_take: set[int] = set()
        self._held = 0
        self._committed_at = self._rest_ms = 0.0
        self._pressing_ms = math.inf
        self._membership = Membership(
            cluster,
            name,
            changelog,
            slot if static else None,
            on_assigned=self._to_take.update,
            on_revoked=self._revoked,
            on_lost=self._dropped,
        )
        observed.watch(standing=self._standing, waiting=self._waiting)

    def _standing(self) -> observe.Standing:
        return observe.Standing(
            joined=self._membership.generations > 0,
            owned=len(self.tasks),
            taking=len(self._to_take),
            held=self._held,
        )

    def _waiting(self) -> list[observe.Waiting]:
        done = {
            part: task.positions[part[0]]
            for number, task in self.tasks.items()
            for part in self._parts(number)
        }
        return self._fetch.waiting(done)

    # Ownership

    def _revoked(self, numbers: list[int]) -> None:
        """Hands over: the successor need not wait for us. Only a courtesy, so errors pass."""
        owned = [number for number in numbers if number in self.tasks]
        if owned:
            try:
                self._announce(owned, released=True)
            except (Aborted, Fenced) as error:
                log.info("%s: release of %s failed: %s", self.name, owned, error)
        self._dropped(numbers)

    def _dropped(self, numbers: list[int]) -> None:
        for number in numbers:
            self._to_take.discard(number)
            task = self.tasks.pop(number, None)
            if task is not None:
                self._fetch.unassign(self._parts(number))
                task.state.close()
        if self._silence is not None:
            self._silence.reset()

    def _announce(self, numbers: Sequence[int], *, released: bool) -> None:
        note = Handover(self.transactions.transactional_id, 0, released).text()
        offsets = [
            TopicPartition(self._changelog, n, self.tasks[n].state.position, note) for n in numbers
        ]
        self.transactions.commit([], [], offsets, self._membership.metadata)

    def _parts(self, number: int) -> list[Part]:
        if self._switches.topics_by_assignor:  # as assignors do: each topic by itself
            return [(topic, number ^ (place % 2)) for place, topic in enumerate(self._fetch.topics)]
        return [(topic, number) for topic in self._fetch.topics]

    def _take_over(self, numbers: list[int]) -> None:
        """Makes tasks ours: end what a dead owner left open, find the positions, rebuild the
        state, say so, read on."""
        owners = self._membership.owners(numbers)
        mine = self.transactions.transactional_id
        for owner in {o.transactional_id for o in owners.values() if not o.released} - {mine}:
            self.transactions.abort_dead(owner)
        parts = [part for number in numbers for part in self._parts(number)]
        found = committed(self._fetch.stable, self._fetch.group, parts)
        states = self._restorer.open(numbers)
        for number in numbers:
            positions = {p[0]: found[p].offset for p in self._parts(number)}
            self.tasks[number] = Task(number, states[number], positions, self.clock.now())
            self._stage.on_start(number, states[number], self.clock.now())
        self._announce(numbers, released=False)
        self._fetch.assign({part: found[part].offset for part in parts})
        if self._silence is not None:
            self._silence.reset()
        log.info("%s: took tasks %s", self.name, numbers)

    def _take_assigned(self) -> None:
        numbers = sorted(self._to_take)
        try:
            self._take_over(numbers)
        except (KafkaException, Aborted, Fenced) as error:
            log.info("%s: taking tasks %s: %s; trying again", self.name, numbers, error)
            for number in numbers:
                task = self.tasks.pop(number, None)
                if task is not None:
                    self._fetch.unassign(self._parts(number))
                    task.state.close()
            wait(RETRY_S)
        else:
            self._to_take.difference_update(numbers)

    # The loop

    def run(self, stop: threading.Event) -> None:
        """Until `stop`; then finishes the transaction in hand, hands the tasks over and leaves.

        Raises:
            MissingOffset: records could have been skipped unseen.
        """
        try:
            while not stop.is_set():
                self._pass()
        finally:
            self._membership.close()
            self._fetch.close()
            self._restorer.close()

    def _pass(self) -> None:
        self._observed.turn()
        self._membership.poll()
        if self._to_take:
            self._take_assigned()
        waiting = sum(len(task.waiting) for task in self.tasks.values())
        idle = IDLE_POLL_S if waiting == 0 else 0.0
        if not self.tasks:
            wait(IDLE_POLL_S)
        elif waiting < BUFFERED:
            for record in self._fetch.take(BUFFERED - waiting, idle):
                self._task_of(record).waiting.append(record)
                self._pressing_ms = min(self._pressing_ms, self._spacing[record.topic])
                waiting += 1
        self._held = waiting
        early = self._early_ms(waiting)
        if early <= 0:
            self._work()
            self._pressing_ms = min(
                (self._spacing[r.topic] for task in self.tasks.values() for r in task.waiting),
                default=math.inf,
            )
        elif waiting:
            wait(min(early, PAUSE_MS) / 1_000)
        self._each_pass(self)

    def _task_of(self, record: Inbound) -> Task:
        if self._switches.topics_by_assignor:
            for number in self.tasks:
                if (self._cluster.real(record.topic), record.partition) in self._parts(number):
                    return self.tasks[number]
        return self.tasks[record.partition]

    def _early_ms(self, waiting: int) -> float:
        """How long the most pressing record has still to wait: its lane's spacing since the last
        commit or, when commits have become slow, as long as keeps brokers from drowning in them."""
        if waiting >= MAX_RECORDS:
            return 0.0
        since = (self.clock.monotonic() - self._committed_at) * 1_000
        pressing = self._pressing_ms if waiting else TIMER_SPACING_MS
        return max(pressing, self._rest_ms) - since

    def _work(self) -> None:
        batch = Batch()
        now = self.clock.now()
        for task in sorted(self.tasks.values(), key=lambda t: len(t.waiting), reverse=True):
            if batch.records >= MAX_RECORDS or len(batch.written) >= MAX_PARTITIONS:
                break
            self._work_task(task, batch, now)
        if batch.positions:
            self._commit(batch, now)

    def _work_task(self, task: Task, batch: Batch, now: int) -> None:
        taken = 0
        positions: dict[str, int] = {}
        if len(task.waiting) > 1:
            task.waiting = deque(sorted(task.waiting, key=lambda one: self._rank[one.topic]))
        try:
            while task.waiting and batch.records + taken < MAX_RECORDS:
                record = task.waiting.popleft()
                self._apply(self._answer(task, record, now), task, batch)
                positions[record.topic] = record.offset + 1
                taken += 1
        except RegistryUnavailable as error:
            log.warning("%s: %s; the partition waits", self.name, error)
            task.waiting.appendleft(record)
            wait(RETRY_S)
        fired = self._fire(task, batch, now)
        if taken or fired:
            batch.records += taken + fired
            batch.positions[task.number] = positions
            merged = {self._cluster.logical(t): o for t, o in task.positions.items()} | positions
            books = self._stage.on_commit(task.number, task.state, merged)
            self._apply(self._prepared(books, task), task, batch)
            for key, raw in task.state.changes():
                batch.changelog.append(Encoded(self._changelog, key, raw, (), task.number))
            batch.written.add((self._changelog, task.number))

    def _answer(self, task: Task, record: Inbound, now: int) -> list[Prepared]:
        try:
            decoded = self._wire.decode(record)
        except Undecodable as error:
            letter = poison_letter(record, self.name, error.code, error.detail, now)
            return self._prepared([Emit("dead-letter", None, letter, (), task.number)], task)
        return self._guarded(self._stage.on_record, decoded, decoded, record.value, task, now)

    def _guarded(
        self,
        answer: Callable[[Any, TaskState, int], list[Answer]],
        what: Inbound | Wake,
        record: Inbound,
        raw: bytes | None,
        task: Task,
        now: int,
    ) -> list[Prepared]:
        """A fault of ours in one record dead-letters that record and stops nothing."""
        try:
            return self._prepared(answer(what, task.state, now), task)
        except Exception:
            log.exception("%s: %s[%d]@%d", self.name, record.topic, record.partition, record.offset)
            letter = crash_letter(record, raw, self.name, now)
            answers = self._stage.on_crash(record, task.state, now, letter["detail"])
            dead: list[Answer] = [Emit("dead-letter", None, letter, (), task.number)]
            return self._prepared(dead + answers, task)

    def _prepared(self, answers: Sequence[Answer], task: Task) -> list[Prepared]:
        """Answers with their bytes: what does not fit its schema fails before anything is done."""
        return [
            (answer, task.state.encode(answer.key, answer.value))
            if isinstance(answer, Put)
            else self._wire.encode(answer)
            for answer in answers
        ]

    def _apply(self, prepared: Sequence[Prepared], task: Task, batch: Batch) -> None:
        for one in prepared:
            if isinstance(one, Encoded):
                batch.outputs.append(one)
                batch.written.add((one.topic, task.number))
            else:
                task.state.put(one[0].key, one[0].value, one[1])

    # Timers

    def _fire(self, task: Task, batch: Batch, now: int) -> int:
        fired = 0
        for entry in task.state.scan(TIMER, MAX_TIMERS, timer_entry(now + 1, b"")):
            due, key = timer_of(entry)
            self._wake(Wake(key, due), task, batch, now)
            fired += 1
        fired += self._fire_windows(task, batch, now)
        return fired

    def _fire_windows(self, task: Task, batch: Batch, now: int) -> int:
        due_entries = task.state.scan(WINDOW, MAX_TIMERS, window_entry(now + 1, b""))
        if not due_entries:
            return 0
        heard = now
        if self._silence is not None:
            self._silence.step(now, sorted(self.tasks), self._heard_until)
            heard = self._silence.heard
        fired = 0
        for entry in due_entries:
            due, key = timer_of(entry)
            value = task.state.get(key)
            blind = due > heard
            held = now - max(due, task.since)
            if value is None or (blind and held < self._stage.hold_ms(key, value)):
                continue
            self._wake(Wake(key, due, blind), task, batch, now)
            fired += 1
        return fired

    def _wake(self, wake: Wake, task: Task, batch: Batch, now: int) -> None:
        record = Inbound(f"{self.name}.changelog", task.number, 0, wake.due, wake.key, None)
        answers = self._guarded(self._stage.on_wake, wake, record, None, task, now)
        self._apply(answers, task, batch)

    def _heard_until(self, part: Part) -> int:
        """What is committed, and at the end of a partition its markers: what waits here was fetched,
        so it is never below that."""
        task = self.tasks.get(part[1])
        return 0 if task is None else self._fetch.heard(part, task.positions.get(part[0], 0))

    # Commit

    def _commit(self, batch: Batch, now: int) -> None:
        ahead = 1 if self._switches.offset_too_far else 0
        note = Handover(self.transactions.transactional_id).text()
        offsets = [
            TopicPartition(self._cluster.real(topic), self._partition(topic, n), o + ahead, note)
            for n, positions in batch.positions.items()
            for topic, o in positions.items()
        ]
        started = self.clock.monotonic()
        try:
            self.transactions.commit(
                batch.outputs, batch.changelog, offsets, self._membership.metadata
            )
        except Aborted as error:
            log.info("%s: aborted: %s", self.name, error)
            self._undo(batch)
        except Fenced as error:
            log.info("%s: fenced: %s", self.name, error)
            self._begin_again()
        else:
            self._committed_at = self.clock.monotonic()
            self._rest_ms = rest_s(self._committed_at - started) * 1_000
            for number, positions in batch.positions.items():
                task = self.tasks[number]
                task.positions |= {self._cluster.real(t): o for t, o in positions.items()}
                written = self.transactions.written.get((self._changelog, number))
                after = task.state.position if written is None else written + 1
                task.state.commit(max(after, task.state.position), now)

    def _partition(self, topic: str, number: int) -> int:
        return dict(self._parts(number))[self._cluster.real(topic)]

    def _undo(self, batch: Batch) -> None:
        """After an abort: nothing happened, so everything is read again."""
        positions: dict[Part, int] = {}
        for number in batch.positions:
            task = self.tasks[number]
            task.state.rollback()
            if self._switches.no_rewind:
                continue
            task.waiting.clear()
            parts = dict(self._parts(number))
            positions |= {(topic, parts[topic]): o for topic, o in task.positions.items()}
        self._fetch.rewind(positions)

    def _begin_again(self) -> None:
        """After a fence: what was committed is unknown, so every task is taken over anew."""
        numbers = list(self.tasks)
        for number in numbers:
            self._fetch.unassign(self._parts(number))
            self.tasks.pop(number).state.close()
        self._to_take.update(number for number in numbers if number in self._membership.tasks)

    def position(self, topic: str, number: int) -> int:
        """Up to which offset a task's input is processed, markers included."""
        return self._heard_until((self._cluster.real(topic), number))
