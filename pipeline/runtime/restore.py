"""Rebuilding a task's state from its changelog after a start, a crash or a move."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline.runtime import observe
from pipeline.runtime.clock import Clock
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.state import Decode, Encode, Index, TaskState

log = logging.getLogger(__name__)

MAX_AGE_MS: Final = 12 * 3_600_000
"""Half of Kafka's default delete.retention.ms. A database older than that could miss tombstones
that are compacted away, and keep what was forgotten."""

_TIMEOUT_S: Final = 15.0
_BATCH: Final = 1_000


def topic_origin(admin: AdminClient, topic: str) -> str:
    """Cluster and topic id: another one means other records under the same offsets."""
    from confluent_kafka import TopicCollection

    described = admin.describe_topics(TopicCollection([topic]), request_timeout=_TIMEOUT_S)
    cluster = admin.describe_cluster(request_timeout=_TIMEOUT_S).result()
    return f"{cluster.cluster_id}/{described[topic].result().topic_id}"


class Restorer:
    """Opens the state of tasks of one stage, as of the end of their changelog."""

    def __init__(
        self,
        cluster: Cluster,
        group: str,
        changelog: str,
        directory: Path,
        clock: Clock,
        codec: tuple[Encode, Decode],
        index: Index,
        observed: observe.Unobserved = observe.NONE,
    ) -> None:
        self.restored = 0
        self._observed = observed
        self._topic = cluster.real(changelog)
        self._directory = directory
        self._clock, self._codec, self._index = clock, codec, index
        self._origin = topic_origin(cluster.admin(), self._topic)
        self._consumer = cluster.consumer(
            cluster.group(group) + "-restore", enable_partition_eof=True
        )

    def open(self, tasks: list[int]) -> Mapping[int, TaskState]:
        """States that hold every committed change. Waits for open transactions to end, at most as
        long as the brokers let one live."""
        states = {}
        for task in tasks:
            state = TaskState(task, self._directory / str(task), *self._codec, self._index)
            if not state.claim(self._origin):
                log.warning("state of %s[%d] was of another topic: wiped", self._topic, task)
            if state.written_at and self._clock.now() - state.written_at > MAX_AGE_MS:
                state.wipe()
                state.claim(self._origin)
            states[task] = state
        started, before = self._clock.monotonic(), self.restored
        try:
            self._catch_up(states)
        except BaseException:
            for state in states.values():
                state.close()
            raise
        self._observed.restored(self.restored - before, self._clock.monotonic() - started)
        return states

    def _catch_up(self, states: Mapping[int, TaskState]) -> None:
        ends = {}
        for task, state in states.items():
            part = TopicPartition(self._topic, task)
            low, high = self._consumer.get_watermark_offsets(part, _TIMEOUT_S)
            if not low <= state.position <= high and state.position:
                log.warning("state of %s[%d] is not in the changelog: wiped", self._topic, task)
                state.wipe()
                state.claim(self._origin)
            if state.position < high:
                ends[task] = high
        self._consumer.assign([TopicPartition(self._topic, t, states[t].position) for t in ends])
        while ends:
            self._observed.turn()
            messages = self._consumer.consume(_BATCH, 0.2)
            records: dict[int, list[tuple[bytes, bytes | None]]] = {}
            reached: dict[int, int] = {}
            for message in messages:
                task, offset = int(message.partition() or 0), int(message.offset() or 0)
                error = message.error()
                if error is None:
                    key = message.key() or b""
                    records.setdefault(task, []).append((key, message.value() or None))
                    reached[task] = offset + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    reached[task] = offset
                else:
                    raise KafkaException(error)
            for task, position in reached.items():
                states[task].restore(records.get(task, []), position)
                self.restored += len(records.get(task, []))
                if task in ends and position >= ends[task]:
                    del ends[task]
        self._consumer.unassign()

    def close(self) -> None:
        """Ends the client."""
        self._consumer.close()
