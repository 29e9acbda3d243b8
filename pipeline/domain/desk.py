"""Where a stage works on several state entries for one record: a view of the state with the
stage's own changes on top, and the answers that it has collected."""

from collections.abc import Mapping
from typing import Any

from pipeline.domain.outcomes import Answer, Emit, Put
from pipeline.domain.ports_stage import StatefulStage, StateView


class Desk:
    """One record's work. Entries handed out by `get` are the stage's to change and `put` back."""

    def __init__(self, stage: StatefulStage, state: StateView) -> None:
        self.task = state.task
        self._stage, self._state = stage, state
        self._values: dict[bytes, dict[str, Any] | None] = {}
        self._before: dict[bytes, frozenset[bytes]] = {}
        self._changed: list[bytes] = []
        self._emits: list[Emit] = []

    def get(self, key: bytes) -> dict[str, Any] | None:
        """The entry as it stands now; the same dictionary every time."""
        if key not in self._values:
            value = self._state.get(key)
            self._values[key] = value
            self._before[key] = self._entries(key, value)
        return self._values[key]

    def put(self, key: bytes, value: dict[str, Any] | None) -> None:
        """Sets or forgets an entry."""
        self.get(key)
        self._values[key] = value
        if key not in self._changed:
            self._changed.append(key)

    def emit(
        self,
        topic: str,
        key: str | None,
        value: Mapping[str, Any],
        headers: tuple[tuple[str, bytes], ...] = (),
        partition: int | None = None,
    ) -> None:
        """Writes a record."""
        self._emits.append(Emit(topic, key, value, headers, partition))

    def scan(self, prefix: bytes, limit: int) -> list[bytes]:
        """Index entries that start with `prefix`, in byte order, as they stand now."""
        gone: set[bytes] = set()
        new: set[bytes] = set()
        for key, value in self._values.items():
            now = self._entries(key, value)
            gone |= self._before[key] - now
            new |= now - self._before[key]
        found = [e for e in self._state.scan(prefix, limit + len(gone)) if e not in gone]
        found += [entry for entry in new if entry.startswith(prefix)]
        return sorted(set(found))[:limit]

    def answers(self) -> list[Answer]:
        """Everything written and everything put, as it stands now."""
        return [*self._emits, *(Put(key, self._values[key]) for key in self._changed)]

    def _entries(self, key: bytes, value: Mapping[str, Any] | None) -> frozenset[bytes]:
        return frozenset() if value is None else frozenset(self._stage.index(key, value))
