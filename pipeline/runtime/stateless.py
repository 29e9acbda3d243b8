"""The loop of a stage without state: read, answer, commit.

The group is joined by a plain subscription. A stage may have several groups, the more urgent
first, so that a backlog of one does not delay the other; each transaction takes from one of them.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import compress
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from pipeline.domain.outcomes import Answer, Emit, Inbound, Put
from pipeline.domain.switches import NONE, Switches
from pipeline.runtime import observe
from pipeline.runtime.clock import Clock, wait
from pipeline.runtime.fetch import IDLE_POLL_S, Part, behind, inbound, past_markers
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.registry import RegistryUnavailable
from pipeline.runtime.tasks import COMMITTED_TIMEOUT_S, Handover, MissingOffset
from pipeline.runtime.transaction import Aborted, Encoded, Fenced, Transactions, rest_s
from pipeline.runtime.wire import Wire, crash_letter

log = logging.getLogger(__name__)

MAX_RECORDS: Final = 1_000
BUFFERED: Final = 2 * MAX_RECORDS
ANSWERED_AT_ONCE: Final = 200
"""Records answered between two looks at whether a commit is due."""

RETRY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Intake:
    """One group of the stage: its name, topics, and how long (ms) a commit may wait for more."""

    group: str
    topics: tuple[str, ...]
    spacing_ms: int


class Source:
    """A subscribed member of one group, with what it owns and where that is committed."""

    def __init__(
        self,
        cluster: Cluster,
        intake: Intake,
        slot: int,
        transactions: Transactions,
        *,
        static: bool,
        switches: Switches,
    ) -> None:
        self.intake = intake
        self.metadata: Any = None
        self.waiting: list[Inbound] = []
        self.answers: list[list[Encoded]] = []  # of the first ones of `waiting`
        self.committed_at = self.rest_ms = 0.0
        self._cluster, self._transactions = cluster, transactions
        self._positions: dict[Part, int] = {}
        self._next: dict[Part, int] = {}
        self._ends: dict[Part, int] = {}
        self._read_at: dict[Part, int] = {}
        self.joined = False
        group = cluster.group(intake.group)
        options: dict[str, Any] = {"enable_partition_eof": True}
        if switches.read_uncommitted:
            options["isolation_level"] = "read_uncommitted"
        self._consumer = cluster.member(group, slot if static else None, **options)
        # Sees who owned a partition last through that owner's open transaction.
        self._peek = cluster.consumer(group, isolation_level="read_uncommitted")
        self._consumer.subscribe(
            [cluster.real(topic) for topic in intake.topics],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_revoke,
        )

    def _on_assign(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        self.metadata = consumer.consumer_group_metadata()
        self.joined = True
        if not parts:
            return
        asked = [TopicPartition(p.topic, p.partition) for p in parts]
        owners = [Handover.read(p.metadata) for p in self._peek.committed(asked, 10)]
        mine = self._transactions.transactional_id
        for owner in {o.transactional_id for o in owners if o and not o.released} - {mine}:
            self._transactions.abort_dead(owner)
        found = consumer.committed(asked, COMMITTED_TIMEOUT_S)
        missing = [(p.topic, p.partition) for p in found if p.offset < 0]
        if missing:
            raise MissingOffset(self.intake.group, missing)
        consumer.incremental_assign([TopicPartition(p.topic, p.partition, p.offset) for p in found])
        for p in found:
            self._positions[(p.topic, p.partition)] = p.offset
            self._next[(p.topic, p.partition)] = p.offset

    def _on_revoke(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        """No transaction is open here, so what was read and not committed is simply dropped."""
        self.metadata = consumer.consumer_group_metadata()
        gone = {(p.topic, p.partition) for p in parts}
        self.release(gone)
        for part in gone:
            self._positions.pop(part, None)
            self._next.pop(part, None)
            self._ends.pop(part, None)
            self._read_at.pop(part, None)
        kept = [self._part(record) not in gone for record in self.waiting]
        self.waiting = list(compress(self.waiting, kept))
        self.answers = list(compress(self.answers, kept))
        consumer.incremental_unassign(parts)

    def release(self, gone: set[Part]) -> None:
        """Tells the successor that it need not fence us. Only a courtesy, so errors pass."""
        note = Handover(self._transactions.transactional_id, released=True).text()
        offsets = [
            TopicPartition(*part, self._positions[part], note)
            for part in gone
            if part in self._positions
        ]
        try:
            if offsets:
                self._transactions.commit([], [], offsets, self.metadata)
        except (Aborted, Fenced) as error:
            log.info("release of %s failed: %s", self.intake.group, error)

    def _part(self, record: Inbound) -> Part:
        return (self._cluster.real(record.topic), record.partition)

    def take(self, seconds: float) -> None:
        """Reads what is there, waiting at most `seconds` for the first record."""
        if len(self.waiting) >= BUFFERED:
            return
        first = self._consumer.poll(seconds)
        messages = [] if first is None else [first]
        messages += self._consumer.consume(BUFFERED - len(self.waiting) - len(messages), 0)
        for message in messages:
            error = message.error()
            part = (str(message.topic()), int(message.partition() or 0))
            offset = int(message.offset() or 0)
            if error is not None:
                self._failed(error, part, offset)
            elif part in self._next and offset >= self._next[part]:
                self._next[part] = offset + 1
                logical = self._cluster.logical(part[0])
                record = inbound(message, logical, part[1], offset)
                self._read_at[part] = record.timestamp
                self.waiting.append(record)

    def _failed(self, error: KafkaError, part: Part, offset: int) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            self._ends[part] = offset
            return
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise MissingOffset(self.intake.group, [part])
        if error.fatal():
            raise KafkaException(error)
        log.info("%s: %s", self.intake.group, error)

    @property
    def owned(self) -> int:
        """How many partitions are ours."""
        return len(self._positions)

    def behind(self) -> list[observe.Waiting]:
        """What waits behind the committed positions. Asks no broker."""
        found = []
        for part, position in self._positions.items():
            done = past_markers(position, self._next[part], self._ends.get(part, 0))
            topic = self._cluster.logical(part[0])
            found.append(behind(self._consumer, part, topic, done, self._read_at))
        return found

    def offsets(self, records: Sequence[Inbound], ahead: int) -> list[TopicPartition]:
        """The positions after `records`."""
        note = Handover(self._transactions.transactional_id).text()
        last = {self._part(record): record.offset + 1 + ahead for record in records}
        return [TopicPartition(*part, offset, note) for part, offset in last.items()]

    def done(self, records: Sequence[Inbound]) -> None:
        """The transaction of these, the first ones of `waiting`, is committed."""
        for record in records:
            self._positions[self._part(record)] = record.offset + 1
        self.forget(len(records))

    def forget(self, amount: int) -> None:
        """Drops the first ones of `waiting`."""
        del self.waiting[:amount]
        del self.answers[:amount]

    def rewind(self) -> None:
        """Reads again from what is committed."""
        self.forget(len(self.waiting))
        self._next = dict(self._positions)
        self._ends.clear()
        parts = [TopicPartition(*part, offset) for part, offset in self._positions.items()]
        if parts:
            self._consumer.incremental_unassign(parts)
            self._consumer.incremental_assign(parts)

    def begin_again(self) -> None:
        """Reads again from what the group has committed, after a transaction of unknown fate."""
        asked = [TopicPartition(*part) for part in self._positions]
        if asked:
            for p in self._consumer.committed(asked, COMMITTED_TIMEOUT_S):
                if p.offset >= 0:
                    self._positions[(p.topic, p.partition)] = p.offset
        self.rewind()

    def close(self) -> None:
        """Leaves the group."""
        self._consumer.close()
        self._peek.close()


class StatelessWorker:
    """Runs a pure function over the records of its groups. `run` is the only entry; one thread
    besides a helper that waits for the brokers."""

    def __init__(
        self,
        cluster: Cluster,
        wire: Wire,
        name: str,
        answer: Callable[[Inbound], Sequence[Answer]],
        on_crash: Callable[[Inbound, str], Sequence[Answer]],
        slot: int,
        clock: Clock,
        intakes: Sequence[Intake],
        *,
        static: bool = True,
        switches: Switches = NONE,
        on_step: Callable[[str], None] = lambda _step: None,
        observed: observe.Unobserved = observe.NONE,
    ) -> None:
        self.name, self.clock = name, clock
        self.transactions = Transactions(
            cluster, cluster.transactional_id(name, slot), clock, switches, on_step, observed
        )
        self._observed = observed
        self._wire, self._answer_to, self._on_crash = wire, answer, on_crash
        self._switches = switches
        self._committer = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-commit")
        self._ended_at = 0.0
        self._sources = [
            Source(cluster, intake, slot, self.transactions, static=static, switches=switches)
            for intake in intakes
        ]
        observed.watch(
            standing=self._standing,
            waiting=lambda: [one for source in self._sources for one in source.behind()],
        )

    def _standing(self) -> observe.Standing:
        return observe.Standing(
            joined=all(source.joined for source in self._sources),
            owned=sum(source.owned for source in self._sources),
            held=sum(len(source.waiting) for source in self._sources),
        )

    def run(self, stop: threading.Event) -> None:
        """Until `stop`; then hands its partitions over and leaves."""
        try:
            while not stop.is_set():
                self._pass()
        finally:
            self._committer.shutdown()
            for source in self._sources:
                source.close()

    def _pass(self) -> None:
        self._observed.turn()
        idle = not any(source.waiting for source in self._sources)
        for number, source in enumerate(self._sources):
            source.take(IDLE_POLL_S if idle and number == 0 else 0.0)
        due = [source for source in self._sources if self._due(source)]
        if due:
            # By spacings, so that a backlog of the urgent group leaves the others their share.
            self._work(max(due, key=lambda one: self._since_ms(one) / one.intake.spacing_ms))
        elif not idle and not self._prepare(ANSWERED_AT_ONCE):
            wait(0.002)

    def _since_ms(self, source: Source) -> float:
        return (self.clock.monotonic() - source.committed_at) * 1_000

    def _due(self, source: Source) -> bool:
        """Whether to commit now: enough has come together, or has waited for long enough."""
        if len(source.waiting) >= MAX_RECORDS:
            return True
        enough = max(source.intake.spacing_ms, source.rest_ms)
        return bool(source.waiting) and self._since_ms(source) >= enough

    def _prepare(self, amount: int) -> int:
        """Answers so many waiting records ahead of their commit; returns how many there were."""
        done = 0
        try:
            for source in self._sources:
                ahead = source.waiting[len(source.answers) :][: amount - done]
                done += len(ahead)
                for record in ahead:
                    source.answers.append(self._answer(record))
        except RegistryUnavailable:  # whoever needs the answer asks again
            return 0
        return done

    def _answer(self, record: Inbound) -> list[Encoded]:
        try:
            return self._encoded(self._answer_to(record))
        except RegistryUnavailable:
            raise
        except Exception:  # a fault of ours in one record must not stop the partition
            log.exception("%s: %s[%d]@%d", self.name, record.topic, record.partition, record.offset)
            letter = crash_letter(record, record.value, self.name, record.timestamp)
            answers = self._on_crash(record, letter["detail"])
            return self._encoded([Emit("dead-letter", None, letter), *answers])

    def _encoded(self, answers: Sequence[Answer]) -> list[Encoded]:
        return [self._wire.encode(one) for one in answers if not isinstance(one, Put)]

    def _work(self, source: Source) -> None:
        records = source.waiting[:MAX_RECORDS]
        try:
            for record in records[len(source.answers) :]:
                source.answers.append(self._answer(record))
        except RegistryUnavailable as error:
            log.warning("%s: %s; nothing is taken until it answers", self.name, error)
            wait(RETRY_S)
            return
        outputs = [one for answer in source.answers[: len(records)] for one in answer]
        ahead = 1 if self._switches.offset_too_far else 0
        started = self.clock.monotonic()
        try:
            self._commit(outputs, source.offsets(records, ahead), source.metadata)
        except Aborted as error:
            log.info("%s: aborted: %s", self.name, error)
            if self._switches.no_rewind:
                source.forget(len(records))
            else:
                source.rewind()
        except Fenced as error:
            log.info("%s: fenced: %s", self.name, error)
            source.begin_again()
        else:
            source.done(records)
            source.committed_at = self._ended_at
            source.rest_ms = rest_s(self._ended_at - started) * 1_000

    def _commit(
        self, outputs: Sequence[Encoded], offsets: Sequence[TopicPartition], metadata: Any
    ) -> None:
        """Commits, and answers what waits in the meantime: most of a commit is waiting for the
        brokers. No consumer is asked before it has ended, so no rebalance meets it."""
        if not any(len(source.waiting) > len(source.answers) for source in self._sources):
            self.transactions.commit(outputs, [], offsets, metadata)
            self._ended_at = self.clock.monotonic()
            return

        def commit() -> None:
            try:
                self.transactions.commit(outputs, [], offsets, metadata)
            finally:
                self._ended_at = self.clock.monotonic()

        running = self._committer.submit(commit)
        while not running.done() and self._prepare(ANSWERED_AT_ONCE // 10):
            pass
        running.result()
