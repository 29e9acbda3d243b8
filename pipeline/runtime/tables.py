"""Small compacted topics that a stage keeps whole in memory (suppressions, progress)."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, TopicPartition

from pipeline.domain.errors import Undecodable
from pipeline.runtime.clock import Clock
from pipeline.runtime.fetch import inbound
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.wire import Wire
from pipeline.topology import CATALOGUE

log = logging.getLogger(__name__)

_BATCH: Final = 500


class Tables:
    """The last record of every key of some topics. One thread owns it."""

    def __init__(
        self, cluster: Cluster, wire: Wire, group: str, topics: Sequence[str], clock: Clock
    ) -> None:
        self._wire, self._clock = wire, clock
        self._rows: dict[str, dict[str, dict[str, Any]]] = {topic: {} for topic in topics}
        self._logical = {cluster.real(topic): topic for topic in topics}
        self._consumer = cluster.consumer(
            cluster.group(group) + "-tables", enable_partition_eof=True
        )
        parts = [
            TopicPartition(cluster.real(topic), number, 0)
            for topic in topics
            for number in range(CATALOGUE.topic(topic).partitions)
        ]
        self._loading = {(part.topic, part.partition) for part in parts}
        self._consumer.assign(parts)

    def rows(self, topic: str) -> Mapping[str, Mapping[str, Any]]:
        """The table as of the last `poll`, by record key."""
        return self._rows[topic]

    @property
    def ready(self) -> bool:
        """Whether every topic was read to its end once."""
        return not self._loading

    def load(self, seconds: float) -> None:
        """Reads every topic to its end. Raises TimeoutError when that takes longer."""
        until = self._clock.monotonic() + seconds
        while not self.ready:
            if self._clock.monotonic() > until:
                raise TimeoutError(f"tables {sorted(self._rows)} could not be read in {seconds} s")
            self.poll(0.1)

    def poll(self, wait: float = 0.0) -> None:
        """Takes in what is new."""
        for message in self._consumer.consume(_BATCH, wait):
            part = (str(message.topic()), int(message.partition() or 0))
            error = message.error()
            if error is None:
                record = inbound(message, self._logical[part[0]], part[1], 0)
                self._take(record)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._loading.discard(part)
            else:
                log.info("table %s[%s]: %s", *part, error)

    def _take(self, record: Any) -> None:
        key = (record.key or b"").decode(errors="replace")
        table = self._rows[record.topic]
        if record.value is None:
            table.pop(key, None)
            return
        try:
            table[key] = self._wire.decode(record).value
        except Undecodable as error:
            log.warning("table %s, key %s: %s", record.topic, key, error)

    def close(self) -> None:
        """Ends the client."""
        self._consumer.close()
