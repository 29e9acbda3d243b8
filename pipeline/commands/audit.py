"""`pipeline audit`: do the books balance?

Three parties are asked: fallback's own ledger, Kafka read from outside, and ClickHouse. Every
record that stood in a topic when the audit began must have its row, every accepted message must be
in the ledger, and every settled one must have its outcome.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from pipeline.commands import books
from pipeline.commands.books import Compared, Place, Problem, Report
from pipeline.commands.caught_up import await_sink
from pipeline.commands.connections import UNABLE, Unable, codec_of, reader_of, store_of
from pipeline.domain.errors import BadInput, Undecodable
from pipeline.domain.outcomes import Inbound
from pipeline.domain.records import Ledger
from pipeline.runtime.clickhouse import Refused, Store, Unavailable
from pipeline.runtime.codec import Codec
from pipeline.runtime.reader import Range, Reader, Unreachable
from pipeline.runtime.registry import RegistryRefused, RegistryUnavailable
from pipeline.settings import Settings, load_settings
from pipeline.stages import sink
from pipeline.topology import CATALOGUE

app = App(name="audit", help="Compare fallback's ledger, Kafka and ClickHouse.")

OK: Final = 0
BAD: Final = 1

CHANGELOG: Final = "fallback.changelog"
LEDGER: Final = b"ledger"
WAIT_S: Final = 30.0

Say = Callable[[str], None]
Json = Annotated[bool, Parameter(name="--json", negative="")]
Full = Annotated[bool, Parameter(name="--full", negative="")]
Wait = Annotated[float, Parameter(name="--wait")]


@app.default
def audit(*, full: Full = False, as_json: Json = False, wait: Wait = WAIT_S) -> int:
    """Say whether the books balance. Exit status 0: they do; 1: they do not; 2: nobody knows.

    Args:
        full: Compare the ids of every event and message, not only their numbers.
        as_json: For programs.
        wait: Seconds to give the sink for what is on its way.
    """
    try:
        report = run(load_settings(), full=full, wait=wait, say=_progress(as_json))
    except (BadInput, Unable, Unreachable, Unavailable, Refused) as error:
        print(f"pipeline audit: {error}", file=sys.stderr)
        return UNABLE
    except (RegistryRefused, RegistryUnavailable) as error:
        print(f"pipeline audit: schema registry: {error}", file=sys.stderr)
        return UNABLE
    if as_json:
        print(json.dumps(report.as_dict(), indent=2))
    else:
        show(report)
    return OK if report.balanced else BAD


def run(
    settings: Settings, *, full: bool = False, wait: float = WAIT_S, say: Say = lambda _: None
) -> Report:
    """The whole audit.

    Raises:
        BadInput, Unable, Unreachable, Unavailable, Refused, RegistryUnavailable: it could not be
            done; the text says why.
    """
    store = store_of(settings)
    try:
        with reader_of(settings) as reader:
            return _Audit(reader, store, codec_of(settings), say).run(full=full, wait=wait)
    finally:
        store.close()


@dataclass(slots=True)
class _Books:
    """What one reading of fallback's changelog gave."""

    ledgers: dict[int, Ledger]
    open: dict[int, int]


