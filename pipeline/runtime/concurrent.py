"""The loop of dispatch: commands in, requests in flight, facts out.

    membership -> take over -> fetch -> turn -> slot -> journal -> request -> answer -> commit

One thread owns the Kafka clients and every decision; an event loop in another does HTTP
(inflight.py). This file owns tasks, reading and committing; commands.py what happens in between.
"""

import logging
import threading
from collections.abc import Callable, Collection
from typing import Final

from confluent_kafka import KafkaException

from pipeline.domain import metrics
from pipeline.domain.errors import Undecodable
from pipeline.domain.outcomes import Emit, Inbound
from pipeline.domain.ports_dispatch import ConcurrentStage
from pipeline.domain.records import PRIORITIES
from pipeline.domain.switches import NONE, Switches
from pipeline.domain.turns import Limits
from pipeline.runtime import observe
from pipeline.runtime.clock import Clock, wait
from pipeline.runtime.codec import Codec
from pipeline.runtime.commands import Commands
from pipeline.runtime.fetch import IDLE_POLL_S, Fetch, Part
from pipeline.runtime.holding import Phase, Task
from pipeline.runtime.inflight import Lease, Requests, no_step
from pipeline.runtime.journal import JOURNAL, Journal, JournalReader
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.registry import RegistryUnavailable
from pipeline.runtime.sender import HttpSender, Sender
from pipeline.runtime.settlement import Settlement
from pipeline.runtime.tables import Tables
from pipeline.runtime.takeover import Takeover, restored
from pipeline.runtime.tasks import Membership, committed
from pipeline.runtime.transaction import Fenced, Transactions
from pipeline.runtime.wire import Wire, poison_letter
from pipeline.topology import CATALOGUE

log = logging.getLogger(__name__)

NAME: Final = "dispatch"
MAX_HELD: Final = 4_000
"""Commands in memory at once, those included that wait for their recipient's turn."""

BATCH: Final = 250
PAUSE_AT: Final = 0.5
RESUME_AT: Final = 0.25
"""Of the waiting room of a channel's emptiest provider. What is left takes the batch in hand."""

DRAIN_S: Final = 8.0
"""Requests that run when a task goes away are waited for this long; a handover has 10 s."""

BUSY_WAIT_S: Final = 0.002
"""How long a record may lie while requests are in flight."""

TABLES_S: Final = 0.1
REGISTRY_S: Final = 0.2
FORGET_S: Final = 60.0
_LETTER_BYTES: Final = 900_000  # what fits into a dead letter beside its other fields


