"""What the bench stands on: a Kafka and a ClickHouse of its own, the topics of what is
measured, and its processes."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from bench.load import PEPPER, Record, blast
from pipeline.domain import ids
from pipeline.local.clickhouse import EmbeddedClickHouse
from pipeline.local.kafka import EmbeddedKafka
from pipeline.local.supervisor import Supervisor
from pipeline.runtime.admin import Admin, ClusterUnusable
from pipeline.runtime.codec import Codec
from pipeline.runtime.kafka import Cluster
from pipeline.topology import CATALOGUE

REFERENCE_KEY: Final = bytes(range(32))
SECRET: Final = "whsec_" + "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"  # of receipts that never leave here
PATIENCE_S: Final = 120.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Ground:
    """Servers and processes of one run; `ground()` makes and ends it."""

    def __init__(self, folder: Path, kafka: EmbeddedKafka, clickhouse: EmbeddedClickHouse) -> None:
        self.folder, self.kafka, self.clickhouse = folder, kafka, clickhouse
        self.codec = Codec()
        self.exits: list[str] = []
        self.supervisor = Supervisor(folder / "logs", lambda name, _: self.exits.append(name))
        self.producer: Producer = Cluster(kafka.bootstrap, "").producer(
            linger_ms=5,
            queue_buffering_max_messages=500_000,
            batch_size=262_144,
            compression_type="none",  # Faust's client cannot read lz4 by itself
        )

    def topics(self, prefix: str, stage: str | None = None) -> Cluster:
        """A cluster with new topics under `prefix`: those of a stage, or all."""
        cluster = Cluster(self.kafka.bootstrap, prefix)
        admin = Admin(cluster, self.codec, ids.pepper_fingerprint(PEPPER))
        try:
            admin.apply(admin.plan(stage))
        except ClusterUnusable:  # a new broker on a busy machine may need a second asking
            admin.apply(admin.plan(stage))
        return cluster

    def database(self, name: str) -> str:
        """The address of a database of this run."""
        return f"{self.clickhouse.url}/{name}"

    def config(self, name: str, document: Mapping[str, Any]) -> Path:
        """Writes a configuration."""
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps(document, indent=2))  # which is YAML too
        return path

    def environment(self, prefix: str, config: Path, port: int = 8080) -> dict[str, str]:
        """What a worker of ours finds in its environment; its rows go to the database that is
        named like the prefix."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap,
            "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
            "SCHEMA_REGISTRY_URL": "",
            "CLICKHOUSE_URL": self.database(prefix.rstrip(".")),
            "PIPELINE_PREFIX": prefix,
            "PIPELINE_CONFIG": str(config),
            "PIPELINE_DATA_DIR": str(self.folder / "data"),
            "PIPELINE_PEPPER": PEPPER.hex(),
            "PIPELINE_REFERENCE_KEYS": f"0:{REFERENCE_KEY.hex()}",
            "PIPELINE_GROUP_PROTOCOL": "classic",
            "PIPELINE_GATEWAY_HOST": "127.0.0.1",
            "PIPELINE_GATEWAY_PORT": str(port),
            "PIPELINE_PUBLIC_URL": "",
            "PIPELINE_SIMULATOR_SECRET": SECRET,
        }

    def worker(self, stage: str, environment: Mapping[str, str], *options: str) -> None:
        """Starts the real worker of a stage, under the stage's name."""
        self.supervisor.add(
            stage, [sys.executable, "-m", "bench.worker", stage, *options], environment
        )

    def program(self, name: str, *argv: str, environment: Mapping[str, str] | None = None) -> None:
        """Starts `python -m argv...` under a name."""
        self.supervisor.add(name, [sys.executable, "-m", *argv], environment or {})

    def end(self, *names: str) -> None:
        """Stops processes in order."""
        for name in names:
            self.supervisor.remove(name)

    def pid(self, name: str) -> int:
        """The process of a name.

        Raises:
            RuntimeError: it does not run.
        """
        if name == "kafka":
            return self.kafka.pid
        if name == "clickhouse":
            return self.clickhouse.pid
        found = self.supervisor.pids().get(name)
        if found is None:
            raise RuntimeError(f"{name} does not run; see {self.folder / 'logs' / name}.log")
        return found

    def cpu_s(self, name: str) -> float:
        """Processor seconds that a process has used, all its threads together."""
        fields = Path(f"/proc/{self.pid(name)}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def check(self) -> None:
        """Raises RuntimeError, with the end of its log, when a process ended by itself."""
        if self.exits:
            log = self.folder / "logs" / f"{self.exits[0]}.log"
            raise RuntimeError(f"{self.exits[0]} ended:\n{log.read_text(errors='replace')[-2000:]}")


class Watcher:
    """Counts what appears in topics, as a reader of committed records sees it."""

    def __init__(self, world: Ground, cluster: Cluster, topics: Sequence[str]) -> None:
        self._check = world.check
        self._consumer: Consumer = cluster.consumer(
            "watcher",
            fetch_wait_max_ms=500,
            queued_min_messages=100_000,
            queued_max_messages_kbytes=262_144,
        )
        parts = [
            TopicPartition(cluster.real(topic), number)
            for topic in topics
            for number in range(CATALOGUE.topic(topic).partitions)
        ]
        for part in parts:
            part.offset = self._end(part)
        self._consumer.assign(parts)

    def _end(self, part: TopicPartition) -> int:
        return int(patiently(lambda: self._consumer.get_watermark_offsets(part))[1])

    def wait_for(self, amount: int, seconds: float = PATIENCE_S) -> float:
        """Waits for so many more records; returns the monotonic time at which the last was here.

        Raises:
            TimeoutError: they did not come.
        """
        seen = 0
        until = time.monotonic() + seconds
        while seen < amount:
            if time.monotonic() > until:
                raise TimeoutError(f"{seen} of {amount} records within {seconds:.0f} s")
            found = self._consumer.consume(min(5_000, amount - seen), 0.05)
            if not found:
                self._check()
            seen += sum(message.error() is None for message in found)
        return time.monotonic()

    def close(self) -> None:
        self._consumer.close()


def patiently(ask: Callable[[], Any], seconds: float = 20.0) -> Any:
    """The answer of a broker that may still be choosing leaders."""
    until = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except KafkaException:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> None:
    """Polls until `condition` holds.

    Raises:
        TimeoutError: it did not.
    """
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.05)


def timed(
    world: Ground, cluster: Cluster, topic: str, records: Sequence[Record], watcher: Watcher
) -> float:
    """Records a second from the first one written to the last result seen."""
    started = time.monotonic()
    blast(world.producer, cluster.real(topic), records)
    return len(records) / (watcher.wait_for(len(records)) - started)


@contextmanager
def ground() -> Iterator[Ground]:
    """Starts the servers; ends and removes everything afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with (
            EmbeddedKafka(folder / "kafka") as kafka,
            EmbeddedClickHouse(folder / "clickhouse") as clickhouse,
        ):
            # A new broker makes its offsets topic when the first group is asked for.
            first = Cluster(kafka.bootstrap, "first.").consumer("first")
            patiently(lambda: first.committed([TopicPartition("none", 0)], 30), 60.0)
            first.close()
            world = Ground(folder, kafka, clickhouse)
            try:
                yield world
            finally:
                world.supervisor.stop()
