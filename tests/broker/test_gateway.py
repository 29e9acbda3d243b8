"""The gateway's server against a real broker: 200 means that Kafka has it, whoever dies."""

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, TopicPartition
from confluent_kafka.admin import NewTopic

from pipeline.domain.ports import Account
from pipeline.domain.webhooks import BODY_LIMIT
from pipeline.providers import PROVIDERS
from pipeline.runtime.clock import BrokerClock
from pipeline.runtime.codec import Codec
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.web import WebOptions, run_gateway
from pipeline.stages.gateway import GatewayConfig, receive

PARTITIONS = 2
CODEC = Codec()
KEY = base64.b64encode(b"s" * 32).decode()
SECRET = f"whsec_{KEY}"
ACCOUNT = Account("sms-one", "generic", "sms", "http://127.0.0.1:1", callback_secrets=(SECRET,))
CONFIG = GatewayConfig({ACCOUNT.name: ACCOUNT}, PROVIDERS)
PATH = "/callbacks/sms-one"


@pytest.fixture
def cluster(kafka: str, prefix: str) -> Iterator[Cluster]:
    found = Cluster(kafka, prefix)
    admin = found.admin()
    topic = NewTopic(
        found.real("callbacks"), PARTITIONS, 1, config={"message.timestamp.type": "LogAppendTime"}
    )
    for created in admin.create_topics([topic]).values():
        created.result(15)
    yield found
    for deleted in admin.delete_topics([found.real("callbacks")]).values():
        deleted.result(15)


@contextlib.contextmanager
def serving(cluster: Cluster, config: GatewayConfig = CONFIG, **options: Any) -> Iterator[int]:
    """A server in this process; the port. Fails when it does not stop within its time."""
    stop, is_ready = threading.Event(), threading.Event()
    ports: list[int] = []

    def ready(port: int) -> None:
        ports.append(port)
        is_ready.set()

    def run() -> None:
        run_gateway(
            cluster,
            CODEC,
            partial(receive, config=config),
            BrokerClock(),
            stop,
            WebOptions(port=0, **options),
            ready,
        )

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert is_ready.wait(10)
        yield ports[0]
    finally:
        stop.set()
        thread.join(12)
        assert not thread.is_alive()


def signed(body: bytes, name: str) -> dict[str, str]:
    at = str(int(time.time()))
    digest = hmac.digest(b"s" * 32, f"{name}.{at}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": name,
        "webhook-timestamp": at,
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }


def post(
    port: int, body: bytes, headers: dict[str, str], path: str = PATH
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        response.read()
        return response
    finally:
        connection.close()


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def stored(cluster: Cluster) -> list[dict[str, Any]]:
    """Every callback in the topic, as an outsider reads it."""
    consumer = cluster.consumer(cluster.group("test"), enable_partition_eof=True)
    topic = cluster.real("callbacks")
    found: list[dict[str, Any]] = []
    ends = {
        number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)[1]
        for number in range(PARTITIONS)
    }
    consumer.assign(
        [TopicPartition(topic, number, OFFSET_BEGINNING) for number, end in ends.items() if end]
    )
    deadline = time.monotonic() + 15
    while len(found) < sum(ends.values()):
        assert time.monotonic() < deadline, "the topic could not be read to its end"
        found += [
            CODEC.decode_as("Callback", message.value())
            for message in consumer.consume(500, 0.5)
            if message.error() is None
        ]
    consumer.close()
    return found


def test_two_hundred_means_that_kafka_has_the_bytes(cluster: Cluster) -> None:
    with serving(cluster) as port:
        body = b'{"type": "delivered", "weird": "\xc3\xa9"}'
        response = post(port, body, signed(body, "w-1") | {"Authorization": "Bearer hunter2"})
        assert response.status == 200
        (callback,) = stored(cluster)
    assert callback["body"] == body
    assert callback["provider"] == "sms-one"
    assert abs(callback["received_at"] - time.time() * 1000) < 60_000
    assert "hunter2" not in json.dumps({**callback, "body": ""})
    assert "webhook-signature" not in callback["headers"]


