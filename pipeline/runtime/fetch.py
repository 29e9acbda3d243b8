"""Records of owned tasks: one consumer per lane, assigned by hand.

One consumer for several lanes would let a backlog of bulk records delay an urgent one by its whole
prefetch, so each lane has its own and the urgent one is asked first.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pipeline.domain.outcomes import Inbound
from pipeline.domain.switches import NONE, Switches
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.observe import Waiting
from pipeline.runtime.tasks import MissingOffset

log = logging.getLogger(__name__)

IDLE_POLL_S: Final = 0.005
Part = tuple[str, int]


def inbound(message: Message, topic: str, partition: int, offset: int) -> Inbound:
    """A record as stages see it, its value still raw."""
    key, value = message.key(), message.value()
    headers: Any = message.headers()
    return Inbound(
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp=message.timestamp()[1],
        key=key,
        value=value,
        headers=tuple((name, text or b"") for name, text in headers or ()),
    )


def behind(
    consumer: Consumer, part: Part, topic: str, done: int, read_at: Mapping[Part, int]
) -> Waiting:
    """What waits behind `done` in a partition that `consumer` fetches, as far as the last answer of
    the brokers said; nothing before the first. `topic` is the catalogue's name, `read_at` has the
    append times of the last records read."""
    _, high = consumer.get_watermark_offsets(TopicPartition(*part), cached=True)
    return Waiting(topic, part[1], done, max(0, high - done), read_at.get(part, 0))


def past_markers(processed: int, following: int, end: int) -> int:
    """Up to which offset a partition is done, when every record below `processed` is, `following`
    is the next to be read and `end` where the partition was last seen to end: there, transaction
    markers count, which are no records."""
    return end if following <= processed < end else processed


class Fetch:
    """Reads partitions of the cluster's topics `lanes[i][j]`, lane by lane."""

    def __init__(
        self,
        cluster: Cluster,
        group: str,
        lanes: Sequence[Sequence[str]],
        switches: Switches = NONE,
    ) -> None:
        self.group = group
        self._logical = {topic: cluster.logical(topic) for lane in lanes for topic in lane}
        self._lane_of = {topic: number for number, lane in enumerate(lanes) for topic in lane}
        options: dict[str, Any] = {"enable_partition_eof": True}
        if switches.read_uncommitted:
            options["isolation_level"] = "read_uncommitted"
        self._consumers = [cluster.consumer(group, **options) for _ in lanes]
        self._next: dict[Part, int] = {}
        self._ends: dict[Part, int] = {}
        self._read_at: dict[Part, int] = {}

    @property
    def topics(self) -> list[str]:
        """The cluster's names of what is read."""
        return list(self._lane_of)

    @property
    def stable(self) -> Consumer:
        """A consumer whose `committed` waits for open transactions."""
        return self._consumers[0]

    def _by_consumer(self, parts: Iterable[Part]) -> Iterable[tuple[Consumer, list[Part]]]:
        for number, consumer in enumerate(self._consumers):
            mine = [part for part in parts if self._lane_of[part[0]] == number]
            if mine:
                yield consumer, mine

    def assign(self, positions: Mapping[Part, int]) -> None:
        """Begins to read at the given offsets."""
        for consumer, parts in self._by_consumer(list(positions)):
            consumer.incremental_assign([TopicPartition(*p, positions[p]) for p in parts])
        self._next.update(positions)

    def unassign(self, parts: Sequence[Part]) -> None:
        """Stops reading; records already read are dropped by `take`."""
        parts = [part for part in parts if part in self._next]
        for consumer, mine in self._by_consumer(parts):
            consumer.incremental_unassign([TopicPartition(*p) for p in mine])
        for part in parts:
            del self._next[part]
            self._ends.pop(part, None)
            self._read_at.pop(part, None)

    def pause(self, parts: Iterable[Part]) -> None:
        """Stops giving records of these partitions until `resume`."""
        for consumer, mine in self._by_consumer([p for p in parts if p in self._next]):
            consumer.pause([TopicPartition(*part) for part in mine])

    def resume(self, parts: Iterable[Part]) -> None:
        """Goes on behind the last record that was given."""
        for consumer, mine in self._by_consumer([p for p in parts if p in self._next]):
            consumer.resume([TopicPartition(*part) for part in mine])

    def rewind(self, positions: Mapping[Part, int]) -> None:
        """Reads again from the given offsets."""
        for part, offset in positions.items():
            if part in self._next:
                self._next[part] = offset
                self._ends.pop(part, None)
        # Assigned anew rather than sought: a seek fails while the first fetch is on its way.
        for consumer, parts in self._by_consumer([p for p in positions if p in self._next]):
            consumer.incremental_unassign([TopicPartition(*p) for p in parts])
            consumer.incremental_assign([TopicPartition(*p, positions[p]) for p in parts])

    def take(self, limit: int, wait: float) -> list[Inbound]:
        """At most about `limit` records with raw values, the first lane's first; waits at most
        `wait` seconds, for that lane's first record."""
        taken: list[Inbound] = []
        for number, consumer in enumerate(self._consumers):
            if number == 0 and wait > 0:
                first = consumer.poll(wait)
                if first is not None:
                    self._keep(first, taken)
            if len(taken) >= limit:
                break
            for message in consumer.consume(limit - len(taken), 0):
                self._keep(message, taken)
        return taken

    def _keep(self, message: Message, taken: list[Inbound]) -> None:
        part = (str(message.topic()), int(message.partition() or 0))
        offset = int(message.offset() or 0)
        error = message.error()
        if error is not None:
            self._failed(error, part, offset)
        elif part in self._next and offset >= self._next[part]:
            self._next[part] = offset + 1
            record = inbound(message, self._logical[part[0]], part[1], offset)
            self._read_at[part] = record.timestamp
            taken.append(record)

    def _failed(self, error: KafkaError, part: Part, offset: int) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            if part in self._next:
                self._ends[part] = offset
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise MissingOffset(self.group, [part])
        elif error.fatal():
            raise KafkaException(error)
        else:
            log.info("reading %s[%s]: %s", *part, error)

    def heard(self, part: Part, processed: int) -> int:
        """Up to which offset `part` is done, when every record below `processed` is."""
        return past_markers(processed, self._next.get(part, 0), self._ends.get(part, 0))

    def waiting(self, processed: Mapping[Part, int]) -> list[Waiting]:
        """What waits behind the given positions. Asks no broker."""
        found = []
        for consumer, parts in self._by_consumer([p for p in processed if p in self._next]):
            for part in parts:
                done = self.heard(part, processed[part])
                found.append(behind(consumer, part, self._logical[part[0]], done, self._read_at))
        return found

    def close(self) -> None:
        """Ends the clients."""
        for consumer in self._consumers:
            consumer.close()
