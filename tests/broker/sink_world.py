"""What the tests of the sink stand on: topics of their own, a database of their own, records of
many kinds written to them, and workers as threads or processes.

As a program it is one worker, which `die_after` INSERTs kills with -9, right behind the last one:
`python -m tests.broker.sink_world BOOTSTRAP PREFIX URL SLOT [DIE_AFTER]`.
"""

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from pipeline.domain import ids
from pipeline.runtime.clickhouse import Store
from pipeline.runtime.codec import Codec
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.sink_batch import Limits
from pipeline.runtime.sink_loop import SinkLoop
from pipeline.stages import sink
from tests.faults.topics_for_tests import quiet, until

TOPICS = {"dispatched": "Event", "delivered": "Event", "late-receipts": "Event"}
PARTITIONS = 4
QUICK = Limits(age_s=0.05, idle_s=0.1, backoff_s=0.05, backoff_max_s=0.3)


def event(number: int, kind: str = "dispatched") -> dict[str, Any]:
    """An event that has a name and little else; the codec fills in the rest."""
    message = f"message-{number}"
    return {
        "event_id": ids.event_id(message, 0, 1, "sim", kind, ""),
        "kind": kind,
        "tenant": "acme",
        "message_id": message,
        "recipient_key": f"recipient-{number % 50}",
        "occurred_at": 1_767_225_600_000 + number,
        "channel": "sms",
        "provider": "sim",
        "country": "DE",
        "cost": 0.05,
        "currency": "EUR",
        "labels": {"team": "shop"},
    }


class DyingStore(Store):
    """Is killed with -9 behind the last INSERT that it may do, before anybody hears of it."""

    left: int | None = None

    def insert(self, table: str, rows: Sequence[Sequence[Any]], token: str) -> None:
        super().insert(table, rows, token)
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class World:
    """One prefix on the broker and one database."""

    cluster: Cluster
    url: str
    topics: Mapping[str, str] = field(default_factory=lambda: TOPICS)
    codec: Codec = field(default_factory=Codec)
    written: set[str] = field(default_factory=set)
    records: int = 0

    def write(self, numbers: Sequence[int], *, transactions: int = 1, abort: bool = True) -> None:
        """Writes an event of every kind for each number, in transactions, with an aborted one
        between them."""
        size = max(1, len(numbers) // transactions)
        producer = self.cluster.transactional(f"{self.cluster.prefix}test")
        producer.init_transactions(20)
        for start in range(0, len(numbers), size):
            if abort:
                producer.begin_transaction()
                self._produce(producer, [-1 - start])
                producer.flush()
                producer.abort_transaction(20)
            producer.begin_transaction()
            self._produce(producer, numbers[start : start + size])
            producer.commit_transaction(20)
        for number in numbers:
            for topic in TOPICS:
                kind = sink.kind_of(topic)
                self.written.add(event(number, kind)["event_id"])
                self.records += 1

    def _produce(self, producer: Any, numbers: Sequence[int]) -> None:
        for number in numbers:
            for topic in TOPICS:
                found = event(number, sink.kind_of(topic))
                producer.produce(
                    self.cluster.real(topic),
                    key=found["recipient_key"],
                    value=self.codec.encode("Event", found),
                )
            producer.poll(0)

    def store(self) -> Store:
        """A connection to the database, for tests."""
        return Store(self.url, sink.COLUMNS)

    def loop(self, slot: int, limits: Limits = QUICK) -> SinkLoop:
        """A worker, not yet running."""
        return SinkLoop(
            self.cluster,
            self.store(),
            self.codec,
            slot,
            self.topics,
            sink.to_row,
            sink.unreadable,
            limits=limits,
        )

    @contextmanager
    def worker(self, slot: int, limits: Limits = QUICK) -> Iterator[SinkLoop]:
        """A worker in a thread, stopped as SIGTERM would."""
        loop, stop = self.loop(slot, limits), threading.Event()
        thread = threading.Thread(target=loop.run, args=(stop,), name=f"sink-{slot}")
        thread.start()
        try:
            yield loop
        finally:
            stop.set()
            thread.join(30)
            assert not thread.is_alive(), "the worker did not stop within 30 s"

    def process(self, slot: int, die_after: int | None = None) -> "subprocess.Popen[bytes]":
        """A worker as a process of its own."""
        argv = [self.cluster.bootstrap, self.cluster.prefix, self.url, str(slot)]
        if die_after is not None:
            argv.append(str(die_after))
        return subprocess.Popen(  # its words go where pytest's go
            [sys.executable, "-m", "tests.broker.sink_world", *argv]
        )

    def ids(self, *, raw: bool = False) -> list[str]:
        """The names of the stored events; with `raw`, of every row that is stored."""
        table = "events" if raw else "events_unique"
        return [row[0] for row in self.store_query(f"SELECT event_id FROM {table}")]

    def store_query(self, sql: str) -> list[tuple[Any, ...]]:
        """The answer to one question."""
        store = self.store()
        try:
            return store.query(sql)
        finally:
            store.close()

    def await_rows(self, seconds: float = 30) -> None:
        """Waits until every written event has a row."""
        until(lambda: len(set(self.ids())) >= len(self.written), seconds, "a row for every event")


@contextmanager
def world(
    kafka: str,
    prefix: str,
    url: str,
    topics: Mapping[str, str] | None = None,
    more: Sequence[str] = (),
) -> Iterator[World]:
    """Topics and a database, both gone afterwards. The sink reads `topics`; `more` are others."""
    topics = topics or TOPICS
    cluster = Cluster(kafka, prefix)
    admin = AdminClient(quiet(kafka))
    config = {"message.timestamp.type": "LogAppendTime"}
    names = [cluster.real(topic) for topic in (*topics, *more)]
    for made in admin.create_topics(
        [NewTopic(name, PARTITIONS, 1, config=config) for name in names]
    ).values():
        made.result(20)
    database = "sink_" + uuid.uuid4().hex[:10]
    found = World(cluster, f"{url.rstrip('/')}/{database}", topics)
    try:
        found.store().migrate()
        yield found
    finally:
        dropper = Store(url)
        dropper.command(f"DROP DATABASE IF EXISTS {database}")
        dropper.close()
        for gone in admin.delete_topics(names).values():
            try:
                gone.result(20)
            except KafkaException:
                continue


def main() -> None:
    bootstrap, prefix, url, slot, *die_after = sys.argv[1:]
    found = World(Cluster(bootstrap, prefix), url)
    store = DyingStore(url, sink.COLUMNS)
    store.left = int(die_after[0]) if die_after else None
    loop = SinkLoop(
        found.cluster,
        store,
        found.codec,
        int(slot),
        TOPICS,
        sink.to_row,
        sink.unreadable,
        limits=Limits(rows=200, age_s=0.05, fetch=100, idle_s=0.1),
    )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    loop.run(stop)


if __name__ == "__main__":
    main()
