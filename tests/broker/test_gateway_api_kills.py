"""Every 202 is in Kafka, whoever is killed: callers repeat what got no answer, under its key."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.python.delivery_client import DeliveryClient
from pipeline.runtime.kafka import Cluster
from tests.broker.api_world import GOOD, SHOP, accepted, topics, written
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
SENDERS = 4


@pytest.fixture
def cluster(kafka: str, prefix: str) -> Iterator[Cluster]:
    found = Cluster(kafka, prefix)
    with topics(found):
        yield found


class Worker:
    """A gateway in a process of its own."""

    def __init__(self, cluster: Cluster, port: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.broker.api_world",
             cluster.bootstrap, cluster.prefix, str(port)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("ready "), line
        self.port = int(line.split()[1])

    def end(self, how: signal.Signals) -> int:
        """Its exit status; may be called again."""
        self.process.send_signal(how)
        try:
            return self.process.wait(12)
        finally:
            self.process.kill()
            assert self.process.stdout is not None
            self.process.stdout.close()


class Load:
    """Callers that send one message after the other until `end`."""

    def __init__(self, port: int) -> None:
        self._client = DeliveryClient(f"http://127.0.0.1:{port}", SHOP.text, tries=12)
        self.told: list[str] = []
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(SENDERS)]
        for thread in self._threads:
            thread.start()

    def wait_for(self, more: int) -> None:
        goal = len(self.told) + more
        until(lambda: len(self.told) >= goal, 20)

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _send(self, sender: int) -> None:
        number = 0
        while not self._ended.is_set():
            number += 1
            key = f"{sender}-{number}"
            self.told.append(self._client.send({**GOOD, "idempotency_key": key}).message_id)


def test_every_message_that_was_taken_is_in_kafka_when_gateways_are_killed(cluster: Cluster):
    workers = [Worker(cluster, 0)]
    port = workers[0].port
    load = Load(port)
    try:
        workers.append(Worker(cluster, port))
        load.wait_for(50)
        assert workers[0].end(signal.SIGKILL) == -signal.SIGKILL
        load.wait_for(50)
        workers.append(Worker(cluster, port))
        load.wait_for(50)
        assert workers[1].end(signal.SIGTERM) == 0
        load.wait_for(50)
    finally:
        load.end()
        for worker in workers:
            worker.end(signal.SIGTERM)
    found = [message["message_id"] for message in accepted(written(cluster, "intake"))]
    assert len(load.told) == len(set(load.told)) >= 200
    assert set(found) == set(load.told)
