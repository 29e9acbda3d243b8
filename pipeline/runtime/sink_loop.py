"""The sink's loop: records of the event topics become rows in ClickHouse, each exactly once.

The position lives in ClickHouse, in the rows. A partition goes on behind the highest offset that
is stored for it, and a batch is one INSERT that is there whole or not at all, so whatever kills a
worker, the next one begins exactly where the rows end. Two cases are left to the event's id, by
which `events_unique` shows a row once: a stalled worker that inserts after another took over, and
an INSERT that lands after we stopped waiting for it. Kafka's own offsets are only committed so
that lag can be seen.

While ClickHouse is away the worker stays in its group: it polls with its partitions paused, holds
one batch at most, and nothing else in the pipeline notices.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)

from pipeline.domain import metrics
from pipeline.domain.backoff import unit_of
from pipeline.domain.errors import Undecodable
from pipeline.domain.outcomes import Inbound
from pipeline.runtime import observe
from pipeline.runtime.clickhouse import Store, Unavailable
from pipeline.runtime.clock import BrokerClock, Clock
from pipeline.runtime.codec import Codec
from pipeline.runtime.fetch import behind, inbound
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.registry import RegistryUnavailable
from pipeline.runtime.sink_batch import Batch, Limits, Place, Row

log = logging.getLogger(__name__)

STAGE: Final = "sink"

Part = tuple[str, int]
"""A topic as the cluster knows it, and a partition."""

_COMMIT_EVERY_S: Final = 1.0
_ADMIN_TIMEOUT_S: Final = 5.0
_OUT_OF_RANGE: Final = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)


class _Stopping(Exception):
    """Asked to stop while something is away; what was read is read again by the next worker."""


class SinkLoop:
    """One worker; `slot` None is for one that comes and goes. `topics` are the catalogue's names of
    what the sink reads, with their records.

    `to_row` makes a row, `unreadable` the row of a record that cannot be read (with a reason);
    both take the record and the id of its topic, and a row ends in topic, topic id, partition,
    offset and append time (stages/sink.py).
    """

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        codec: Codec,
        slot: int | None,
        topics: Mapping[str, str],
        to_row: Callable[[Inbound, str], Row],
        unreadable: Callable[[Inbound, str, str], Row],
        clock: Clock | None = None,
        limits: Limits | None = None,
        observed: observe.Unobserved = observe.NONE,
    ) -> None:
        self._cluster, self._store, self._codec, self._slot = cluster, store, codec, slot
        self._records = {cluster.real(name): (name, record) for name, record in topics.items()}
        self._to_row, self._unreadable = to_row, unreadable
        self._clock, self._limits = clock or BrokerClock(), limits or Limits()
        self._stop = threading.Event()
        self._consumer: Consumer = cluster.member(
            cluster.group(STAGE),
            slot,
            enable_partition_eof=True,
            queued_max_messages_kbytes=65_536,
            # Every fetch names all partitions of all event topics; a batch waits longer anyway.
            fetch_min_bytes=200_000,
            fetch_wait_max_ms=150,
        )
        self._admin = cluster.admin()
        self._ready = False
        self._unplaced: set[Part] = set()
        self._place_at = 0.0
        self._place_tries = 0
        self._ids: dict[str, str] = {}
        self._next: dict[Part, int] = {}
        self._batch = Batch(store, self._clock, self._limits, self._wait, self._owned)
        self._stash: list[Message] = []
        self._committed: dict[Part, int] = {}
        self._commit_at = 0.0
        self.inserted = 0  # rows that this worker has stored
        self.waited = 0  # how often something was away
        self._joined = False
        self._read_at: dict[Part, int] = {}
        self._observed = observed
        observed.watch(
            standing=lambda: observe.Standing(
                self._joined, len(self._next), len(self._unplaced), self.held
            ),
            waiting=self._waiting,
            numbers={
                metrics.ROWS: lambda: {(): self.inserted},
                metrics.WAITS: lambda: {(): self.waited},
            },
        )

    @property
    def held(self) -> int:
        """Rows that are read and not stored yet."""
        return len(self._batch)

    def run(self, stop: threading.Event) -> None:
        """Works until `stop` is set; then stores what it holds, if ClickHouse answers.

        Raises:
            KafkaException: the client cannot go on.
            WrongTables: the database is not of this version.
        """
        self._stop = stop
        self._consumer.subscribe(
            list(self._records),
            on_assign=self._assigned,
            on_revoke=self._revoked,
            on_lost=self._revoked,
        )
        try:
            while not stop.is_set():
                self.step()
            self.inserted += self._batch.flush()
            self._commit(now=True)
        except _Stopping:
            log.info("stopped before everything was stored; the rest is read again")
        finally:
            self._consumer.close()
            self._store.close()

    def step(self) -> None:
        """One turn: place what is new, read, insert when a batch is due."""
        self._observed.turn()
        if self._unplaced and self._clock.monotonic() >= self._place_at:
            self._place()
        stash, self._stash = self._stash, []
        for message in [*stash, *self._read()]:
            self._take(message)
        if self._batch and self._batch.due_in() <= 0:
            self.inserted += self._batch.flush()
        self._commit()

    def _read(self) -> Sequence[Message]:
        limits = self._limits
        if self._batch:
            room = max(1, min(limits.fetch, limits.rows - len(self._batch)))
            due = max(0.0, min(self._batch.due_in(), limits.idle_s))
            return self._consumer.consume(room, due)
        first = self._consumer.poll(0.05 if self._unplaced else limits.idle_s)
        return [] if first is None else [first, *self._consumer.consume(limits.fetch - 1, 0)]

    # ------------------------------------------------------------------------------- membership

    def _assigned(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        """New partitions are fetched once ClickHouse has said where they go on. Nothing is assigned
        before: with a logical offset the client asks where that is, and an answer that comes after
        a seek undoes it, so the worker would begin at the end."""
        self._joined = True
        consumer.incremental_assign([])
        self._forget({(part.topic, part.partition) for part in parts})
        self._unplaced.update((part.topic, part.partition) for part in parts)
        self._place_at = 0.0

    def _revoked(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        """What is held of them is dropped: their next owner reads it again."""
        gone = {(part.topic, part.partition) for part in parts}
        fetched = [TopicPartition(*part) for part in sorted(gone & self._next.keys())]
        self._forget(gone)
        self._unplaced -= gone
        consumer.incremental_unassign(fetched)

    def _forget(self, parts: set[Part]) -> None:
        for part in parts:
            self._next.pop(part, None)
            self._committed.pop(part, None)
            self._read_at.pop(part, None)
        self._batch.drop({(self._records[topic][0], number) for topic, number in parts})
        self._stash = [found for found in self._stash if _part(found) not in parts]

    def _place(self) -> None:
        parts = sorted(self._unplaced)
        try:
            if not self._ready:
                self._store.migrate()
                self._ready = True
            self._ids.update(self._topic_ids({topic for topic, _ in parts}))
            topic_ids = [self._ids[topic] for topic, _ in parts]
            found = self._store.positions(topic_ids)
            self._store.complete_rates(topic_ids)  # the last owner may have died in an INSERT
        except (Unavailable, KafkaException) as error:
            self._place_tries += 1
            self.waited += 1
            delay = self._delay(self._place_tries)
            self._place_at = self._clock.monotonic() + delay
            log.warning("where to go on is not known (%s); asking again in %.1f s", error, delay)
            return
        self._place_tries = 0
        for part in parts:
            self._seek(part, found.get((self._ids[part[0]], part[1])))

    def _seek(self, part: Part, offset: int | None) -> None:
        where = TopicPartition(*part, OFFSET_BEGINNING if offset is None else offset)
        self._consumer.incremental_assign([where])
        self._unplaced.discard(part)
        self._next[part] = offset or 0

    def _topic_ids(self, topics: set[str]) -> dict[str, str]:
        """Asked for each time: a topic that was deleted and made anew begins from its start."""
        asked = self._admin.describe_topics(
            TopicCollection(sorted(topics)), request_timeout=_ADMIN_TIMEOUT_S
        )
        return {name: str(found.result(_ADMIN_TIMEOUT_S).topic_id) for name, found in asked.items()}

    def _out_of_range(self, part: Part) -> None:
        """The position is not in the log: retention took records away, or the log was cut."""
        low, high = self._consumer.get_watermark_offsets(TopicPartition(*part), _ADMIN_TIMEOUT_S)
        position = self._next[part]
        if position > high:
            log.error(
                "%s[%d] ends at %d, before the stored position %d: reading it from its start",
                *part,
                high,
                position,
            )
        elif position < low:
            committed = self._consumer.committed([TopicPartition(*part)], _ADMIN_TIMEOUT_S)
            if committed[0].offset < low:
                log.error(
                    "%s[%d]: records from %d to %d were deleted by retention before they were"
                    " stored; going on behind them",
                    *part,
                    max(position, committed[0].offset),
                    low - 1,
                )
        # the client has given the partition up; a seek would not begin it again
        self._consumer.incremental_unassign([TopicPartition(*part)])
        self._consumer.incremental_assign([TopicPartition(*part, low)])
        self._next[part] = low

    # ---------------------------------------------------------------------------------- records

    def _take(self, message: Message) -> None:
        part = _part(message)
        error = message.error()
        if error is not None:
            self._failed(error, part, int(message.offset() or 0))
            return
        offset = int(message.offset() or 0)
        tries = 0
        while part in self._next and offset >= self._next[part]:
            try:
                row = self._row(message, part, offset)
            except RegistryUnavailable as unavailable:
                tries += 1
                self._wait(tries, str(unavailable))
                continue
            self._batch.add(row)
            self._next[part] = offset + 1
            self._read_at[part] = message.timestamp()[1]

    def _waiting(self) -> list[observe.Waiting]:
        """What waits behind what was read; rows that are held are counted by themselves."""
        return [
            behind(self._consumer, part, self._records[part[0]][0], done, self._read_at)
            for part, done in self._next.items()
        ]

    def _row(self, message: Message, part: Part, offset: int) -> Row:
        """The row of a record, whatever the record is.

        Raises:
            RegistryUnavailable
        """
        name, record = self._records[part[0]]
        found = inbound(message, name, part[1], offset)
        topic_id = self._ids[part[0]]
        try:
            value = self._codec.decode_as(record, found.value)
            return self._to_row(found.holding(value), topic_id)
        except Undecodable as error:
            log.warning("%s[%d]@%d cannot be read: %s", *part, offset, error)
            return self._unreadable(found, topic_id, error.code)
        except (LookupError, TypeError, ValueError, ArithmeticError) as error:
            log.warning("%s[%d]@%d makes no row (%s)", *part, offset, type(error).__name__)
            return self._unreadable(found, topic_id, "internal")

    def _failed(self, error: KafkaError, part: Part, offset: int) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            if part in self._next:  # behind the transaction markers, which are no records
                self._next[part] = max(self._next[part], offset)
        elif error.code() in _OUT_OF_RANGE:
            if part in self._next:
                self._out_of_range(part)
        elif error.fatal():
            raise KafkaException(error)
        else:
            log.info("reading: %s", error)

    # ---------------------------------------------------------------------------------- waiting

    def _wait(self, tries: int, why: str) -> None:
        """Waits a growing while as a member in good standing: paused, but polling.

        Raises:
            _Stopping: there is no time left to wait.
        """
        self.waited += 1
        delay = self._delay(tries)
        log.warning("waiting %.1f s: %s", delay, why)
        until = self._clock.monotonic() + delay
        self._consumer.pause(self._consumer.assignment())
        while not self._stop.is_set() and (left := until - self._clock.monotonic()) > 0:
            self._observed.turn()
            message = self._consumer.poll(min(left, 0.1))
            if message is not None:  # was on its way when we paused
                self._stash.append(message)
        if self._stop.is_set():
            raise _Stopping
        self._consumer.resume([TopicPartition(*part) for part in self._next])

    def _owned(self, place: Place) -> bool:
        return (self._cluster.real(place[0]), place[1]) in self._next

    def _delay(self, tries: int) -> float:
        ceiling = min(self._limits.backoff_s * 2 ** min(tries - 1, 16), self._limits.backoff_max_s)
        return float(ceiling) * (0.5 + 0.5 * unit_of(STAGE, self._slot or 0, tries))

    def _commit(self, *, now: bool = False) -> None:
        """Tells Kafka how far the rows are, for lag only."""
        at = self._clock.monotonic()
        if self._batch or (at < self._commit_at and not now):
            return
        new = {part: n for part, n in self._next.items() if n and self._committed.get(part) != n}
        self._commit_at = at + _COMMIT_EVERY_S
        if not new:
            return
        offsets = [TopicPartition(*part, offset) for part, offset in new.items()]
        try:
            if now:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            else:
                self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            log.debug("lag is not published: %s", error)
            return
        self._committed.update(new)


def _part(message: Message) -> Part:
    return str(message.topic()), int(message.partition() or 0)
