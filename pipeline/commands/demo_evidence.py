"""What the demo judges by: every topic read from outside after the end, the provider's own ledger,
and what ClickHouse has stored. Gathered here, counted in `demo_figures.py`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pipeline.domain import reference
from pipeline.runtime.clickhouse import Store
from pipeline.runtime.codec import Codec
from pipeline.runtime.reader import Reader
from pipeline.simulators.ledger import Handover, Ledger
from pipeline.stages.sink import kind_of
from pipeline.topology import CATALOGUE

Place = tuple[str, int, int]
"""Topic, partition and offset of a request."""

EVENT_TOPICS: Final = tuple(topic.name for topic in CATALOGUE.inputs("sink"))
COMMAND_TOPICS: Final = tuple(
    topic.name for topic in CATALOGUE if topic.template == "send.{channel}.{lane}"
)
SETTLING: Final = ("delivered", "read")


@dataclass(frozen=True, slots=True)
class Found:
    """One record. `at` is when the broker appended it (ms)."""

    topic: str
    at: int
    value: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A hand-over that the provider reported as delivered or read. `sent_at` is when it first said
    so, `acknowledged_at` when we first answered (ms; None: never)."""

    message_id: str
    step: int
    sent_at: int
    acknowledged_at: int | None


@dataclass(slots=True)
class Evidence:
    """Everything that is known of one run. `sent` has the number of each request by its place;
    `records` hold what is unique by event id, by kind; `commands` by command id."""

    sent: Mapping[Place, int]
    records: dict[str, dict[str, Found]] = field(default_factory=dict)
    commands: dict[str, Found] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    named: dict[str, reference.Named] = field(default_factory=dict)
    foreign: int = 0

    def of(self, kind: str) -> Iterator[Mapping[str, Any]]:
        """The values of every unique event of a kind."""
        return (found.value for found in self.records.get(kind, {}).values())

    def outcomes(self) -> dict[str, Mapping[str, Any]]:
        """Outcomes by message."""
        return {value["message_id"]: value for value in self.of("outcomes")}

    def deliveries(self) -> list[Delivery]:
        """Every hand-over that was reported as delivered or read, once."""
        said: dict[str, tuple[int, int | None]] = {}
        for receipt in self.ledger.receipts:
            if receipt.kind in SETTLING:
                sent, acknowledged = said.get(receipt.id, (receipt.at, None))
                mine = receipt.acknowledged_at
                if acknowledged is None or (mine is not None and mine < acknowledged):
                    acknowledged = mine
                said[receipt.id] = (min(sent, receipt.at), acknowledged)
        return [
            Delivery(named.message_id, named.step, *said[handover.id])
            for handover in {item.id: item for item in self.ledger.handovers}.values()
            if handover.id in said and (named := self.named.get(handover.reference))
        ]

    def reached(self) -> dict[str, list[Handover]]:
        """Hand-overs that the person got, by message."""
        found: dict[str, list[Handover]] = {}
        for handover in self.ledger.handovers:
            named = self.named.get(handover.reference)
            if handover.reaches and named is not None:
                found.setdefault(named.message_id, []).append(handover)
        return found


def identity(kind: str, value: Mapping[str, Any]) -> str:
    """What makes an event that event, wherever it stands: the sink names it the same way."""
    if kind == "accepted":
        source = value["source"]
        place = f"{source['topic']}:{source['partition']}:{source['offset']}"
        return f"{value['message_id']}@{place}"
    return str(value["dead_letter_id" if kind == "dead_letter" else "event_id"])


def gather(
    sent: Mapping[Place, int],
    reader: Reader,
    codec: Codec,
    store: Store,
    ledger: Path,
    keys: Mapping[int, bytes],
) -> Evidence:
    """Reads everything to its end.

    Raises:
        Unreachable, Unavailable, Undecodable: somebody does not answer, or a topic holds no record.
    """
    evidence = Evidence(sent)
    record_of = {topic.name: topic.record for topic in CATALOGUE if topic.name in EVENT_TOPICS}
    for raw in reader.read(reader.ranges((*EVENT_TOPICS, *COMMAND_TOPICS))):
        if raw.topic in record_of:
            value = codec.decode_as(record_of[raw.topic], raw.value)
            kind = kind_of(raw.topic)
            found = Found(raw.topic, raw.timestamp, value)
            evidence.records.setdefault(kind, {}).setdefault(identity(kind, value), found)
        else:
            value = codec.decode_as("Command", raw.value)
            found = Found(raw.topic, raw.timestamp, value)
            evidence.commands.setdefault(value["command_id"], found)
    for kind, count in store.query(
        "SELECT kind, uniqExact(event_id) FROM events_unique GROUP BY kind"
    ):
        evidence.stored[str(kind)] = int(count)
    if ledger.exists():
        evidence.ledger = Ledger.load(ledger)
    name_references(evidence, keys)
    return evidence


def name_references(evidence: Evidence, keys: Mapping[int, bytes]) -> None:
    """Says which message and step each reference in the ledger stands for; `foreign` counts those
    that are not ours."""
    for text in {request.reference for request in evidence.ledger.requests}:
        named = reference.read(text, keys)
        if named is None:
            evidence.foreign += 1
        else:
            evidence.named[text] = named