class _Audit:
    def __init__(self, reader: Reader, store: Store, codec: Codec, say: Say) -> None:
        self._reader, self._store, self._codec, self._say = reader, store, codec, say
        self._topics = {topic.name: topic.record for topic in CATALOGUE.inputs("sink")}
        self._ids: dict[str, str] = {}
        self._report = Report()

    def run(self, *, full: bool, wait: float) -> Report:
        report = self._report
        report.full = full
        self._ids = self._reader.topic_ids(self._topics)
        before = self._books(states=full)
        ranges = self._reader.ranges(self._topics)
        report.behind = await_sink(self._reader, ranges, wait, self._say)
        repeated = self._compare(ranges, full=full)
        after = self._books(states=False)
        self._balance(before, after, ranges, repeated)
        if full:
            self._by_message(before.ledgers, ranges)
            report.problems += books.check_states(before.ledgers, before.open)
        if report.problems and report.behind:
            behind = sum(report.behind.values())
            text = f"the sink has {behind} offsets to go after {wait:.0f} s; does it run?"
            report.problems.insert(0, Problem("behind", "every topic", None, text))
        return report

    # What the parties say

    def _books(self, *, states: bool) -> _Books:
        """The last ledger of each task, and with `states` how many messages its state has open.

        Below the stable end a transaction is there whole, so ledger and states are of one moment.
        """
        ledgers: dict[int, Ledger] = {}
        opened: dict[int, set[bytes]] = {}
        for record in self._reader.read(self._reader.ranges([CHANGELOG])):
            key = record.key or b""
            if key == LEDGER and record.value is not None:
                ledgers[record.partition] = self._decode("Ledger", record)  # type: ignore[assignment]
            elif states and key.startswith(b"m:"):
                held = opened.setdefault(record.partition, set())
                status = None
                if record.value is not None:
                    status = self._decode("MessageState", record)["status"]
                (held.add if status == "open" else held.discard)(key)
        return _Books(ledgers, {partition: len(keys) for partition, keys in opened.items()})

    def _decode(self, record: str, found: Inbound) -> dict[str, Any]:
        try:
            return self._codec.decode_as(record, found.value)
        except Undecodable as error:
            raise Unable(f"{found.topic}[{found.partition}]@{found.offset}: {error}") from error

    def _rows(self, condition: str) -> list[tuple[Any, ...]]:
        """Unique events by topic and partition, of the topics as they are now."""
        return self._store.query(
            "SELECT _topic, _partition, count() FROM events_unique"
            f" WHERE {_OURS} AND {condition} GROUP BY 1, 2",
            {"ids": sorted(self._ids.values())},
        )

    def _messages(self, kind: str, condition: str) -> set[str]:
        """The ids of the messages of one kind of row."""
        found = self._store.query(
            f"SELECT DISTINCT message_id FROM events WHERE {_OURS} AND kind = '{kind}'"
            f" AND {condition}",
            {"ids": sorted(self._ids.values())},
        )
        return {name for (name,) in found}

    def _compare(self, ranges: Mapping[Place, Range], *, full: bool) -> dict[Place, int]:
        """Kafka against ClickHouse, record by record; returns the repeated records by place."""
        records = self._count(ranges)
        rows = {(topic, number): n for topic, number, n in self._rows(_within(ranges))}
        repeated: dict[Place, int] = {}
        for topic in self._topics:
            places = [place for place in ranges if place[0] == topic]
            found = Compared(
                records=sum(records[place] for place in places),
                rows=sum(rows.get(place, 0) for place in places),
            )
            self._report.topics[topic] = found
            if full or any(records[place] != rows.get(place, 0) for place in places):
                seen = self._compare_ids(topic, {place: ranges[place] for place in places})
                found.repeated = sum(seen.values())
                repeated.update(seen)
        return repeated

    def _count(self, ranges: Mapping[Place, Range]) -> Counter[Place]:
        found: Counter[Place] = Counter()
        for record in self._reader.read(ranges):
            found[record.topic, record.partition] += 1
            if found.total() % 100_000 == 0:
                self._say(f"{found.total()} records read")
        return found

    def _compare_ids(self, topic: str, ranges: Mapping[Place, Range]) -> Counter[Place]:
        self._say(f"comparing the ids of {topic}")
        kafka: dict[str, int] = {}
        repeated: Counter[Place] = Counter()
        for record in self._reader.read(ranges):
            name = self._name(record)
            if name in kafka:
                repeated[topic, record.partition] += 1
            kafka[name] = record.partition
        ids = {"id": self._ids[topic]}
        stored: dict[str, int] = {}
        within: dict[str, int] = {}
        for name, number, offset in self._store.query(
            "SELECT event_id, _partition, _offset FROM events WHERE _topic_id = {id:String}", ids
        ):
            stored[name] = number
            low, end = ranges.get((topic, number), (0, 0))
            if low <= offset < end:
                within[name] = number
        self._report.problems += books.check_sets(topic, kafka, stored)
        self._report.problems += books.check_strangers(topic, within, kafka)
        return repeated

    def _name(self, record: Inbound) -> str:
        """What the sink calls the record."""
        try:
            value = self._codec.decode_as(self._topics[record.topic], record.value)
            return str(sink.to_row(record.holding(value), "")[0])
        except Undecodable as error:
            return str(sink.unreadable(record, "", error.code)[0])
        except (LookupError, TypeError, ValueError, ArithmeticError):
            return str(sink.unreadable(record, "", "internal")[0])

    # What must add up

    def _balance(
        self,
        before: _Books,
        after: _Books,
        ranges: Mapping[Place, Range],
        repeated: Mapping[Place, int],
    ) -> None:
        report, ledgers = self._report, before.ledgers
        report.totals = books.totals(ledgers)
        positions = _positions(ledgers)
        accepted = self._rows(f"kind = 'accepted' AND {_below(positions)}")
        again: Counter[int] = Counter()
        for (topic, number), n in repeated.items():
            if topic.startswith("accepted."):
                again[number] += n
        rows = _by_partition(accepted)
        report.accepted = sum(rows.values())
        report.waiting = sum(
            max(0, end - positions.get(place, 0))
            for place, (_, end) in ranges.items()
            if place[0].startswith("accepted.")
        )
        stored = self._rows(f"kind = 'outcomes' AND {_below(_ends(ranges))}")
        outcomes = _by_partition(stored)
        report.outcomes = sum(outcomes.values())
        report.problems += books.check_accepted(ledgers, rows, again)
        report.problems += books.check_opened(ledgers)
        report.problems += books.check_outcomes(ledgers, after.ledgers, outcomes)
        report.problems += self._doubled()

    def _doubled(self) -> list[Problem]:
        """No event has two rows that readers see."""
        found = self._store.query(
            "SELECT _topic, event_id FROM events_unique WHERE "
            + _OURS
            + " GROUP BY _topic, event_id HAVING count() > 1 ORDER BY 1, 2 LIMIT {most:UInt32}",
            {"ids": sorted(self._ids.values()), "most": books.SHOWN},
        )
        return [
            Problem("doubled", topic, None, "an event has two rows", (name,))
            for topic, name in found
        ]

    def _by_message(self, ledgers: Mapping[int, Ledger], ranges: Mapping[Place, Range]) -> None:
        """Outcomes are read before accepted, so that none can seem to have come from nowhere."""
        settled = self._messages("outcomes", _below(_ends(ranges)))
        accepted = self._messages("accepted", _below(_positions(ledgers)))
        ever = self._messages("accepted", "1")
        self._report.problems += books.check_messages(
            ledgers, len(accepted), len(accepted - settled), settled - ever
        )