def test_what_is_refused_is_counted_and_not_written(cluster: Cluster) -> None:
    with serving(cluster) as port:
        body = b"{}"
        forged = signed(body, "w-1") | {"webhook-signature": "v1,AAAA"}
        assert post(port, body, forged).status == 401
        assert post(port, body, {}).status == 401
        assert post(port, body, signed(body, "w"), "/callbacks/nobody").status == 404
        packed = signed(body, "w") | {"Content-Encoding": "gzip"}
        assert post(port, body, packed).status == 415
        assert post(port, body, signed(body, "w") | {"X-Long": "y" * 8_000, "Z": "z" * 8_000,
                                                     "W": "w" * 2_000}).status == 431  # fmt: skip
        large = b"x" * (BODY_LIMIT + 1)
        assert post(port, large, signed(large, "w")).status == 413
        assert get(port, PATH)[0] == 405
        assert get(port, "/healthz") == (200, "ok\n")
        until(lambda: get(port, "/readyz") == (200, "ready\n"))
        _, metrics = get(port, "/metrics")
    counts = dict(re.findall(r'result="(\w+)"\} (\d+)', metrics))
    assert counts["wrong_signature"] == "2"
    assert counts["unknown_provider"] == "1"
    assert counts["content_encoding"] == "1"
    assert counts["body_too_large"] == "1"
    assert counts["taken"] == "0"
    assert stored(cluster) == []


