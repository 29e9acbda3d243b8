"""What the sink holds between two INSERTs, and how it gets into ClickHouse exactly once."""

from calendar import timegm
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from pipeline.runtime.clickhouse import Refused, Store, Unavailable, token_of
from pipeline.runtime.clock import Clock

TABLE: Final = "events"

Row = tuple[Any, ...]
"""Ends in topic (the catalogue's name), topic id, partition, offset and append time."""

Place = tuple[str, int]
"""Topic (the catalogue's name) and partition."""

TOPIC, TOPIC_ID, PARTITION, OFFSET, APPENDED = -5, -4, -3, -2, -1


@dataclass(frozen=True, slots=True)
class Limits:
    """When a batch is inserted, and how long to wait for what is away.

    An INSERT costs about the same for one row as for a thousand, so a batch waits for `age_s`
    and for as long as keeps INSERTs below `share` of the time, `age_max_s` at most.
    """

    rows: int = 50_000
    age_s: float = 0.2
    age_max_s: float = 2.0
    share: float = 0.1
    fetch: int = 5_000
    idle_s: float = 0.5
    backoff_s: float = 0.1
    backoff_max_s: float = 5.0


class Batch:
    """Rows in the order in which they were read; those of one partition by offset.

    `wait(tries, why)` passes the time while ClickHouse is away and may take partitions away;
    `owned(place)` says whether a partition is still ours.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        limits: Limits,
        wait: Callable[[int, str], None],
        owned: Callable[[Place], bool],
    ) -> None:
        self._store, self._clock, self._limits = store, clock, limits
        self._wait, self._owned = wait, owned
        self._rows: list[Row] = []
        self._first_at = 0.0
        self._insert_s = 0.0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Row) -> None:
        """Takes one row more."""
        if not self._rows:
            self._first_at = self._clock.monotonic()
        self._rows.append(row)

    def drop(self, places: set[Place]) -> None:
        """Forgets the rows of partitions that are somebody else's now."""
        self._rows = [row for row in self._rows if place_of(row) not in places]

    def due_in(self) -> float:
        """Seconds until the rows should be stored; 0 or less when they should be now."""
        limits = self._limits
        if len(self._rows) >= limits.rows:
            return 0.0
        age = min(max(limits.age_s, self._insert_s / limits.share), limits.age_max_s)
        return self._first_at + age - self._clock.monotonic()

    def flush(self) -> int:
        """Stores every row that is still ours and returns how many those were. Tables are split
        by month, so an INSERT holds rows of one month."""
        stored = 0
        while self._rows:
            end = _end_of_month(self._rows)
            rows, self._rows = self._rows[:end], self._rows[end:]
            stored += self._insert([row for row in rows if self._owned(place_of(row))])
        return stored

    def _insert(self, rows: list[Row]) -> int:
        """Tries until every row is there, or its partition is somebody else's.

        After an answer that did not come, the positions say what is there, and the rates are fed
        with it. Should the server have remembered the token without the rows, the positions show
        that too, and another token is taken.
        """
        tries = 0
        stored = 0
        while rows:
            started = self._clock.monotonic()
            try:
                if tries:
                    self._store.complete_rates([row[TOPIC_ID] for row in rows])
                    left = self._missing(rows)
                    stored += len(rows) - len(left)
                    rows = left
                    if not rows:
                        break
                self._store.insert(TABLE, rows, token(rows, salt=tries // 2))
            except (Unavailable, Refused) as error:
                tries += 1
                self._wait(tries, str(error))
                rows = [row for row in rows if self._owned(place_of(row))]
                continue
            self._insert_s = self._clock.monotonic() - started
            if not tries:
                return len(rows)
            tries += 1
        return stored

    def _missing(self, rows: list[Row]) -> list[Row]:
        found = self._store.positions(sorted({row[TOPIC_ID] for row in rows}))
        return [row for row in rows if row[OFFSET] >= found.get((row[TOPIC_ID], row[PARTITION]), 0)]


def place_of(row: Row) -> Place:
    """Where the record of a row stands."""
    return row[TOPIC], row[PARTITION]


def token(rows: Sequence[Row], salt: int = 0) -> str:
    """The deduplication token of an INSERT of these rows (see `token_of`)."""
    ranges: dict[tuple[str, int], tuple[int, int]] = {}
    for row in rows:
        part = (row[TOPIC_ID], row[PARTITION])
        ranges[part] = (ranges[part][0] if part in ranges else row[OFFSET], row[OFFSET])
    return token_of(ranges, [row[0] for row in rows], salt)


def _end_of_month(rows: Sequence[Row]) -> int:
    """How many of the first rows were appended in the month (UTC) of the very first one."""
    first = datetime.fromtimestamp(rows[0][APPENDED] / 1000, UTC)
    start = timegm((first.year, first.month, 1, 0, 0, 0)) * 1000
    end = timegm((first.year + first.month // 12, first.month % 12 + 1, 1, 0, 0, 0)) * 1000
    for number, row in enumerate(rows):
        if not start <= row[APPENDED] < end:
            return number
    return len(rows)
