"""Where a history comes from: the simulator's ledger and the topics, read from outside."""

import array
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline.domain import reference
from pipeline.runtime.codec import Codec
from pipeline.simulators.ledger import Ledger
from tests.faults.history import Handover, History, Notice, Record, Request
from tests.faults.topics_for_tests import quiet

_HELD_BY_THE_CALLER: Final = ("none",)
_EARLY_MS: Final = 200  # an answer that waits behind its own receipt (script.early_answer_s)

_HEAVY: Final = frozenset(
    {"content", "to", "labels", "raw_value", "raw_key", "message", "detail", "headers", "body"}
)
"""What no check looks at and would fill the memory over hundreds of thousands of messages."""

_STATE: Final = ("message_id", "accepted_offset", "outcome", "command_id")


def from_ledger(history: History, path: Path, keys: Mapping[int, bytes]) -> list[str]:
    """Adds the provider's side; returns the references that name no message of ours."""
    ledger = Ledger.load(path)
    foreign: list[str] = []

    def named(text: str) -> tuple[str, int]:
        found = reference.read(text, keys)
        if found is None:
            foreign.append(text)
            return ("", -1)
        return (sys.intern(found.message_id), found.step)

    hung_up = {name: iter(moments) for name, moments in ledger.hung_up.items()}
    for line, request in enumerate(ledger.requests):
        ended = request.at
        if request.answer in _HELD_BY_THE_CALLER:
            ended = next(hung_up.get((request.account, request.key), iter(())), request.at)
        elif request.behaviour == "early_receipt" and not request.repeat:
            ended += _EARLY_MS
        history.requests.append(
            Request(
                line, request.at, request.account, request.key, *named(request.reference),
                ended, request.answer,
            )
        )  # fmt: skip
    accounts: dict[str, str] = {}
    for handover in ledger.handovers:
        accounts[handover.id] = handover.account
        if handover.reaches:
            history.handovers.append(
                Handover(handover.at, handover.account, handover.key, *named(handover.reference))
            )
    history.notices += _notices(ledger, accounts, named)
    return foreign


def _notices(
    ledger: Ledger, accounts: Mapping[str, str], named: Callable[[str], tuple[str, int]]
) -> Iterable[Notice]:
    """One notice for each receipt event, however often it was sent."""
    grouped: dict[str, list[Any]] = defaultdict(list)
    for receipt in ledger.receipts:
        grouped[receipt.event].append(receipt)
    for event, sent in grouped.items():
        acks = [receipt.acknowledged_at for receipt in sent if receipt.acknowledged_at is not None]
        yield Notice(
            min(receipt.at for receipt in sent),
            min(acks, default=None),
            accounts.get(sent[0].id, ""),
            sent[0].kind,
            event,
            *named(sent[0].reference),
            sum(max(1, receipt.tries) for receipt in sent),
            sent[0].id,
        )


def slim(topic: str, key: bytes | None, value: Mapping[str, Any]) -> dict[str, Any]:
    """What the checks need of a record."""
    if topic == "fallback.changelog":
        if not (key or b"").startswith(b"m:"):
            return {}
        kept = {name: value[name] for name in _STATE}
        kept["steps"] = [{"status": sys.intern(step["status"])} for step in value["steps"]]
        return kept
    return {
        name: sys.intern(item) if type(item) is str else item
        for name, item in value.items()
        if name not in _HEAVY
    }


