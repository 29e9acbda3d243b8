"""The demo's work: sends the requests at a steady rate, and watches from outside until every one has
its answer and the provider owes nothing any more."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pipeline.commands.demo_evidence import COMMAND_TOPICS, EVENT_TOPICS, Place
from pipeline.commands.fleet import Fleet
from pipeline.runtime.codec import Codec
from pipeline.runtime.follow import Follower
from pipeline.runtime.kafka import Cluster
from pipeline.simulators.ledger import Ledger
from pipeline.simulators.people import Asked
from pipeline.stages.sink import kind_of
from pipeline.topology import CATALOGUE

RATE: Final = 200
"""Requests a second: what two cores serve together with the simulator, so that a slow machine does
not push anything over the end of a window."""

BACKLOG: Final = 120
"""Requests that may be on their way to their first provider. A machine that is busy otherwise then
makes the run longer, and not the windows shorter."""

STALLED_S: Final = 75.0
"""Without any new record for so long, nothing will come any more: longer than a command lives."""

REPORTED: Final = ("delivered", "read", "failed")
_POLL_S: Final = 0.1
_LAST_S: Final = 15.0


class NotSent(RuntimeError):
    """Kafka did not take a request; the text says why."""


@dataclass(slots=True)
class Tally:
    """How far the run has come, by unique ids."""

    wanted: int
    sent: dict[Place, int] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)
    rejected: set[str] = field(default_factory=set)
    delivered: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    commands: set[str] = field(default_factory=set)
    answered: set[str] = field(default_factory=set)
    begun: set[str] = field(default_factory=set)
    reports: set[str] = field(default_factory=set)

    @property
    def settled(self) -> int:
        """Requests with their answer."""
        return len(self.rejected) + len(self.delivered) + len(self.failed)

    @property
    def waiting(self) -> int:
        """Requests without one."""
        return len(self.sent) - self.settled

    @property
    def backlog(self) -> int:
        """Requests that have not met a provider yet."""
        return len(self.sent) - len(self.rejected) - len(self.begun)

    def hear(self, kind: str, value: Mapping[str, Any]) -> None:
        """Takes a record; `kind` is `command` for those in send.*."""
        if kind == "accepted":
            self.accepted.add(value["message_id"])
        elif kind == "rejected":
            self.rejected.add(value["event_id"])
        elif kind == "outcomes":
            outcomes = self.delivered if value["status"] == "delivered" else self.failed
            outcomes.add(value["message_id"])
            self.begun.add(value["message_id"])
        elif kind == "command":
            self.commands.add(value["command_id"])
        elif kind in {"dispatched", "failed"} and value["origin"] == "dispatch":
            self.answered.add(value["command_id"])
            self.begun.add(value["message_id"])
        elif kind in REPORTED and value["provider_event_id"]:
            self.reports.add(value["provider_event_id"])


class Run:
    """One run over a fleet that is ready. `shown` is called about ten times a second."""

    def __init__(self, fleet: Fleet, codec: Codec, shown: Callable[[Tally], None]) -> None:
        settings = fleet.settings
        self._fleet, self._codec, self._shown = fleet, codec, shown
        self._cluster = Cluster(
            settings.bootstrap, settings.prefix, settings.security, settings.group_protocol
        )
        self._records = {
            topic.name: topic.record
            for topic in CATALOGUE
            if topic.name in (*EVENT_TOPICS, *COMMAND_TOPICS)
        }
        self.tally = Tally(0)
        self._refused: list[str] = []

    def go(self, requests: Sequence[Asked], rate: int = RATE) -> Tally:
        """Sends everything and returns when all is settled, or nothing moves any more.

        Raises:
            NotSent: Kafka did not take a request.
            Unreachable: Kafka cannot be read.
        """
        self.tally = Tally(len(requests))
        producer = self._cluster.producer(linger_ms=5)
        with Follower(self._cluster, (*EVENT_TOPICS, *COMMAND_TOPICS)) as follower:
            waiting = deque(requests)
            at = moved = time.monotonic()
            while True:
                now = time.monotonic()
                due = min(int((now - at) * rate), BACKLOG - self._begun_late(waiting))
                if due > 0:
                    at = now
                    for _ in range(min(due, len(waiting))):
                        self._send(producer, waiting.popleft())
                producer.poll(0)
                if self._refused:
                    raise NotSent(self._refused[0])
                if self._follow(follower):
                    moved = time.monotonic()
                self._shown(self.tally)
                if not waiting and len(self.tally.sent) == len(requests) and self._settled():
                    return self.tally
                if not waiting and time.monotonic() - moved > STALLED_S:
                    producer.flush(1)
                    return self.tally

    def _begun_late(self, waiting: Sequence[Asked]) -> int:
        """Requests on their way to their first provider, unacknowledged ones included."""
        unacknowledged = self.tally.wanted - len(waiting) - len(self.tally.sent)
        return self.tally.backlog + unacknowledged

    def _send(self, producer: Any, asked: Asked) -> None:
        def reported(error: Any, message: Any) -> None:
            if error is not None:
                self._refused.append(f"request {asked.number}: {error.str()}")
            else:
                place = (asked.topic, int(message.partition()), int(message.offset()))
                self.tally.sent[place] = asked.number

        producer.produce(
            self._cluster.real(asked.topic), asked.value, asked.key, on_delivery=reported
        )

    def _follow(self, follower: Follower) -> bool:
        records = follower.poll(_POLL_S)
        for record in records:
            name = self._records[record.topic]
            kind = "command" if name == "Command" else kind_of(record.topic)
            self.tally.hear(kind, self._codec.decode_as(name, record.value))
        return bool(records)

    def _settled(self) -> bool:
        """Every request answered, every command answered, every receipt heard."""
        tally = self.tally
        if tally.settled < tally.wanted or tally.commands - tally.answered:
            return False
        if self._fleet.owed_receipts() != 0 or self._fleet.simulation is None:
            return False
        return not unheard(self._fleet.simulation.ledger, tally.reports)


def unheard(path: Path, reports: set[str]) -> set[str]:
    """Receipts that were acknowledged and are no event yet."""
    acknowledged = {
        receipt.event
        for receipt in Ledger.load(path).receipts
        if receipt.acknowledged_at is not None and receipt.kind in REPORTED
    }
    return acknowledged - reports


def await_stored(
    count: Callable[[], int], wanted: int, shown: Callable[[], None], patience_s: float = _LAST_S
) -> None:
    """Returns when ClickHouse has `wanted` events, or after a while without any new one: what is
    missing then is found by the comparison."""
    best, since = -1, time.monotonic()
    while True:
        found = count()
        if found >= wanted:
            return
        if found > best:
            best, since = found, time.monotonic()
        if time.monotonic() - since > patience_s:
            return
        shown()
        time.sleep(_POLL_S)
