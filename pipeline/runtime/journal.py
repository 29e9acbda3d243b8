"""The journal of dispatch: what is about to be written to a socket.

Journalled means: turn and slot are held, and the request leaves as soon as the record is
acknowledged. So what a crash leaves open is what may have been sent, and nothing that only waited.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from pipeline.domain.attempts import KEEP_MS, Attempts
from pipeline.domain.records import RECORD_VERSION, JournalEntry, JournalRecord
from pipeline.runtime.clock import Clock
from pipeline.runtime.codec import Codec
from pipeline.runtime.kafka import Cluster

log = logging.getLogger(__name__)

JOURNAL: Final = "dispatch.journal"
_TIMEOUT_MS: Final = 5_000
_QUERY_S: Final = 10.0
_BATCH: Final = 500

Written = Callable[[bool], None]
"""Told whether the record is in the log; False also when nobody knows."""


class Journal:
    """Writes turns. Not transactional: it must stand before the request leaves, whatever becomes of
    the transaction. `observed` says that a broker has told us the time."""

    def __init__(self, cluster: Cluster, codec: Codec, transactional_id: str, clock: Clock) -> None:
        self._cluster, self._codec, self._clock = cluster, codec, clock
        self._topic = cluster.real(JOURNAL)
        self._transactional_id = transactional_id
        self._producer = self._made()
        self.unwritten = 0
        self.observed = False
        self.records = 0

    def _made(self) -> Producer:
        return self._cluster.producer(message_timeout_ms=_TIMEOUT_MS, retry_backoff_ms=100)

    def write(self, task: int, entries: Sequence[JournalEntry], written: Written) -> None:
        """Puts one record on its way; `written` runs inside a later `poll`."""
        record: JournalRecord = {
            "record_version": RECORD_VERSION,
            "tenant": "",
            "transactional_id": self._transactional_id,
            "entries": list(entries),
        }
        self.unwritten += 1
        self.records += 1

        def reported(error: KafkaError | None, message: Message) -> None:
            self.unwritten -= 1
            if error is not None:
                log.warning("journal of task %d: %s", task, error)
            else:
                self._clock.observe(message.timestamp()[1])
                self.observed = True
            written(error is None)

        try:
            self._producer.produce(
                self._topic,
                self._codec.encode("JournalRecord", record),
                partition=task,
                on_delivery=reported,
            )
        except (KafkaException, BufferError) as error:
            # A fatal producer never recovers: its successor writes the next turn.
            log.warning("journal of task %d: %s", task, error)
            if isinstance(error, KafkaException):
                self._producer = self._made()
            self.unwritten -= 1
            written(False)

    def poll(self, wait: float) -> None:
        """Serves acknowledgements; waits at most `wait` seconds for the first."""
        self._producer.poll(wait)

    def close(self) -> None:
        """Waits shortly for what is on its way."""
        self._producer.flush(2.0)


class JournalReader:
    """Reads tasks' partitions back to what the last quarter of an hour before their end says.
    Never blocks for long: `step` does a part of it."""

    def __init__(self, cluster: Cluster, codec: Codec, group: str) -> None:
        self._topic = cluster.real(JOURNAL)
        self._codec = codec
        self._consumer = cluster.consumer(
            cluster.group(group) + "-journal", isolation_level="read_uncommitted"
        )
        self._ends: dict[int, int] = {}
        self._found: dict[int, Attempts] = {}
        self._tails: set[int] = set()

    def begin(self, task: int) -> None:
        """Starts reading a task's partition."""
        part = TopicPartition(self._topic, task)
        low, high = self._consumer.get_watermark_offsets(part, _QUERY_S)
        self._found[task] = Attempts()
        self._ends[task] = high
        if high > low:
            # Its last record says from where on to read: the time before it counts, not before
            # now, so that an outage of hours forgets nothing.
            self._tails.add(task)
            self._consumer.incremental_assign([TopicPartition(self._topic, task, high - 1)])

    def drop(self, task: int) -> None:
        """The task is no longer ours."""
        if self._found.pop(task, None) is not None and task in self._reading():
            self._consumer.incremental_unassign([TopicPartition(self._topic, task)])
        self._ends.pop(task, None)
        self._tails.discard(task)

    def _reading(self) -> set[int]:
        return {part.partition for part in self._consumer.assignment()}

    def step(self) -> Mapping[int, Attempts]:
        """Reads on; returns the tasks that were read to their end."""
        reading = self._reading()
        complete = {task: self._found[task] for task in list(self._found) if task not in reading}
        for message in self._consumer.consume(_BATCH, 0.005) if reading else ():
            task, offset = int(message.partition() or 0), int(message.offset() or 0)
            error = message.error()
            if error is not None:
                log.info("reading the journal: %s", error)
            elif task in self._tails:
                self._rewind(task, message.timestamp()[1] - KEEP_MS)
            elif task in self._found and offset < self._ends[task]:
                self._learn(task, message)
                if offset + 1 >= self._ends[task]:
                    self._consumer.incremental_unassign([TopicPartition(self._topic, task)])
                    complete[task] = self._found[task]
        for task in complete:
            self._found.pop(task, None)
            self._ends.pop(task, None)
        return complete

    def _rewind(self, task: int, since: int) -> None:
        self._tails.discard(task)
        (found,) = self._consumer.offsets_for_times(
            [TopicPartition(self._topic, task, since)], _QUERY_S
        )
        self._consumer.seek(TopicPartition(self._topic, task, max(found.offset, 0)))

    def _learn(self, task: int, message: Message) -> None:
        name, value = self._codec.decode(message.value())
        if name == "JournalRecord":
            record = cast(JournalRecord, cast(Any, value))
            self._found[task].learn(record["entries"], message.timestamp()[1])

    def close(self) -> None:
        """Leaves."""
        self._consumer.close()