class Watcher:
    """Reads every topic of a prefix with read_committed while the faults go on: keeps only where
    records stand, and how far each partition has got."""

    def __init__(
        self, bootstrap: str, prefix: str, seconds_between: float = 0.05, *, patient: bool = False
    ) -> None:
        """`patient`: every fetch asks hundreds of partitions, so under a heavy load there are few
        of them, or the broker has no time left for those that it is there for."""
        self.delay_s = 0.4 if patient else 0.1
        """After so long, what stood in a topic has been read."""
        self._patient = patient
        self._bootstrap = bootstrap
        self._prefix = prefix
        self._pause = seconds_between
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, int], array.array[int]] = defaultdict(lambda: array.array("q"))
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self.broken: str | None = None

    def start(self) -> None:
        """Begins at the start of every topic."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the reading."""
        self._stop.set()
        self._thread.join(30)

    def ends(self, topics: Iterable[str]) -> dict[tuple[str, int], int]:
        """The offset behind the last record read, of these topics' partitions that have any."""
        wanted = set(topics)
        with self._lock:
            return {
                place: offsets[-1] + 1
                for place, offsets in self._seen.items()
                if place[0] in wanted
            }

    def seen(self) -> dict[tuple[str, int], set[int]]:
        """Offsets by topic (without the prefix) and partition."""
        with self._lock:
            return {place: set(offsets) for place, offsets in self._seen.items()}

    def total(self, topic: str) -> int:
        """How many records of a topic have been read."""
        with self._lock:
            return sum(len(found) for place, found in self._seen.items() if place[0] == topic)

    def _run(self) -> None:
        consumer = Consumer(
            quiet(
                self._bootstrap,
                group_id=f"{self._prefix}watcher",
                isolation_level="read_committed",
                enable_auto_commit=False,
                auto_offset_reset="error",
                fetch_wait_max_ms=250 if self._patient else 200,
                fetch_min_bytes=1_000_000 if self._patient else 1,
            )
        )
        try:
            consumer.assign(places(self._bootstrap, self._prefix))
            while not self._stop.is_set():
                for message in consumer.consume(2_000, self._pause):
                    if message.error() is not None:
                        self.broken = str(message.error())
                        continue
                    topic = (message.topic() or "").removeprefix(self._prefix)
                    with self._lock:
                        self._seen[topic, message.partition() or 0].append(message.offset() or 0)
        finally:
            consumer.close()


def places(bootstrap: str, prefix: str) -> list[TopicPartition]:
    """Every partition of every topic with this prefix, from its start."""
    metadata = AdminClient(quiet(bootstrap)).list_topics(timeout=20)
    return [
        TopicPartition(name, partition, 0)
        for name, topic in metadata.topics.items()
        if name.startswith(prefix)
        for partition in topic.partitions
    ]


def from_topics(history: History, bootstrap: str, prefix: str, codec: Codec) -> None:
    """Adds every committed record of every topic, decoded; intake stays bytes and is left out.

    Raises:
        TimeoutError: a partition's end was not reached within two minutes without progress.
    """
    consumer = Consumer(
        quiet(
            bootstrap,
            group_id=f"{prefix}oracle",
            isolation_level="read_committed",
            enable_auto_commit=False,
            enable_partition_eof=True,
            auto_offset_reset="error",
        )
    )
    parts = [p for p in places(bootstrap, prefix) if not _raw(p.topic.removeprefix(prefix))]
    unread = {(part.topic, part.partition) for part in parts}
    try:
        consumer.assign(parts)
        patience = time.monotonic() + 120
        while unread:
            for message in consumer.consume(5_000, 0.5):
                patience = time.monotonic() + 120
                name, partition = message.topic() or "", message.partition() or 0
                if message.error() is not None:
                    unread.discard((name, partition))
                    continue
                topic = sys.intern(name.removeprefix(prefix))
                raw = message.value()
                if raw is None:
                    continue
                _, value = codec.decode(raw)
                key = message.key()
                history.topics.setdefault(topic, []).append(
                    Record(
                        topic,
                        partition,
                        message.offset() or 0,
                        message.timestamp()[1],
                        slim(topic, key, value),
                        key[:2] if key else None,
                    )
                )
            if time.monotonic() > patience:
                raise TimeoutError(f"the ends of {sorted(unread)[:5]} were not reached")
    finally:
        consumer.close()


def _raw(topic: str) -> bool:
    return topic.startswith(("intake", "callbacks", "profiles", "recipients"))
