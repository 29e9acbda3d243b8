"""A gateway with its HTTP API on a real broker, and a caller.

As a program it is one such gateway: `python -m tests.broker.api_world BOOTSTRAP PREFIX PORT`; it
prints `ready <port>`.
"""

import contextlib
import http.client
import json
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, TopicPartition
from confluent_kafka.admin import NewTopic

from pipeline.domain.api_keys import ID_BYTES, SECRET_BYTES, ApiKey, make
from pipeline.domain.outcomes import Emit, Inbound
from pipeline.domain.ports_api import Api
from pipeline.providers import PROVIDERS
from pipeline.runtime.clickhouse import Store
from pipeline.runtime.clock import BrokerClock
from pipeline.runtime.codec import Codec
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.message_events import MessageEvents
from pipeline.runtime.web import WebOptions, run_gateway
from pipeline.settings import load_config, sample_path
from pipeline.stages import sink
from pipeline.stages.accept import AcceptConfig, accept, world_of
from pipeline.stages.gateway import GatewayConfig, receive
from pipeline.stages.http_intake import HttpIntake

PEPPER: Final = b"0123456789abcdef"
POLICY: Final = load_config(
    sample_path("demo.yaml"),
    environment={"PIPELINE_SIMULATOR_URL": "http://127.0.0.1:9", "PIPELINE_SIMULATOR_SECRET": "x"},
).policy
SHOP: Final = make(b"a" * ID_BYTES, b"b" * SECRET_BYTES)
BANK: Final = make(b"c" * ID_BYTES, b"d" * SECRET_BYTES)
KEYS: Final = {
    SHOP.key_id: ApiKey("shop", bytes.fromhex(SHOP.sha256)),
    BANK.key_id: ApiKey("bank", bytes.fromhex(BANK.sha256)),
}
TOPICS: Final = ("intake", "intake.bulk", "callbacks")
GOOD: Final = {"to": {"phone": "+4915112345678"}, "content": {"text": "Your code is 123456"}}


def intake(keys: Iterator[str] | None = None) -> HttpIntake:
    """The stage; new idempotency keys are numbered."""
    numbers = keys or (f"made-{number}" for number in range(1_000_000))
    return HttpIntake(world_of(POLICY), PEPPER, KEYS, lambda: next(numbers))


@contextlib.contextmanager
def topics(cluster: Cluster) -> Iterator[None]:
    """The topics that a gateway writes, gone afterwards."""
    admin = cluster.admin()
    stamped = {"message.timestamp.type": "LogAppendTime"}
    wanted = [NewTopic(cluster.real(name), 1, 1, config=stamped) for name in TOPICS]
    for created in admin.create_topics(wanted).values():
        created.result(15)
    try:
        yield
    finally:
        for deleted in admin.delete_topics([cluster.real(name) for name in TOPICS]).values():
            deleted.result(15)


@contextlib.contextmanager
def store_of(url: str) -> Iterator[str]:
    """The address of a database with the pipeline's tables, gone afterwards."""
    name = "api_" + uuid.uuid4().hex[:10]
    store = Store(f"{url.rstrip('/')}/{name}")
    store.migrate()
    try:
        yield f"{url.rstrip('/')}/{name}"
    finally:
        store.command(f"DROP DATABASE IF EXISTS {name}")
        store.close()


def stored(url: str, *records: tuple[str, str, dict[str, Any]]) -> None:
    """Puts records (topic, record's name, values; the codec fills in the rest) into the tables, as
    the sink does."""
    codec, store = Codec(), Store(url, sink.COLUMNS)
    rows = []
    for number, (topic, record, value) in enumerate(records):
        whole = codec.decode_as(record, codec.encode(record, value))
        rows.append(sink.to_row(Inbound(topic, 0, number, value["occurred_at"], None, whole), "t"))
    store.insert("events", rows, uuid.uuid4().hex)
    store.close()


@contextlib.contextmanager
def serving(cluster: Cluster, clickhouse: str = "", **options: Any) -> Iterator["Caller"]:
    """A gateway in this process and a caller of it. Fails when it does not stop in time."""
    stop, is_ready = threading.Event(), threading.Event()
    ports: list[int] = []

    def ready(port: int) -> None:
        ports.append(port)
        is_ready.set()

    thread = threading.Thread(
        target=run, args=(cluster, clickhouse, stop, ready, WebOptions(port=0, **options))
    )
    thread.start()
    try:
        assert is_ready.wait(10)
        yield Caller(ports[0])
    finally:
        stop.set()
        thread.join(12)
        assert not thread.is_alive()


def run(
    cluster: Cluster,
    clickhouse: str,
    stop: threading.Event,
    ready: Callable[[int], None],
    options: WebOptions,
) -> None:
    """A gateway until `stop`."""
    run_gateway(
        cluster,
        Codec(),
        partial(receive, config=GatewayConfig({}, PROVIDERS)),
        BrokerClock(),
        stop,
        options,
        ready,
        Api(intake(), MessageEvents(clickhouse)),
    )


@dataclass(frozen=True)
class Answer:
    """What the API said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Caller:
    """Somebody with an API key."""

    port: int
    key: str = SHOP.text

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        sent = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        for name, value in (headers or {}).items():
            sent[name] = value
            if not value:
                del sent[name]
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def post(self, value: Any, headers: dict[str, str] | None = None) -> Answer:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return self.ask("POST", "/v1/messages", body, headers)


def written(cluster: Cluster, topic: str) -> list[Inbound]:
    """Every record of a topic, as accept reads it."""
    consumer = cluster.consumer(cluster.group("test"), enable_partition_eof=True)
    place = TopicPartition(cluster.real(topic), 0)
    end = consumer.get_watermark_offsets(place, timeout=10)[1]
    found: list[Inbound] = []
    if end:
        consumer.assign([TopicPartition(place.topic, 0, OFFSET_BEGINNING)])
    deadline = time.monotonic() + 15
    while len(found) < end:
        assert time.monotonic() < deadline, "the topic could not be read to its end"
        found += [
            Inbound(
                topic,
                0,
                message.offset() or 0,
                message.timestamp()[1],
                message.key(),
                message.value(),
                tuple(message.headers() or ()),
            )
            for message in consumer.consume(500, 0.5)
            if message.error() is None
        ]
    consumer.close()
    return found


def accepted(records: list[Inbound]) -> list[dict[str, Any]]:
    """The messages that accept makes of them; a rejection fails."""
    config = AcceptConfig(POLICY, PEPPER, "cluster", Codec().decode)
    found = []
    for record in records:
        (answer,) = accept(record, config)
        assert isinstance(answer, Emit)
        assert answer.topic.startswith("accepted."), answer.value
        assert answer.value is not None
        found.append(dict(answer.value))
    return found


def together(*calls: Callable[[], Answer]) -> list[Answer]:
    """The answers to calls that are made at the same time."""
    found: list[Answer] = []
    threads = [threading.Thread(target=lambda call=call: found.append(call())) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == len(calls)
    return found


def main(bootstrap: str, prefix: str, port: str) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    run(
        Cluster(bootstrap, prefix),
        "",
        stop,
        lambda found: print("ready", found, flush=True),
        WebOptions(port=int(port)),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
