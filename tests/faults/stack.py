"""The whole pipeline on this machine for a fault run: embedded Kafka and ClickHouse, the simulated
provider, a fault proxy before Kafka, and two workers of every stage under the supervisor."""

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import Consumer, TopicPartition

from pipeline.domain import ids
from pipeline.local.clickhouse import EmbeddedClickHouse
from pipeline.local.kafka import EmbeddedKafka
from pipeline.local.ports import HOST, free_port
from pipeline.local.supervisor import Supervisor
from pipeline.runtime.admin import Admin
from pipeline.runtime.codec import Codec
from pipeline.runtime.kafka import Cluster
from tests.faults import config_for_faults
from tests.faults.mutants import STAGES, TRANSACTIONAL
from tests.faults.proxy_process import ProxyProcess
from tests.faults.topics_for_tests import quiet

PREFIX: Final = "faults."
SLOTS: Final = (0, 1)
PROXIED: Final = 1
"""The workers of this slot reach Kafka through the proxy; the others are left alone, which halves
what the proxy costs on two cores."""

READY_S: Final = 120.0


class Stack:
    """Use as a context manager; `folder` holds everything that it makes."""

    def __init__(
        self,
        folder: Path,
        window_s: int,
        mutant: str = "",
        slots: int = 0,
        seed: int = 1,
        java: Sequence[str] = (),
    ) -> None:
        self.folder, self._window_s = folder, window_s
        self.ledger = folder / "ledger.jsonl"
        self.reference_keys = {0: secrets.token_bytes(32)}
        self.exits: list[tuple[str, int]] = []
        self.codec = Codec(None, PREFIX)
        self._mutant, self._slots, self._seed = mutant, slots, seed
        self._pepper = secrets.token_bytes(32)
        self._secret = "whsec_" + ids_text(secrets.token_bytes(24))
        self._gateways = (free_port(), free_port())
        self._simulator = free_port()
        self._kafka = EmbeddedKafka(folder / "kafka", java=java)
        self._clickhouse = EmbeddedClickHouse(folder / "clickhouse")
        self.supervisor = Supervisor(
            folder / "logs", lambda name, status: self.exits.append((name, status))
        )
        self.proxy: ProxyProcess

    @property
    def bootstrap(self) -> str:
        """Kafka itself, past the proxy."""
        return self._kafka.bootstrap

    @property
    def clickhouse_url(self) -> str:
        return self._clickhouse.url

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends everything that still runs."""
        self.supervisor.stop()
        if hasattr(self, "proxy"):
            self.proxy.close()
        self._clickhouse.stop()
        self._kafka.stop()

    def _start(self) -> None:
        self._kafka.start(lambda text: None)
        self._clickhouse.start()
        self.codec.start()
        # A new broker makes its offsets topic when the first group is asked for.
        first = Consumer(quiet(self.bootstrap, group_id=f"{PREFIX}first"))
        first.committed([TopicPartition("none", 0)], 30)
        first.close()
        fingerprint = ids.pepper_fingerprint(self._pepper)
        admin = Admin(Cluster(self.bootstrap, PREFIX), self.codec, fingerprint)
        admin.apply(admin.plan())
        self.proxy = ProxyProcess(self.bootstrap)
        provider = f"http://{HOST}:{self._simulator}"
        gateways = tuple(f"http://{HOST}:{port}" for port in self._gateways)
        self.config, script = config_for_faults.write(
            self.folder, provider, (gateways[0], gateways[1]), self._window_s, self._slots
        )
        self.supervisor.add(
            "simulator",
            [
                sys.executable, "-m", "pipeline.commands.simulate", "generic",
                "--ledger", str(self.ledger), "--port", str(self._simulator),
                "--seed", str(self._seed), "--script", str(script),
            ],
            {config_for_faults.SECRET_NAME: self._secret},
        )  # fmt: skip
        wait_until(lambda: self.provider_stats() is not None, READY_S, "the simulator to answer")
        for stage in STAGES:
            for slot in SLOTS:
                self.add_worker(stage, slot)
        for slot in SLOTS:
            wait_until(lambda slot=slot: self.gateway_ready(slot), READY_S, f"gateway {slot}")  # type: ignore[misc]

    def add_worker(self, stage: str, slot: int, *, guest: bool = False) -> None:
        """Starts a worker; a guest leaves its group when it stops."""
        proxied = slot == PROXIED and stage in TRANSACTIONAL
        argv = [sys.executable, "-m", "tests.faults.worker", stage, str(slot)]
        argv += ["--mutant", self._mutant] if self._mutant else []
        argv += ["--guest"] if guest else []
        bootstrap = self.proxy.address if proxied else self.bootstrap
        port = self._gateways[slot] if slot < len(self._gateways) else free_port()
        self.supervisor.add(worker_name(stage, slot), argv, self.environment(bootstrap, port))

    def environment(self, bootstrap: str = "", port: int = 0) -> dict[str, str]:
        """What a worker, or a command of the product, finds in its environment."""
        keys = ",".join(f"{number}:{key.hex()}" for number, key in self.reference_keys.items())
        return {
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap or self.bootstrap,
            "CLICKHOUSE_URL": self.clickhouse_url,
            "PIPELINE_PREFIX": PREFIX,
            "PIPELINE_CONFIG": str(self.config),
            "PIPELINE_DATA_DIR": str(self.folder / "data"),
            "PIPELINE_PEPPER": self._pepper.hex(),
            "PIPELINE_REFERENCE_KEYS": keys,
            "PIPELINE_GATEWAY_PORT": str(port or self._gateways[0]),
            config_for_faults.SECRET_NAME: self._secret,
        }

    def pid(self, stage: str, slot: int) -> int | None:
        """The worker's process, or None while there is none."""
        return self.supervisor.pids().get(worker_name(stage, slot))

    def provider_stats(self) -> Mapping[str, int] | None:
        """What the simulator says of itself; None when it does not answer."""
        found: Mapping[str, int] | None = fetch_json(f"http://{HOST}:{self._simulator}/stats")
        return found

    def gateway_ready(self, slot: int) -> bool:
        """Whether this gateway takes callbacks."""
        return fetch(f"http://{HOST}:{self._gateways[slot]}/readyz") is not None

    def command(self, *arguments: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Runs a command of the product against this stack."""
        return subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments],
            env={**os.environ, **self.environment()},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )


def worker_name(stage: str, slot: int) -> str:
    """A worker as the supervisor and its log call it."""
    return f"{stage}-{slot}"


def ids_text(raw: bytes) -> str:
    """Base64 with the ordinary alphabet."""
    import base64

    return base64.b64encode(raw).decode()


def fetch(url: str) -> bytes | None:
    """The body of a 200 answer, or None."""
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:
            body: bytes = answer.read()
            return body
    except (urllib.error.URLError, OSError, TimeoutError):
        return None


def fetch_json(url: str) -> Any:
    """The JSON of a 200 answer, or None."""
    body = fetch(url)
    return None if body is None else json.loads(body)


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Polls until `condition` holds.

    Raises:
        TimeoutError: it did not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)