class DispatchWorker:
    """Runs the tasks of dispatch that this slot owns. `run` is the only entry; one thread."""

    def __init__(
        self,
        cluster: Cluster,
        codec: Codec,
        stage: ConcurrentStage,
        slot: int,
        clock: Clock,
        *,
        tables: Tables | None = None,
        limits: Limits | None = None,
        longest_request_ms: int = 4_000,
        static: bool = True,
        sender: Callable[[], Sender] = HttpSender,
        switches: Switches = NONE,
        on_step: Callable[[str], None] = no_step,
        observed: observe.Unobserved = observe.NONE,
    ) -> None:
        self.clock, self.tasks = clock, dict[int, Task]()
        self.repeats = 0
        self._cluster, self._tables = cluster, tables
        self._wire = Wire(cluster, codec)
        self._lanes = {topic.name: topic.lane or "" for topic in CATALOGUE.inputs(NAME)}
        self._channels = {topic.name: topic.channel or "" for topic in CATALOGUE.inputs(NAME)}
        by_lane = [[t for t, lane in self._lanes.items() if lane == p] for p in PRIORITIES]
        group = cluster.group(NAME)
        self._fetch = Fetch(
            cluster, group, [[cluster.real(t) for t in lane] for lane in by_lane], switches
        )
        transactional_id = cluster.transactional_id(NAME, slot)
        self.transactions = Transactions(
            cluster, transactional_id, clock, switches, on_step, observed
        )
        self._observed, self._held = observed, 0
        self._lease = Lease(clock)
        self._requests = Requests(sender, clock, self._lease, on_step)
        self._journal = Journal(cluster, codec, transactional_id, clock)
        self._reader = JournalReader(cluster, codec, NAME)
        self._paused: set[str] = set()
        self._crowded: set[Part] = set()
        self._unsure = False
        self._registry_at = self._tables_at = self._forget_at = 0.0
        self._membership = Membership(
            cluster,
            NAME,
            JOURNAL,
            slot if static else None,
            on_assigned=self._assigned,
            on_revoked=self._revoked,
            on_lost=self._lost,
        )
        self._settlement = Settlement(
            self._membership, self.transactions, self._lease, clock, switches
        )
        self.commands = Commands(
            stage,
            self._wire,
            self._journal,
            self._requests,
            self._settlement,
            self._lease,
            clock,
            limits or Limits(),
            switches,
            on_step,
        )
        self._takeover = Takeover(
            self._membership,
            self.transactions,
            self._journal,
            self._reader,
            self._fetch.stable,
            group,
            self._fetch.topics,
            clock,
            longest_request_ms,
        )
        observed.watch(
            standing=self._standing,
            waiting=self._waiting,
            numbers={metrics.IN_FLIGHT: lambda: {(): self._requests.running}},
        )

    def _standing(self) -> observe.Standing:
        phases = [task.phase for task in self.tasks.copy().values()]
        return observe.Standing(
            joined=self._membership.generations > 0,
            owned=phases.count(Phase.LIVE),
            taking=len(phases) - phases.count(Phase.LIVE) - phases.count(Phase.DRAINING),
            held=self._held,
        )

    def _waiting(self) -> list[observe.Waiting]:
        live = [task for task in self.tasks.values() if task.live]
        return self._fetch.waiting({p: c.position for t in live for p, c in t.parts.items()})

    # Ownership

    def _assigned(self, numbers: list[int]) -> None:
        for number in numbers:
            self.tasks[number] = Task(number)

    def _revoked(self, numbers: list[int]) -> None:
        self._hand_over([self.tasks[n] for n in numbers if n in self.tasks])

    def _lost(self, numbers: list[int]) -> None:
        for number in numbers:
            if number in self.tasks:
                self._forget(self.tasks[number])

    def _hand_over(self, tasks: Collection[Task]) -> None:
        """Begins nothing more for these tasks, waits for what runs, and says that they are free."""
        begun = [task for task in tasks if task.phase is Phase.LIVE]
        for task in begun:
            task.phase = Phase.DRAINING
            self._fetch.unassign(list(task.parts))
            self.commands.drop_unsent(task)
        until = self.clock.monotonic() + DRAIN_S
        while self.clock.monotonic() < until and any(
            task.held or task.notes or self._settlement.pending(task) for task in begun
        ):
            self._pass(member=False)
        # What still runs is left to the journal: its successor waits for the lease then.
        released = [task for task in begun if not task.held and not task.notes]
        while released and not self._unsure:
            try:
                if self._settlement.commit(list(self.tasks.values()), released):
                    break
            except (Fenced, KafkaException) as error:
                log.info("dispatch: release failed: %s", error)
                self._unsure = True
            if self.clock.monotonic() > until + 1.0:
                break
            wait(IDLE_POLL_S)
        for task in tasks:
            self._forget(task)

    def _forget(self, task: Task) -> None:
        """The task is not ours any more; answers that still come are not ours to write."""
        if task.phase in (Phase.LIVE, Phase.DRAINING):
            self._fetch.unassign(list(task.parts))
        task.phase = Phase.GONE
        self.commands.drop_unsent(task)
        self._takeover.drop(task)
        self._settlement.drop(task)
        self._crowded = {part for part in self._crowded if part not in task.parts}
        if self.tasks.get(task.number) is task:
            del self.tasks[task.number]

    # The loop

    def run(self, stop: threading.Event) -> None:
        """Until `stop`; then waits for what is in flight (8 s at most), commits, hands over.

        Raises:
            MissingOffset: records could have been skipped unseen.
        """
        try:
            if self._tables is not None:
                self._tables.load(30.0)
            while not stop.is_set():
                self._pass()
            self._hand_over(list(self.tasks.values()))
        finally:
            for task in list(self.tasks.values()):
                self._forget(task)
            self._requests.close()
            self._journal.close()
            self._membership.close()
            self._fetch.close()
            self._reader.close()

    def _pass(self, *, member: bool = True) -> None:
        self._observed.turn()
        if member:
            self._membership.poll()
        if self._unsure:
            self._reconcile()
        self._takeover.step(self.tasks.values())
        self._look_up()
        self._read()
        self.commands.step(self.tasks.values())
        if not self._unsure and self._settlement.due(self.tasks.values(), idle=self.commands.idle):
            self._commit()

    def _look_up(self) -> None:
        """Small chores by the clock."""
        now = self.clock.monotonic()
        if self._tables is not None and now >= self._tables_at:
            self._tables.poll()
            self._tables_at = now + TABLES_S
        if now >= self._forget_at:
            self._forget_at = now + FORGET_S
            for task in self.tasks.values():
                task.attempts.forget(self.clock.now())

    # Commands in

    def _read(self) -> None:
        self._hold_back()
        held = self._held = sum(task.held for task in self.tasks.values())
        idle = 0.0
        if not self.commands.busy:
            if self.commands.idle:
                idle = IDLE_POLL_S
            else:
                self._requests.wait(BUSY_WAIT_S)  # an answer is looked at at once
        reading = any(task.live for task in self.tasks.values())
        if not reading or held >= MAX_HELD or self.clock.monotonic() < self._registry_at:
            if idle:
                wait(idle)
            return
        stopped: set[Part] = set()
        for record in self._fetch.take(min(BATCH, MAX_HELD - held), idle):
            part = (self._cluster.real(record.topic), record.partition)
            if part not in stopped and not self._admit(record, part):
                stopped.add(part)

    def _hold_back(self) -> None:
        """A topic whose providers are all full stays in Kafka; so does a partition whose map grows
        too long. Nothing else waits for them."""
        if not (self.commands.waiting or self._paused or self._crowded):
            return
        for topic, channel in self._channels.items():
            least = self.commands.filled(channel, self._lanes[topic])
            parts = [(self._cluster.real(topic), n) for n, t in self.tasks.items() if t.live]
            if least >= PAUSE_AT and topic not in self._paused:
                self._paused.add(topic)
                self._fetch.pause(parts)
            elif least < RESUME_AT and topic in self._paused:
                self._paused.discard(topic)
                self._fetch.resume([part for part in parts if part not in self._crowded])
        for part in list(self._crowded):
            task = self.tasks.get(part[1])
            if task is None or task.parts[part].roomy:
                self._crowded.discard(part)
                if self._cluster.logical(part[0]) not in self._paused:
                    self._fetch.resume([part])

    def _admit(self, record: Inbound, part: Part) -> bool:
        """Takes a command in. False: its partition has to be read again from here."""
        task = self.tasks[record.partition]
        completion = task.parts[part]
        now, lane = self.clock.now(), self._lanes[record.topic]
        try:
            decoded = self._wire.decode(record)
        except RegistryUnavailable as error:
            log.warning("dispatch: %s; the partition waits", error)
            self._fetch.rewind({part: record.offset})
            self._registry_at = self.clock.monotonic() + REGISTRY_S
            return False
        except Undecodable as error:
            if completion.take(record.offset):
                self._bury(record, part, lane, error, now)
            return True
        if not completion.take(record.offset):
            return True
        if completion.crowded and part not in self._crowded:
            self._crowded.add(part)
            self._fetch.pause([part])
        command = decoded.value
        if not task.attempts.note(command["command_id"], record.topic, record.offset, now):
            self.repeats += 1
            self._observed.repeated()
            self._settlement.add(task, part, record.offset, lane, ())
            return True
        known = task.attempts.look(command["command_id"])
        doubt = known.open if known else ()
        self.commands.open(decoded, task, part, lane, doubt)
        return True

    def _bury(self, record: Inbound, part: Part, lane: str, error: Undecodable, now: int) -> None:
        letter = poison_letter(record, NAME, error.code, error.detail, now)
        raw = letter["raw_value"]
        if raw is not None and len(raw) > _LETTER_BYTES:
            letter["raw_value"] = raw[:_LETTER_BYTES]
            letter["detail"] += f"; cut from {len(raw)} bytes"
        emit = Emit("dead-letter", None, letter, (), record.partition)
        outputs = [self._wire.encode(emit)]
        self._settlement.add(self.tasks[record.partition], part, record.offset, lane, outputs)

    # Facts out

    def _commit(self) -> None:
        claiming = [task for task in self.tasks.values() if task.phase is Phase.CLAIMING]
        try:
            done = self._settlement.commit(list(self.tasks.values()))
        except Fenced as error:
            log.info("dispatch: fenced: %s", error)
            self._unsure = True
            return
        if done:
            for task in claiming:
                task.phase = Phase.LIVE
                self._fetch.assign({part: c.position for part, c in task.parts.items()})
                self._fetch.pause(
                    part for part in task.parts if self._cluster.logical(part[0]) in self._paused
                )
                log.info("dispatch: took task %d", task.number)

    def _reconcile(self) -> None:
        """After a fence: asks the group what was committed, and keeps the facts that were not."""
        parts = [part for task in self.tasks.values() if task.ours for part in task.parts]
        try:
            found = committed(self._fetch.stable, self._fetch.group, parts) if parts else {}
        except KafkaException as error:
            log.info("dispatch: positions after a fence: %s", error)
            return
        kept = self._settlement.reconcile(
            {part: restored(part, place.offset, place.metadata) for part, place in found.items()}
        )
        log.info("dispatch: begins again with %d facts in hand", kept)
        self._unsure = False
