"""Looks at topics from outside: what is committed, up to where it is decided. Joins no group,
commits nothing, changes nothing."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Self

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)

from pipeline.domain.outcomes import Inbound
from pipeline.runtime.clock import BrokerClock, Clock
from pipeline.runtime.fetch import inbound
from pipeline.runtime.kafka import Cluster

Place = tuple[str, int]
"""A topic (the catalogue's name) and a partition."""

Range = tuple[int, int]
"""First offset that is there, and the first behind what is decided."""

TIMEOUT_S: Final = 15.0
_READ: Final = 2_000


class Unreachable(RuntimeError):
    """Kafka did not answer, or a topic is not there; the text says which."""


class Reader:
    """Reads the topics of one cluster and prefix; use it in a `with` block."""

    def __init__(self, cluster: Cluster, clock: Clock | None = None) -> None:
        self._cluster, self._clock = cluster, clock or BrokerClock()
        self._admin = cluster.admin()
        self._consumer: Consumer = cluster.consumer(
            cluster.group("reader"), enable_partition_eof=True, auto_offset_reset="earliest"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def topic_ids(self, topics: Iterable[str]) -> dict[str, str]:
        """The id of each topic; a topic that is made anew has another.

        Raises:
            Unreachable
        """
        names = {self._cluster.real(topic): topic for topic in topics}
        asked = self._admin.describe_topics(
            TopicCollection(sorted(names)), request_timeout=TIMEOUT_S
        )
        found = {}
        for name, future in asked.items():
            try:
                found[names[name]] = str(future.result(TIMEOUT_S).topic_id)
            except (KafkaException, TimeoutError) as error:
                raise self._unreachable(name, error) from error
        return found

    def partitions(self, topics: Iterable[str]) -> dict[str, int]:
        """How many partitions each of the topics has; those that are not there are left out.

        Raises:
            Unreachable
        """
        try:
            found = self._consumer.list_topics(timeout=TIMEOUT_S).topics
        except KafkaException as error:
            raise self._unreachable("topics", error) from error
        names = {topic: found.get(self._cluster.real(topic)) for topic in topics}
        return {topic: len(about.partitions) for topic, about in names.items() if about}

    def ranges(self, topics: Iterable[str]) -> dict[Place, Range]:
        """For each partition, where it begins and up to where every transaction is decided.

        Raises:
            Unreachable
        """
        found = {}
        for topic in topics:
            name = self._cluster.real(topic)
            try:
                about = self._consumer.list_topics(name, timeout=TIMEOUT_S).topics[name]
                if about.error is not None:
                    raise KafkaException(about.error)
                for number in sorted(about.partitions):
                    part = TopicPartition(name, number)
                    # asked of the broker, so a read_committed consumer gets the stable end
                    low, end = self._consumer.get_watermark_offsets(part, timeout=TIMEOUT_S)
                    found[topic, number] = (low, end)
            except KafkaException as error:
                raise self._unreachable(name, error) from error
        return found

    def since(self, ranges: Mapping[Place, Range], at: int) -> dict[Place, Range]:
        """The ranges without what was appended before `at` (milliseconds since the epoch).

        Raises:
            Unreachable
        """
        asked = [TopicPartition(self._cluster.real(p[0]), p[1], at) for p in ranges]
        try:
            found = self._consumer.offsets_for_times(asked, timeout=TIMEOUT_S)
        except KafkaException as error:
            raise self._unreachable("offsets by time", error) from error
        cut = dict(ranges)
        for part in found:
            place = (self._cluster.logical(part.topic), part.partition)
            low, end = ranges[place]
            cut[place] = (max(low, part.offset) if part.offset >= 0 else end, end)
        return cut

    def committed(self, group: str, places: Sequence[Place]) -> dict[Place, int]:
        """How far a stage's group has come; 0 where it has never committed.

        Raises:
            Unreachable
        """
        parts = [TopicPartition(self._cluster.real(topic), number) for topic, number in places]
        asker = self._cluster.consumer(self._cluster.group(group))
        try:
            answer = asker.committed(parts, timeout=TIMEOUT_S)
        except KafkaException as error:
            raise self._unreachable(f"group {group}", error) from error
        finally:
            asker.close()
        return {
            (self._cluster.logical(part.topic), part.partition): max(part.offset, 0)
            for part in answer
        }

    def read(
        self, ranges: Mapping[Place, Range], heard: Callable[[int], None] = lambda _: None
    ) -> Iterator[Inbound]:
        """Every committed record of the ranges, those of a partition in order, values raw.
        `heard` is told how many records there were since it was told last.

        Raises:
            Unreachable: nothing came for a while.
        """
        left = {place: end for place, (low, end) in ranges.items() if low < end}
        self._consumer.assign(
            [TopicPartition(self._cluster.real(p[0]), p[1], ranges[p][0]) for p in left]
        )
        last = self._clock.monotonic()
        try:
            while left:
                messages = self._consumer.consume(_READ, 0.2)
                if not messages and self._clock.monotonic() - last > TIMEOUT_S:
                    raise Unreachable(
                        f"{self._cluster.bootstrap} sent nothing for {TIMEOUT_S:.0f} s; check it"
                    )
                if messages:
                    last = self._clock.monotonic()
                    heard(len(messages))
                for message in messages:
                    found = self._record(message, left)
                    if found is not None:
                        yield found
        finally:
            self._consumer.unassign()

    def _record(self, message: Message, left: dict[Place, int]) -> Inbound | None:
        topic = self._cluster.logical(str(message.topic()))
        place, offset = (topic, int(message.partition() or 0)), int(message.offset() or 0)
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF and offset >= left.get(place, offset + 1):
                del left[place]
            return None
        end = left.get(place)
        if end is None or offset >= end:
            left.pop(place, None)
            return None
        if offset == end - 1:
            del left[place]
        return inbound(message, topic, place[1], offset)

    def _unreachable(self, what: str, error: Any) -> Unreachable:
        cause = error.args[0] if error.args else error
        text = cause.str() if isinstance(cause, KafkaError) else type(error).__name__
        return Unreachable(f"{what} at {self._cluster.bootstrap}: {text}")
