"""Follows topics from outside as they grow: what is committed, and nothing else. Joins no group and
commits nothing."""

from collections.abc import Iterable
from typing import Final, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from pipeline.domain.outcomes import Inbound
from pipeline.runtime.fetch import inbound
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.reader import TIMEOUT_S, Unreachable

_READ: Final = 2_000


class Follower:
    """Reads some topics (the catalogue's names) from their first record, or with `ends` from where
    they end now; use it in a `with` block, from one thread.

    Raises:
        Unreachable: Kafka does not answer, or a topic is not there.
    """

    def __init__(self, cluster: Cluster, topics: Iterable[str], *, ends: bool = False) -> None:
        self._cluster = cluster
        self._consumer: Consumer = cluster.consumer(
            cluster.group("follower"), auto_offset_reset="latest" if ends else "earliest"
        )
        try:
            self._consumer.assign(self._places(topics, ends=ends))
        except KafkaException as error:
            self._consumer.close()
            raise Unreachable(f"Kafka at {cluster.bootstrap}: {error.args[0].str()}") from error
        except Unreachable:
            self._consumer.close()
            raise

    def _places(self, topics: Iterable[str], *, ends: bool) -> list[TopicPartition]:
        known = self._consumer.list_topics(timeout=TIMEOUT_S).topics
        places = []
        for topic in topics:
            name = self._cluster.real(topic)
            if name not in known:
                raise Unreachable(
                    f"{name} is not at {self._cluster.bootstrap}; is the pipeline up, and the"
                    " prefix right?"
                )
            for number in known[name].partitions:
                place = TopicPartition(name, number, 0)
                if ends:
                    place.offset = self._consumer.get_watermark_offsets(place, TIMEOUT_S)[1]
                places.append(place)
        return places

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def poll(self, wait_s: float) -> list[Inbound]:
        """The next records, values raw; waits at most `wait_s` for the first.

        Raises:
            Unreachable: the client cannot go on.
        """
        found = []
        for message in self._consumer.consume(_READ, wait_s):
            error = message.error()
            if error is not None:
                if error.fatal() or error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise Unreachable(f"Kafka at {self._cluster.bootstrap}: {error.str()}")
                continue
            topic = self._cluster.logical(str(message.topic()))
            place = int(message.partition() or 0), int(message.offset() or 0)
            found.append(inbound(message, topic, *place))
        return found
