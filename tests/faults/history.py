"""Everything the oracle judges, as plain data: what was sent, what the topics hold, what the
provider says. Times are milliseconds since the epoch.

Nothing here comes from inside the pipeline: topics are read by an own read_committed consumer
(reader.py) and the provider's side is its own ledger (pipeline/simulators/ledger.py).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Place = tuple[str, int, int]
"""A topic, a partition and an offset; topic names are the catalogue's, without the prefix."""

MessageStep = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that Kafka acknowledged. `expected` is good, repeat or malformed; `identity` is
    what its idempotency key names (None: no key, so no other request can repeat it)."""

    place: Place
    at: int
    expected: str = "good"
    identity: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a topic; `at` is the broker's append time."""

    topic: str
    partition: int
    offset: int
    at: int
    value: Mapping[str, Any]
    key: bytes | None = None

    @property
    def place(self) -> Place:
        return (self.topic, self.partition, self.offset)


@dataclass(frozen=True, slots=True)
class Request:
    """A request that reached a provider; `line` orders what came in one millisecond. `ended_at` is
    the earliest moment at which the caller can have been done with it: when the answer left, or
    when the provider saw that the caller had given up."""

    line: int
    at: int
    account: str
    key: str
    message_id: str
    step: int
    ended_at: int | None = None
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Handover:
    """The provider gave the message to the person (what it took and lost on the way is none)."""

    at: int
    account: str
    key: str
    message_id: str
    step: int


@dataclass(frozen=True, slots=True)
class Notice:
    """A receipt that the provider sent. `acked_at` is the first 2xx that it got, if any."""

    sent_at: int
    acked_at: int | None
    account: str
    kind: str
    event_id: str
    message_id: str
    step: int
    posts: int = 1
    provider_id: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something done to the pipeline."""

    kind: str  # kill, term, stop, join, leave, hold_silent, hold_reset, replay
    stage: str
    at: int
    until: int


@dataclass(frozen=True, slots=True)
class Rules:
    """What the policy of the run allows."""

    honours_keys: Mapping[str, bool] = field(default_factory=dict)  # by account
    echoes: Mapping[str, bool] = field(default_factory=dict)  # our reference, by account
    accounts_by_channel: Mapping[str, int] = field(default_factory=dict)
    max_tries: Mapping[str, int] = field(default_factory=dict)  # by priority
    requests_per_attempt: int = 3
    timeout_ms: int = 1_000
    slots: int = 128


@dataclass(slots=True)
class History:
    """One run."""

    sent: list[Sent] = field(default_factory=list)
    topics: dict[str, list[Record]] = field(default_factory=dict)
    # What a reader saw while the faults went on: offsets by topic and partition.
    live: dict[tuple[str, int], set[int]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    handovers: list[Handover] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    rules: Rules = field(default_factory=Rules)

    def of(self, *topics: str) -> Iterator[Record]:
        """The records of these topics; a name that ends in `.` stands for all it begins."""
        for name in topics:
            if name.endswith("."):
                for topic, records in self.topics.items():
                    if topic.startswith(name):
                        yield from records
            else:
                yield from self.topics.get(name, ())

    def accepted(self) -> dict[str, list[Record]]:
        """The records of `accepted` by message."""
        return by_message(self.of("accepted."))

    def commands(self) -> dict[str, list[Record]]:
        """Commands by message, in the order in which they were written."""
        found = by_message(self.of("send."))
        for records in found.values():
            records.sort(
                key=lambda record: (record.at, record.value["step"], record.value["try_no"])
            )
        return found

    def outcomes(self) -> dict[str, list[Record]]:
        """The records of `outcomes` by message."""
        return by_message(self.of("outcomes"))

    def heard(self) -> dict[str, list[tuple[int, Notice]]]:
        """The acknowledged receipts of a delivery by message, each with the moment from which the
        pipeline could know whose it is: a provider that gives back only its own id is understood
        once that id is in `references`, and never when its answer was lost."""
        known: dict[tuple[str, str], int] = {}
        for record in self.of("references"):
            name = (record.value["provider"], record.value["provider_message_id"])
            known[name] = min(known.get(name, record.at), record.at)
        found: dict[str, list[tuple[int, Notice]]] = {}
        for notice in self.notices:
            if notice.kind not in ("delivered", "read") or notice.acked_at is None:
                continue
            at: int | None = notice.acked_at
            if not self.rules.echoes.get(notice.account, True):
                named = known.get((notice.account, notice.provider_id))
                at = None if named is None else max(notice.acked_at, named)
            if at is not None:
                found.setdefault(notice.message_id, []).append((at, notice))
        return found

    def kills(self, stage: str) -> int:
        """How often a stage was killed, or stopped beyond its session."""
        return sum(fault.stage == stage and fault.kind in ("kill", "stop") for fault in self.faults)


def by_message(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Records grouped by their message."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.value["message_id"], []).append(record)
    return found


def by_step(records: Iterable[Record]) -> dict[MessageStep, list[Record]]:
    """Records grouped by message and step."""
    found: dict[MessageStep, list[Record]] = {}
    for record in records:
        found.setdefault((record.value["message_id"], record.value["step"]), []).append(record)
    return found


def source_of(record: Record) -> Place | None:
    """The intake record that a message or a rejection comes from."""
    source = record.value.get("source")
    return None if source is None else (source["topic"], source["partition"], source["offset"])
