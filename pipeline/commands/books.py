"""The books of the pipeline (G10): what is compared, and when it balances. Pure; `audit.py`
gathers the figures."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.domain.records import Ledger

Place = tuple[str, int]
"""A topic (the catalogue's name) and a partition."""

SHOWN: Final = 20
"""How many ids of one problem are shown."""

COUNTS: Final = ("opened", "duplicates", "repeats", "refused", "settled", "open")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that does not balance. `ids` are the first events or messages concerned."""

    what: str
    topic: str
    partition: int | None
    text: str
    ids: tuple[str, ...] = ()


@dataclass(slots=True)
class Compared:
    """One topic. `records` stand in Kafka, `rows` in ClickHouse; `repeated` records came again
    under an id that was there already, which an aborted transaction may cause."""

    records: int = 0
    rows: int = 0
    repeated: int = 0


@dataclass(slots=True)
class Report:
    """What an audit found. `waiting` are accepted messages that fallback has not looked at yet;
    `behind` the partitions that the sink has not stored to the end."""

    totals: dict[str, int] = field(default_factory=dict)
    accepted: int = 0
    outcomes: int = 0
    waiting: int = 0
    topics: dict[str, Compared] = field(default_factory=dict)
    behind: dict[Place, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    full: bool = False

    @property
    def balanced(self) -> bool:
        """Whether everything adds up."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """The report for programs."""
        return {
            "balanced": self.balanced,
            "full": self.full,
            "accepted": self.accepted,
            "outcomes": self.outcomes,
            "waiting": self.waiting,
            **{name: self.totals.get(name, 0) for name in COUNTS},
            "topics": [
                {
                    "topic": topic,
                    "records": found.records,
                    "rows": found.rows,
                    "repeated": found.repeated,
                }
                for topic, found in self.topics.items()
            ],
            "problems": [
                {
                    "what": problem.what,
                    "topic": problem.topic,
                    "partition": problem.partition,
                    "text": problem.text,
                    "ids": list(problem.ids),
                }
                for problem in self.problems
            ],
        }


def totals(ledgers: Mapping[int, Ledger]) -> dict[str, int]:
    """The sums over all tasks."""
    return {name: sum(int(ledger[name]) for ledger in ledgers.values()) for name in COUNTS}


def taken(ledger: Ledger) -> int:
    """How many different accepted records a task has looked at, repeats of ours not counted."""
    return ledger["opened"] + ledger["duplicates"] + ledger["refused"]


def check_accepted(
    ledgers: Mapping[int, Ledger], rows: Mapping[int, int], repeated: Mapping[int, int]
) -> Iterator[Problem]:
    """accepted = opened + duplicates + refused, below each task's positions. `rows` are the
    different accepted events there, `repeated` the records that came again under an id that was
    there already: what fallback made of one of those may be any of its counts."""
    for partition in sorted({*ledgers, *rows}):
        ledger, found = ledgers.get(partition), rows.get(partition, 0)
        if ledger is None:
            if found:
                yield Problem(
                    "accepted", "accepted", partition, f"{found} rows below a position of nobody"
                )
            continue
        again = repeated.get(partition, 0)
        if found == taken(ledger) or (again and found + again == taken(ledger) + ledger["repeats"]):
            continue
        yield Problem(
            "accepted",
            "accepted",
            partition,
            f"{found} accepted events are stored below fallback's positions, but its books say"
            f" {taken(ledger)}: opened {ledger['opened']} + duplicates {ledger['duplicates']} +"
            f" refused {ledger['refused']} (repeats {ledger['repeats']})",
        )


def check_opened(ledgers: Mapping[int, Ledger]) -> Iterator[Problem]:
    """opened = settled + open, and nothing is negative."""
    for partition, ledger in sorted(ledgers.items()):
        if ledger["opened"] != ledger["settled"] + ledger["open"] or ledger["open"] < 0:
            yield Problem(
                "ledger",
                "fallback.changelog",
                partition,
                f"opened {ledger['opened']} is not settled {ledger['settled']} + open"
                f" {ledger['open']}",
            )


def check_outcomes(
    before: Mapping[int, Ledger], after: Mapping[int, Ledger], rows: Mapping[int, int]
) -> Iterator[Problem]:
    """settled = outcomes. Work goes on while we look, so the stored outcomes lie between the books
    as they stood before and after."""
    for partition in sorted({*before, *after, *rows}):
        low = before[partition]["settled"] if partition in before else 0
        high = after[partition]["settled"] if partition in after else low
        found = rows.get(partition, 0)
        if not low <= found <= high:
            span = str(low) if low == high else f"{low} to {high}"
            yield Problem(
                "outcomes",
                "outcomes",
                partition,
                f"{found} outcomes are stored, but fallback's books say {span}",
            )


def check_sets(
    topic: str, kafka: Mapping[str, int], stored: Mapping[str, int]
) -> Iterator[Problem]:
    """Every record has its row. Both map an event's id to its partition; `stored` holds every row
    of the topic."""
    yield from _named("missing", topic, "records have no row in ClickHouse", _apart(kafka, stored))


def check_strangers(
    topic: str, within: Mapping[str, int], kafka: Mapping[str, int]
) -> Iterator[Problem]:
    """Every row stands for a record. `within` holds the rows of the offsets that were read."""
    yield from _named("unknown", topic, "rows stand for no record", _apart(within, kafka))


def _apart(these: Mapping[str, int], those: Mapping[str, int]) -> Mapping[int, Sequence[str]]:
    found: dict[int, list[str]] = {}
    for name, partition in these.items():
        if name not in those:
            found.setdefault(partition, []).append(name)
    return found


def _named(
    what: str, topic: str, text: str, found: Mapping[int, Sequence[str]]
) -> Iterator[Problem]:
    for partition, names in sorted(found.items()):
        yield Problem(what, topic, partition, f"{len(names)} {text}", tuple(sorted(names)[:SHOWN]))


def check_messages(
    ledgers: Mapping[int, Ledger], accepted: int, unsettled: int, strays: Iterable[str]
) -> Iterator[Problem]:
    """The full audit's view by message. `accepted` different messages were accepted below the
    positions; `unsettled` of them have no outcome; `strays` have an outcome and were never
    accepted. Outcomes were counted after the books, so fewer may be unsettled than are open."""
    sums = totals(ledgers)
    if not sums["opened"] <= accepted <= sums["opened"] + sums["refused"]:
        yield Problem(
            "messages",
            "accepted",
            None,
            f"{accepted} different messages were accepted, but {sums['opened']} were opened and"
            f" {sums['refused']} refused",
        )
    if unsettled > sums["open"] + sums["refused"]:
        yield Problem(
            "messages",
            "outcomes",
            None,
            f"{unsettled} accepted messages have no outcome, but only {sums['open']} are open and"
            f" {sums['refused']} were refused",
        )
    names = sorted(strays)
    if names:
        yield Problem(
            "messages",
            "outcomes",
            None,
            f"{len(names)} messages have an outcome and were never accepted",
            tuple(names[:SHOWN]),
        )


def check_states(ledgers: Mapping[int, Ledger], states: Mapping[int, int]) -> Iterator[Problem]:
    """open = the open messages in fallback's state (`states`, by partition)."""
    for partition in sorted({*ledgers, *states}):
        found = states.get(partition, 0)
        said = ledgers[partition]["open"] if partition in ledgers else 0
        if found != said:
            yield Problem(
                "open",
                "fallback.changelog",
                partition,
                f"{found} messages are open in the state, but the books say {said}",
            )
