"""What the tests of the loops stand on: the catalogue's topics under a prefix of their own, workers
of real stages as threads, and readers from outside."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from pipeline.domain import ids
from pipeline.domain.policy import Policy, PriorityPolicy, RetryPolicy, RouteStep
from pipeline.domain.records import Message
from pipeline.domain.switches import NONE, Switches
from pipeline.runtime.admin import Admin
from pipeline.runtime.clock import BrokerClock
from pipeline.runtime.codec import Codec
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.listening import Silence
from pipeline.runtime.observe import NONE as NOBODY
from pipeline.runtime.observe import Unobserved
from pipeline.runtime.stateful import Lane, StatefulWorker
from pipeline.runtime.wire import Wire
from pipeline.stages.fallback import Fallback
from pipeline.topology import CATALOGUE
from tests.faults.topics_for_tests import until

EVENTS = ("delivered", "read", "dispatched", "failed")
PEPPER = bytes(16)
Step = Callable[[str], None]


def policy(window_ms: int = 60_000, blind_hold_ms: int = 60_000) -> Policy:
    """One route, sms then voice, the same for every priority."""
    one = PriorityPolicy(
        window_ms=window_ms,
        deadline_ms=600_000,
        retry=RetryPolicy(3, 100, 1_000),
        on_doubt="wait",
        command_ttl_ms=300_000,
        blind_hold_ms=blind_hold_ms,
    )
    return Policy(
        priorities={"urgent": one, "normal": one, "bulk": one},
        rules=(),
        default_route=(RouteStep("sms"), RouteStep("voice")),
        min_window_ms=0,
    )


@dataclass
class LoopWorld:
    """Topics of one prefix, and who works on them."""

    cluster: Cluster
    codec: Codec
    directory: Path
    progress: Callable[[], tuple[int, int]] = lambda: (1 << 60, 1 << 60)
    workers: dict[int, tuple[StatefulWorker, threading.Thread, threading.Event]] = field(
        default_factory=dict
    )

    def message(self, number: int, recipients: int = 50, **changes: Any) -> Message:
        """The accepted message of a number; the same number is the same request."""
        recipient = ids.recipient_key(PEPPER, "acme", "id", str(number % recipients))
        return {
            "record_version": 1,
            "tenant": "acme",
            "message_id": ids.message_id("acme", recipient, str(number)),
            "recipient_key": recipient,
            "idempotency_hash": None,
            "source": {"topic": "intake", "partition": 0, "offset": number},
            "accepted_at": 0,
            "priority": "normal",
            "category": "transactional",
            "campaign": None,
            "labels": {},
            "to": {"id": None, "phone": f"+49151{number:08d}", "email": None, "country": None},
            "country": "DE",
            "content": {"text": "hello", "subject": None, "html": None},
            "route": None,
            "deadline": 1 << 50,
            "sequence": None,
            "on_doubt": "wait",
            "replay_of": None,
            **changes,  # type: ignore[typeddict-item]
        }

    def write(self, topic: str, record: str, values: Sequence[Mapping[str, Any]]) -> None:
        """Appends records under their recipients."""
        producer = self.cluster.producer(linger_ms=5)
        for value in values:
            raw = self.codec.encode(record, value)
            producer.produce(self.cluster.real(topic), raw, value["recipient_key"].encode())
            producer.poll(0)
        assert producer.flush(30) == 0

    def accept(self, messages: Sequence[Message]) -> None:
        self.write("accepted.normal", "Message", messages)

    def start(
        self,
        slot: int,
        *,
        rules: Policy | None = None,
        on_step: Step = lambda step: None,
        switches: Switches = NONE,
        static: bool = True,
        observed: Unobserved = NOBODY,
    ) -> StatefulWorker:
        """A fallback worker in a thread of its own."""
        clock = BrokerClock()
        worker = StatefulWorker(
            self.cluster,
            Wire(self.cluster, self.codec),
            "fallback",
            Fallback(rules or policy(), lambda *_: False, switches),
            slot,
            self.directory / f"fallback-{slot}",
            clock,
            lanes=[
                Lane((*EVENTS, "profiles"), 5),
                *(Lane((f"accepted.{lane}",), 5) for lane in CATALOGUE.lanes),
            ],
            silence=lambda: Silence(
                self.cluster.admin(),
                [self.cluster.real(topic) for topic in EVENTS],
                self.progress,
                clock,
                switches,
            ),
            static=static,
            switches=switches,
            on_step=on_step,
            observed=observed,
        )
        stop = threading.Event()
        thread = threading.Thread(target=worker.run, args=(stop,), name=f"fallback-{slot}")
        thread.start()
        self.workers[slot] = worker, thread, stop
        return worker

    def stop(self, slot: int) -> None:
        """An orderly stop, within the 10 s that a worker has."""
        _, thread, event = self.workers.pop(slot)
        event.set()
        thread.join(10)
        assert not thread.is_alive(), f"fallback-{slot} did not stop in 10 s"

    def read(self, *topics: str, committed: bool = True) -> list[dict[str, Any]]:
        """Everything that a reader from outside sees now, with place and key."""
        level = "read_committed" if committed else "read_uncommitted"
        consumer = self.cluster.consumer(
            "outside", isolation_level=level, enable_partition_eof=True
        )
        parts = [
            TopicPartition(self.cluster.real(topic), number)
            for topic in topics
            for number in range(CATALOGUE.topic(topic).partitions)
        ]
        ends = {(p.topic, p.partition): _end(consumer, p) for p in parts}
        found = []
        consumer.assign([TopicPartition(*part, 0) for part, end in ends.items() if end])
        waiting = {part for part, end in ends.items() if end}
        while waiting:
            message = consumer.poll(10)
            assert message is not None, f"nothing comes from {sorted(waiting)}"
            part = (str(message.topic()), int(message.partition() or 0))
            if message.error() is not None:
                waiting.discard(part)
                continue
            value = message.value()
            assert value is not None
            found.append(
                {
                    "topic": self.cluster.logical(part[0]),
                    "partition": part[1],
                    "offset": message.offset(),
                    **self.codec.decode(value)[1],
                }
            )
        consumer.close()
        return found

    def appended(self, topic: str) -> int:
        """How many offsets a topic has used: its records and a few transaction markers."""
        consumer = self.cluster.consumer("outside")
        parts = range(CATALOGUE.topic(topic).partitions)
        used = sum(_end(consumer, TopicPartition(self.cluster.real(topic), n)) for n in parts)
        consumer.close()
        return used

    def commands(self) -> list[dict[str, Any]]:
        return self.read("send.sms.normal", "send.voice.normal")


@contextmanager
def loop_world(bootstrap: str, prefix: str, directory: Path) -> Iterator[LoopWorld]:
    """A world whose workers are stopped and whose topics are deleted at the end."""
    cluster, codec = Cluster(bootstrap, prefix), Codec()
    admin = Admin(cluster, codec, ids.pepper_fingerprint(PEPPER))
    admin.apply(admin.plan())
    world = LoopWorld(cluster, codec, directory)
    try:
        yield world
    finally:
        for _, _, stop in world.workers.values():
            stop.set()
        for _, thread, _ in world.workers.values():
            thread.join(15)
        keeper = cluster.admin()
        names = [n for n in keeper.list_topics(timeout=10).topics if n.startswith(prefix)]
        for future in keeper.delete_topics(names).values():
            future.result()


def _end(consumer: Consumer, part: TopicPartition) -> int:
    """The last stable offset; a new partition has no leader for a moment."""
    found: list[int] = []

    def asked() -> bool:
        try:
            found.append(consumer.get_watermark_offsets(part, 10)[1])
        except KafkaException:
            return False
        return bool(found)

    until(asked, 10, f"{part} has a leader")
    return found[0]
