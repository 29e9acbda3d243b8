"""Questions to a cluster that only `doctor` asks."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaException
from confluent_kafka.admin import ConfigResource, ResourceType  # type: ignore[attr-defined]

from pipeline.runtime import control, positions
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.reader import Unreachable

TIMEOUT_S: Final = 10.0
KEY: Final = b"doctor"

Partition = tuple[str, int, int, int, int]
"""Topic (the cluster's name), number, leader or -1, copies, copies in sync."""


class Checkup:
    """Looks at one cluster. Raises Unreachable when it does not answer."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._admin = cluster.admin()

    def partitions(self) -> tuple[list[int], list[Partition]]:
        """The brokers' ids; every partition of our topics and of Kafka's own.

        Raises:
            Unreachable
        """
        try:
            found = self._admin.list_topics(timeout=TIMEOUT_S)
        except KafkaException as error:
            raise self._unreachable(error) from error
        return sorted(found.brokers), [
            (name, part.id, part.leader, len(part.replicas), len(part.isrs))
            for name, about in sorted(found.topics.items())
            if name.startswith((self._cluster.prefix, "__consumer_offsets", "__transaction_state"))
            for part in about.partitions.values()
        ]

    def broker_settings(self, brokers: Collection[int], names: Collection[str]) -> dict[str, str]:
        """Those of the settings that the brokers tell; where they differ, the largest number.

        Raises:
            Unreachable: also when we may not ask.
        """
        asked = [ConfigResource(ResourceType.BROKER, str(number)) for number in brokers]
        found: dict[str, str] = {}
        try:
            answers = self._admin.describe_configs(asked, request_timeout=TIMEOUT_S)
            for future in answers.values():
                entries: Mapping[str, Any] = positions.result(future)
                for name in names:
                    value = entries[name].value if name in entries else None
                    if value is not None:
                        found[name] = str(max(int(value), int(found.get(name, value))))
        except KafkaException as error:
            raise self._unreachable(error) from error
        return found

    def clock_ahead_ms(self, now: Callable[[], int]) -> int:
        """How much the broker's clock is ahead of `now` (ms), 0 within the time that asking took.

        A broker tells its time only with a record that it appends: a tombstone in `control`, which
        nobody reads and compaction removes.

        Raises:
            Unreachable: it does not take the record.
        """
        said: list[Any] = []
        producer = self._cluster.producer(message_timeout_ms=int(TIMEOUT_S * 1000))
        before = now()
        producer.produce(
            self._cluster.real(control.TOPIC),
            None,
            KEY,
            on_delivery=lambda error, message: said.append((error, message)),
        )
        producer.flush(TIMEOUT_S + 1)
        after = now()
        if not said or said[0][0] is not None:
            why = said[0][0].str() if said else "no answer"
            raise Unreachable(f"{self._cluster.bootstrap}: it does not take a record: {why}")
        kind, stamp = said[0][1].timestamp()
        if kind != TIMESTAMP_LOG_APPEND_TIME:
            raise Unreachable(f"{self._cluster.real(control.TOPIC)} has no append times")
        return int(max(stamp - after, 0) or min(stamp - before, 0))

    def _unreachable(self, error: KafkaException) -> Unreachable:
        return Unreachable(f"{self._cluster.bootstrap}: {error.args[0].str()}")