_OURS: Final = "_topic_id IN {ids:Array(String)}"


def _looked_up(offsets: Mapping[Place, int]) -> str:
    """SQL for the offset of a row's topic and partition, 0 where there is none. Spelled out,
    because parameters travel in the address, which would become too long."""
    names = ", ".join(f"'{topic}:{number}'" for topic, number in offsets)
    ends = ", ".join(str(offset) for offset in offsets.values())
    place = "concat(_topic, ':', toString(_partition))"
    return f"transform({place}, [{names}], [{ends}], 0)" if offsets else "0"


def _below(offsets: Mapping[Place, int]) -> str:
    return f"_offset < {_looked_up(offsets)}"


def _ends(ranges: Mapping[Place, Range]) -> dict[Place, int]:
    return {place: end for place, (_, end) in ranges.items()}


def _within(ranges: Mapping[Place, Range]) -> str:
    lows = {place: low for place, (low, _) in ranges.items()}
    return f"{_below(_ends(ranges))} AND _offset >= {_looked_up(lows)}"


def _positions(ledgers: Mapping[int, Ledger]) -> dict[Place, int]:
    return {
        (topic, partition): offset
        for partition, ledger in ledgers.items()
        for topic, offset in ledger["positions"].items()
        if topic.startswith("accepted.")
    }


def _by_partition(rows: list[tuple[Any, ...]]) -> Counter[int]:
    found: Counter[int] = Counter()
    for _, number, count in rows:
        found[number] += count
    return found


def _progress(as_json: bool) -> Say:
    """Progress goes to a person's terminal, and nowhere else."""
    if as_json or not sys.stderr.isatty():
        return lambda _: None
    console = Console(stderr=True, highlight=False)
    return lambda text: console.print(text, end="\r", markup=False)


def show(report: Report) -> None:
    """The report for people."""
    console = Console(highlight=False)
    table = Table("topic", "records", "rows", "repeated", box=None, pad_edge=False)
    for topic, found in report.topics.items():
        table.add_row(topic, str(found.records), str(found.rows), str(found.repeated))
    console.print(table)
    sums = report.totals
    console.print(
        f"accepted {report.accepted} = opened {sums['opened']} + duplicates {sums['duplicates']}"
        f" + refused {sums['refused']}; opened {sums['opened']} = settled {sums['settled']}"
        f" + open {sums['open']}; outcomes {report.outcomes}; waiting {report.waiting}",
        soft_wrap=True,
    )
    for problem in report.problems:
        place = (
            problem.topic if problem.partition is None else f"{problem.topic}[{problem.partition}]"
        )
        console.print(f"{place}: {problem.text}", markup=False, soft_wrap=True)
        for name in problem.ids:
            console.print(f"  {name}", markup=False, soft_wrap=True)
    console.print("The books balance." if report.balanced else "The books do not balance.")