def test_a_body_that_never_ends_is_cut_off(cluster: Cluster) -> None:
    """Chunked, so that no length gives it away: the server answers while it still comes."""
    with serving(cluster) as port, socket.create_connection(("127.0.0.1", port), 10) as link:
        link.sendall(
            f"POST {PATH} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
        sent = 0
        answer = b""
        link.settimeout(0.05)
        while not answer and sent < 64 * len(chunk):
            with contextlib.suppress(TimeoutError):
                link.sendall(chunk)
                sent += len(chunk)
            with contextlib.suppress(TimeoutError):
                answer = link.recv(200)
        assert answer.startswith(b"HTTP/1.1 413")
        assert sent < 2 * BODY_LIMIT + len(chunk)


def test_a_slow_sender_is_let_go_and_others_are_served(cluster: Cluster) -> None:
    with serving(cluster, body_timeout_s=0.5, idle_timeout_s=0.5) as port:
        body_missing = socket.create_connection(("127.0.0.1", port), 10)
        body_missing.sendall(
            f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n".encode()
        )
        head_missing = socket.create_connection(("127.0.0.1", port), 10)
        head_missing.sendall(b"POST /callbacks/sms-one HTTP/1.1\r\nHost: a\r\nX-A")
        assert post(port, b"{}", signed(b"{}", "w")).status == 200
        with body_missing, head_missing:
            assert body_missing.recv(100).startswith(b"HTTP/1.1 408")
            head_missing.settimeout(10)
            assert head_missing.recv(100) == b""


def test_what_is_no_http_is_refused(cluster: Cluster) -> None:
    with serving(cluster) as port, socket.create_connection(("127.0.0.1", port), 10) as link:
        link.sendall(b"\x16\x03\x01\x00\xff random bytes\r\n\r\n")
        assert link.recv(100).startswith(b"HTTP/1.0 400")
        assert get(port, "/healzh")[0] == 404


def test_a_fault_of_ours_is_logged_and_the_sender_comes_again(
    cluster: Cluster, expected_errors: Any, caplog: pytest.LogCaptureFixture
) -> None:
    expected_errors.add("a request could not be handled")

    class Broken:
        def verify(self, *_: object) -> bool:
            raise ZeroDivisionError

    broken = GatewayConfig({ACCOUNT.name: ACCOUNT}, {"generic": Broken()})  # type: ignore[dict-item]
    with serving(cluster, config=broken) as port:
        assert post(port, b"{}", signed(b"{}", "w")).status == 500
        assert get(port, "/healthz")[0] == 200
    assert "ZeroDivisionError" in caplog.text


def test_a_body_that_breaks_off_or_is_misframed_is_counted(cluster: Cluster) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\n"
    with serving(cluster) as port:
        with socket.create_connection(("127.0.0.1", port), 10) as link:
            link.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\nnonsense\r\n".encode())
            assert link.recv(100)[:12] in {b"HTTP/1.1 400", b"HTTP/1.0 400"}
        with socket.create_connection(("127.0.0.1", port), 10) as link:
            link.sendall(f"{head}Content-Length: 9\r\n\r\n1".encode())
        until(lambda: 'result="body_cut_off"}' in get(port, "/metrics")[1])
    assert stored(cluster) == []


def test_without_kafka_the_answer_is_later_and_never_ok() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{closed.getsockname()[1]}"
        with serving(Cluster(nobody, "x."), acknowledge_ms=500) as port:
            response = post(port, b"{}", signed(b"{}", "w"))
            assert response.status == 503
            assert int(response.headers["Retry-After"]) >= 1
            assert get(port, "/healthz")[0] == 200
            assert get(port, "/readyz") == (503, "kafka_away\n")
            assert 'result="kafka_away"} 1' in get(port, "/metrics")[1]


def test_more_than_it_bears_is_put_off(cluster: Cluster) -> None:
    with serving(cluster, in_flight=1) as port:
        holding = socket.create_connection(("127.0.0.1", port), 10)
        holding.sendall(f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1".encode())
        with holding:
            until(lambda: post(port, b"{}", signed(b"{}", "w")).status == 503)
        until(lambda: post(port, b"{}", signed(b"{}", "w")).status == 200)


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"


class Worker:
    """A gateway in a process of its own."""

    def __init__(self, cluster: Cluster, port: int) -> None:
        script = Path(__file__).with_name("gateway_process.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), cluster.bootstrap, cluster.prefix, str(port), SECRET],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
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


def test_requests_in_flight_are_finished_after_sigterm(cluster: Cluster) -> None:
    """Half of the body has come when the signal does; the rest is awaited and answered."""
    worker = Worker(cluster, 0)
    body = b'{"half": "and half"}'
    head = "".join(f"{name}: {value}\r\n" for name, value in signed(body, "w-1").items())
    request = f"POST {PATH} HTTP/1.1\r\nHost: a\r\n{head}Content-Length: {len(body)}\r\n\r\n"
    try:
        with socket.create_connection(("127.0.0.1", worker.port), 10) as link:
            link.sendall(request.encode() + body[:8])
            # An answer on another connection shows that the first request was read so far.
            assert get(worker.port, "/healthz")[0] == 200
            started = time.monotonic()
            worker.process.send_signal(signal.SIGTERM)
            until(lambda: refuses(worker.port))
            link.sendall(body[8:])
            assert link.recv(100).startswith(b"HTTP/1.1 200")
        assert worker.process.wait(10) == 0
        assert time.monotonic() - started < 10
    finally:
        worker.end(signal.SIGTERM)
    assert [callback["body"] for callback in stored(cluster)] == [body]


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return True
    return False


def test_nothing_acknowledged_is_lost_when_one_of_two_workers_on_a_port_dies(
    cluster: Cluster,
) -> None:
    """Providers repeat what got no 200. Every 200 stands in the topic, and a repeat keeps its id."""
    workers = [Worker(cluster, 0)]
    port = workers[0].port
    load = Load(port)
    try:
        workers.append(Worker(cluster, port))
        load.wait_for(50)
        workers[0].end(signal.SIGKILL)
        load.wait_for(50)
        workers.append(Worker(cluster, port))
        load.wait_for(50)
        assert workers[1].end(signal.SIGTERM) == 0
        load.wait_for(50)
    finally:
        load.end()
        for worker in workers:
            worker.end(signal.SIGTERM)
    found = stored(cluster)
    assert load.refused <= {503}
    assert load.unanswered > 0, "nothing was in flight when the worker was killed"
    assert len(load.acknowledged) >= 200
    assert {callback["body"] for callback in found} == set(load.acknowledged)
    assert len({callback["callback_id"] for callback in found}) == len(load.acknowledged)


class Load:
    """A provider that sends callbacks until `end`, each one until it is acknowledged."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.acknowledged: list[bytes] = []
        self.refused: set[int] = set()
        self.unanswered = 0
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(6)]
        for thread in self._threads:
            thread.start()

    def wait_for(self, more: int) -> None:
        goal = len(self.acknowledged) + more
        until(lambda: len(self.acknowledged) >= goal, 20)

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(20)

    def _send(self, sender: int) -> None:
        number = 0
        while not self._ended.is_set():
            number += 1
            name = f"w-{sender}-{number}"
            body = json.dumps({"id": name}).encode()
            until(lambda body=body, name=name: self._taken(body, name), 20)  # type: ignore[misc]

    def _taken(self, body: bytes, name: str) -> bool:
        try:
            status = post(self.port, body, signed(body, name)).status
        except (OSError, http.client.HTTPException):
            with self._lock:
                self.unanswered += 1
            return False
        with self._lock:
            if status == 200:
                self.acknowledged.append(body)
            else:
                self.refused.add(status)
        return status == 200
