"""What the tests of dispatch stand on: topics under a prefix of their own, workers of the real stage
as threads or processes, and readers from outside."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import TopicPartition

from pipeline.channels import render
from pipeline.domain import ids
from pipeline.domain.ports import Account, Capabilities
from pipeline.domain.records import Command, JournalRecord
from pipeline.domain.switches import NONE, Switches
from pipeline.domain.turns import Limits
from pipeline.providers import PROVIDERS
from pipeline.runtime.admin import Admin
from pipeline.runtime.clock import BrokerClock
from pipeline.runtime.codec import Codec
from pipeline.runtime.concurrent import DispatchWorker
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.positions import patiently
from pipeline.stages.dispatch import Dispatch, DispatchConfig
from pipeline.topology import CATALOGUE
from tests.waiting import until

PEPPER = bytes(range(16))
KEY = bytes(range(32))
FAR = 1 << 50
ROOT = Path(__file__).parents[2]


def account(name: str, port: int, *, keys: bool = True, **changes: Any) -> Account:
    """An sms account at a tiny provider."""
    return Account(
        name=name,
        adapter="generic",
        channel=changes.pop("channel", "sms"),
        base_url=f"http://127.0.0.1:{port}/{name}",
        capabilities=Capabilities(honours_keys=keys, echoes_reference=changes.pop("echoes", True)),
        cost=0.05,
        timeout_ms=changes.pop("timeout_ms", 2_000),
        **changes,
    )


def command(number: int, *, recipients: int = 1_000, address: str = "", **changes: Any) -> Command:
    """The command of a number."""
    recipient = ids.recipient_key(PEPPER, "acme", "id", str(number % recipients))
    message = ids.message_id("acme", recipient, str(number))
    return {
        "record_version": 1,
        "tenant": "acme",
        "message_id": message,
        "recipient_key": recipient,
        "command_id": ids.command_id(message, 0, changes.get("try_no", 1)),
        "step": 0,
        "try_no": 1,
        "key_no": 0,
        "channel": "sms",
        "address": address or f"+4915{number:08d}",
        "content": {"text": f"hello {number}", "subject": None, "html": None},
        "country": "DE",
        "category": "transactional",
        "campaign": None,
        "priority": "normal",
        "on_doubt": "wait",
        "window_ms": 60_000,
        "expires_at": FAR,
        "accepted_at": 1,
        "order": number,
        **changes,  # type: ignore[typeddict-item]
    }


def make_worker(
    cluster: Cluster,
    accounts: Sequence[Account],
    slot: int,
    *,
    suppressed: Callable[[str, str, str, str, int], bool] = lambda *_: False,
    switches: Switches = NONE,
    on_step: Callable[[str], None] = str,
    limits: Limits | None = None,
    static: bool = True,
) -> DispatchWorker:
    """The real worker, as the program builds it."""
    config = DispatchConfig(accounts, PROVIDERS, render, PEPPER, 0, KEY)
    return DispatchWorker(
        cluster,
        Codec(),
        Dispatch(config, suppressed, switches),
        slot,
        BrokerClock(),
        limits=limits,
        longest_request_ms=max(one.timeout_ms for one in accounts),
        static=static,
        switches=switches,
        on_step=on_step,
    )


@dataclass
class Running:
    """A worker in a thread."""

    worker: DispatchWorker
    thread: threading.Thread
    stop: threading.Event
    failed: list[BaseException] = field(default_factory=list)

    def end(self) -> None:
        self.stop.set()
        self.thread.join(12)
        assert not self.thread.is_alive(), "the worker did not stop within 12 s"
        assert not self.failed, self.failed


@dataclass
class DispatchWorld:
    """Topics of one prefix, and who works on them."""

    cluster: Cluster
    codec: Codec
    directory: Path
    threads: list[Running] = field(default_factory=list)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, accounts: Sequence[Account], slot: int = 0, **options: Any) -> Running:
        worker = make_worker(self.cluster, accounts, slot, **options)
        stop = threading.Event()
        running = Running(worker, threading.Thread(), stop)

        def run() -> None:
            try:
                worker.run(stop)
            except BaseException as error:  # noqa: BLE001 - told by `end`
                running.failed.append(error)

        running.thread = threading.Thread(target=run, name=f"dispatch-{slot}")
        running.thread.start()
        self.threads.append(running)
        return running

    def spawn(
        self, port: int, slot: int = 0, *, die_at: str = "", nth: int = 1, keys: bool = True
    ) -> subprocess.Popen[str]:
        """A worker in a process, which kills itself at the `nth` time of a step."""
        given = {
            "bootstrap": self.cluster.bootstrap,
            "prefix": self.cluster.prefix,
            "port": port,
            "slot": slot,
            "die_at": die_at,
            "nth": nth,
            "keys": keys,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.broker.dispatch_process", json.dumps(given)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self.processes.append(process)
        return process

    def write(self, commands: Sequence[Command], topic: str = "send.sms.normal") -> None:
        producer = self.cluster.producer(linger_ms=5)
        for value in commands:
            raw = self.codec.encode("Command", value)
            headers = [("traceparent", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01")]
            producer.produce(
                self.cluster.real(topic), raw, value["recipient_key"].encode(), headers=headers
            )
        assert producer.flush(30) == 0

    def write_raw(self, raw: bytes | None, topic: str = "send.sms.normal") -> None:
        producer = self.cluster.producer()
        producer.produce(self.cluster.real(topic), raw, b"somebody", partition=0)
        assert producer.flush(30) == 0

    def journal(self, record: JournalRecord, partition: int) -> None:
        producer = self.cluster.producer()
        raw = self.codec.encode("JournalRecord", record)
        producer.produce(self.cluster.real("dispatch.journal"), raw, partition=partition)
        assert producer.flush(30) == 0

    def read(self, *topics: str) -> list[dict[str, Any]]:
        """Everything that is committed now, with place, key and headers."""
        consumer = self.cluster.consumer("outside", enable_partition_eof=True)
        parts = [
            TopicPartition(self.cluster.real(topic), number)
            for topic in topics
            for number in range(CATALOGUE.topic(topic).partitions)
        ]
        clock = BrokerClock()
        ends = {
            (part.topic, part.partition): patiently(
                clock, lambda part=part: consumer.get_watermark_offsets(part, 10)
            )[1]
            for part in parts
        }
        waiting = {part for part, end in ends.items() if end}
        consumer.assign([TopicPartition(*part, 0) for part in waiting])
        found = []
        while waiting:
            message = consumer.poll(10)
            assert message is not None, f"nothing comes from {sorted(waiting)}"
            part = (str(message.topic()), int(message.partition() or 0))
            if message.error() is not None:
                waiting.discard(part)
                continue
            value = message.value()
            assert value is not None
            place: Mapping[str, Any] = {
                "topic": self.cluster.logical(part[0]),
                "_partition": part[1],
                "_offset": message.offset(),
                "_key": message.key(),
                "_headers": message.headers(),
            }
            found.append({**self.codec.decode(value)[1], **place})
        consumer.close()
        return found

    def results(self, commands: Sequence[Command]) -> list[dict[str, Any]]:
        """The events that these commands ended in."""
        mine = {one["command_id"] for one in commands}
        return [e for e in self.read("dispatched", "failed") if e["command_id"] in mine]

    def finished(self, commands: Sequence[Command], timeout_s: float = 20) -> list[dict[str, Any]]:
        """Waits until each command has an event; two for one command fail."""
        count = len({one["command_id"] for one in commands})

        def found() -> list[dict[str, Any]]:
            events = self.results(commands)
            return events if len({e["command_id"] for e in events}) >= count else []

        events = until(found, timeout_s)
        assert len(events) == count, "a command has two events"
        return events

    def kill_all(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
            process.wait(10)
        self.processes.clear()


@contextmanager
def dispatch_world(bootstrap: str, prefix: str, directory: Path) -> Iterator[DispatchWorld]:
    """A world whose workers are stopped and whose topics are deleted at the end."""
    cluster, codec = Cluster(bootstrap, prefix), Codec()
    admin = Admin(cluster, codec, ids.pepper_fingerprint(PEPPER))
    admin.apply(admin.plan())
    world = DispatchWorld(cluster, codec, directory)
    try:
        yield world
    finally:
        for running in world.threads:
            running.stop.set()
        for running in world.threads:
            running.thread.join(15)
        world.kill_all()
        keeper = cluster.admin()
        names = [n for n in keeper.list_topics(timeout=10).topics if n.startswith(prefix)]
        for future in keeper.delete_topics(names).values():
            future.result()
