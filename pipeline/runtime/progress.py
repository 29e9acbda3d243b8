"""How far receipts has listened: written by its workers, read by fallback before it calls a silence
a silence (listening.py)."""

import logging
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, Message
from confluent_kafka.admin import AdminClient

from pipeline.domain.records import RECORD_VERSION, Progress
from pipeline.runtime.clock import Clock
from pipeline.runtime.codec import Codec
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.listening import Ends, Part
from pipeline.runtime.stateful import StatefulWorker

log = logging.getLogger(__name__)

EVERY_S: Final = 0.2
TOPIC: Final = "progress"
_CALLBACKS: Final = ("callbacks",)
_JOINED: Final = ("unmatched", "references")


class ProgressWriter:
    """Publishes, a few times a second, up to when a worker's tasks have turned everything that
    was appended to their inputs into events. Called once a pass by the loop, on its thread."""

    def __init__(self, cluster: Cluster, codec: Codec, clock: Clock) -> None:
        self._cluster, self._codec, self._clock = cluster, codec, clock
        self._admin: AdminClient = cluster.admin()
        self._producer = cluster.producer()
        self._asked: Ends | None = None
        self._asked_tasks: tuple[int, ...] = ()
        self._next_at = 0.0
        self._heard: dict[tuple[int, tuple[str, ...]], int] = {}

    def __call__(self, worker: StatefulWorker) -> None:
        """One pass: asks, compares, publishes, whichever is due; never waits."""
        self._producer.poll(0)
        tasks = tuple(sorted(worker.tasks))
        if tasks != self._asked_tasks:
            self._asked, self._asked_tasks, self._heard = None, tasks, {}
        if not tasks:
            return
        if self._asked is None:
            if self._clock.monotonic() >= self._next_at:
                self._next_at = self._clock.monotonic() + EVERY_S
                parts = [
                    (self._cluster.real(topic), task)
                    for topic in _CALLBACKS + _JOINED
                    for task in tasks
                ]
                self._asked = Ends(self._admin, parts, self._clock.now())
            return
        self._listen(worker, self._asked)

    def _listen(self, worker: StatefulWorker, asked: Ends) -> None:
        ends = asked.offsets()
        if asked.failed:
            self._asked = None
        if ends is None:
            return
        done = True
        for task in self._asked_tasks:
            for topics in (_CALLBACKS, _JOINED):
                if all(self._reached(worker, topic, task, ends) for topic in topics):
                    self._heard[(task, topics)] = asked.asked_at
                else:
                    done = False
        if done or self._clock.monotonic() >= self._next_at:
            self._publish()
        if done:
            self._asked = None

    def _reached(
        self, worker: StatefulWorker, topic: str, task: int, ends: Mapping[Part, int]
    ) -> bool:
        return worker.position(topic, task) >= ends[(self._cluster.real(topic), task)]

    def _publish(self) -> None:
        self._next_at = self._clock.monotonic() + EVERY_S
        for task in self._asked_tasks:
            progress: Progress = {
                "record_version": RECORD_VERSION,
                "tenant": "",
                "stage": "receipts",
                "partition": task,
                "callbacks_through": self._heard.get((task, _CALLBACKS), 0),
                "joined_through": self._heard.get((task, _JOINED), 0),
            }
            self._producer.produce(
                self._cluster.real(TOPIC),
                self._codec.encode("Progress", progress),
                f"receipts/{task}".encode(),
                partition=0,
                on_delivery=self._reported,
            )

    def _reported(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            log.info("publishing progress: %s", error)
        elif message.timestamp()[0] == TIMESTAMP_LOG_APPEND_TIME:
            self._clock.observe(message.timestamp()[1])


def listened(rows: Mapping[str, Mapping[str, Any]], tasks: int) -> tuple[int, int]:
    """Up to when all of receipts' tasks have worked through callbacks, and through what they join;
    0 while one of the `tasks` has said nothing yet."""
    mine = [row for row in rows.values() if row["stage"] == "receipts"]
    if len(mine) < tasks:
        return 0, 0
    return (
        min(row["callbacks_through"] for row in mine),
        min(row["joined_through"] for row in mine),
    )
