"""A clock, a log and a state in memory, with the manners of the real ones."""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from pipeline.domain.outcomes import Inbound

START_MS: Final = 1_800_000_000_000  # any moment; tests count from here

Headers = tuple[tuple[str, bytes], ...]


def _copied(value: Any) -> Any:
    """A copy that shares nothing that can be changed: records are dictionaries, lists and plain
    values, for which this takes a tenth of the general way's time."""
    if isinstance(value, dict):
        return {key: _copied(part) for key, part in value.items()}
    return [_copied(part) for part in value] if isinstance(value, list) else value


class ManualClock:
    """A clock that moves when it is told to, and never back."""

    def __init__(self, now: int = START_MS) -> None:
        self._now = now

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return self._now

    def monotonic(self) -> float:
        """Seconds."""
        return self._now / 1000

    def observe(self, append_ms: int) -> None:
        """An append time as brokers report it; a later one moves the clock."""
        self._now = max(self._now, append_ms)

    def advance(self, ms: int) -> None:
        """Lets `ms` milliseconds pass."""
        if ms < 0:
            raise ValueError("time does not go back")
        self._now += ms


def murmur2(data: bytes) -> int:
    """Kafka's hash of a record key, unsigned 32 bits."""
    size, mask = len(data), 0xFFFFFFFF
    value = (0x9747B28C ^ size) & mask
    whole = size - size % 4
    for start in range(0, whole, 4):
        word = int.from_bytes(data[start : start + 4], "little") * 0x5BD1E995 & mask
        word = (word ^ word >> 24) * 0x5BD1E995 & mask
        value = (value * 0x5BD1E995 & mask) ^ word
    if size % 4:
        value = (value ^ int.from_bytes(data[whole:], "little")) * 0x5BD1E995 & mask
    value = (value ^ value >> 13) * 0x5BD1E995 & mask
    return value ^ value >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that `murmur2_random` gives a key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


Check = Callable[[str, bytes | None, Any], Any]
"""Takes topic, key and value and gives the value as a reader would see it; raises on a value that
could not be written. A test passes an encode-and-decode here."""


class MemoryLog:
    """Topics and partitions in memory. A topic comes to be with its first record."""

    def __init__(self, clock: ManualClock, partitions: int = 8, check: Check | None = None) -> None:
        self.clock = clock
        self.partitions = partitions
        self._check = check
        self._parts: dict[tuple[str, int], list[Inbound]] = {}
        self._order: list[Inbound] = []
        self._turn = 0

    def append(
        self,
        topic: str,
        key: bytes | str | None,
        value: Any,
        headers: Headers = (),
        partition: int | None = None,
    ) -> Inbound:
        """Adds a record with the clock's time as append time; what was read back of it."""
        raw_key = key.encode() if isinstance(key, str) else key
        if partition is None:
            if raw_key is None:
                self._turn += 1
                partition = self._turn % self.partitions
            else:
                partition = partition_of(raw_key, self.partitions)
        if not 0 <= partition < self.partitions:
            raise ValueError(f"{topic} has no partition {partition}")
        if self._check is not None and value is not None:
            value = self._check(topic, raw_key, value)
        part = self._parts.setdefault((topic, partition), [])
        record = Inbound(
            topic, partition, len(part), self.clock.now(), raw_key, _copied(value), headers
        )
        part.append(record)
        self._order.append(record)
        return record

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Inbound]:
        """At most `limit` records from `offset` on, each with a value of its own."""
        return [
            Inbound(
                record.topic,
                record.partition,
                record.offset,
                record.timestamp,
                record.key,
                _copied(record.value),
                record.headers,
            )
            for record in self._parts.get((topic, partition), [])[offset : offset + limit]
        ]

    def end(self, topic: str, partition: int) -> int:
        """The offset of the next record."""
        return len(self._parts.get((topic, partition), []))

    def records(self, *topics: str) -> list[Inbound]:
        """Every record of these topics (of all, when none is named) in the order of appending."""
        return [record for record in self._order if not topics or record.topic in topics]

    def values(self, *topics: str) -> list[Any]:
        """The same, values only."""
        return [record.value for record in self.records(*topics)]


class MemoryState:
    """One task's state in memory, with the manners of the one on disk (`StateView` and the
    writing side)."""

    def __init__(
        self, task: int, index: Callable[[bytes, Mapping[str, Any]], Sequence[bytes]]
    ) -> None:
        self.task = task
        self._index = index
        self._kept: dict[bytes, dict[str, Any]] = {}
        self._entries: list[bytes] = []
        self._puts: dict[bytes, dict[str, Any] | None] = {}
        self.position = 0

    def get(self, key: bytes) -> dict[str, Any] | None:
        """A dictionary of the caller's own, or None."""
        found: dict[str, Any] | None = _copied(
            self._puts[key] if key in self._puts else self._kept.get(key)
        )
        return found

    def scan(self, prefix: bytes, limit: int, end: bytes | None = None) -> list[bytes]:
        """Index entries that start with `prefix` and come before `end`, in byte order."""
        if limit <= 0:
            return []
        gone: set[bytes] = set()
        added: set[bytes] = set()
        for key, value in self._puts.items():
            gone.update(self._entries_of(key, self._kept.get(key)))
            added.update(self._entries_of(key, value))
        found = sorted(
            entry for entry in added if entry.startswith(prefix) and (end is None or entry < end)
        )[:limit]
        for at in range(bisect_left(self._entries, prefix), len(self._entries)):
            entry = self._entries[at]
            if not entry.startswith(prefix) or (end is not None and entry >= end):
                break
            if len(found) >= limit and entry > found[limit - 1]:
                break
            if entry not in gone and entry not in added:
                insort(found, entry)
                del found[limit:]
        return found

    def _entries_of(self, key: bytes, value: Mapping[str, Any] | None) -> Sequence[bytes]:
        return () if value is None else self._index(key, value)

    def put(self, key: bytes, value: Mapping[str, Any] | None, _raw: bytes | None = None) -> None:
        """Sets or forgets a key in the open transaction."""
        self._puts[key] = None if value is None else _copied(dict(value))

    def changes(self) -> Sequence[tuple[bytes, dict[str, Any] | None]]:
        """What the open transaction wrote: the last value of each key."""
        return [(key, _copied(value)) for key, value in self._puts.items()]

    def commit(self, position: int, _now: int = 0) -> None:
        """Makes the open transaction permanent; `position` is the changelog's after it."""
        for key, value in self._puts.items():
            for entry in self._entries_of(key, self._kept.pop(key, None)):
                del self._entries[bisect_left(self._entries, entry)]
            if value is not None:
                self._kept[key] = value
            for entry in self._entries_of(key, value):
                insort(self._entries, entry)
        self._puts.clear()
        self.position = position

    def rollback(self) -> None:
        """Forgets the open transaction."""
        self._puts.clear()

    def restore(
        self, records: Iterable[tuple[bytes, Mapping[str, Any] | None]], position: int
    ) -> None:
        """Applies changelog records, oldest first."""
        for key, value in records:
            self.put(key, value)
        self.commit(position)

    def content(self) -> dict[bytes, dict[str, Any]]:
        """Everything that is committed."""
        return {key: _copied(value) for key, value in self._kept.items()}
