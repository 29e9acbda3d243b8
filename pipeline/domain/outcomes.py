"""What a stage may answer. A stage never acts: the runtime carries these out in one transaction."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Inbound:
    """A record as it was read.

    `topic` is the catalogue's name, without the prefix. `timestamp` is the broker's append time in
    milliseconds; `value` the decoded record, or the raw bytes where the stage decodes by itself.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: Any
    headers: tuple[tuple[str, bytes], ...] = ()

    def holding(self, value: Any) -> "Inbound":
        """The same record with another value. Not `dataclasses.replace`: it takes three times as
        long, for every record of every stage."""
        return Inbound(
            self.topic,
            self.partition,
            self.offset,
            self.timestamp,
            self.key,
            value,
            self.headers,
        )


@dataclass(frozen=True, slots=True)
class Emit:
    """Write `value` to `topic` (catalogue name) under `key`; the partition follows from the key
    unless it is given. `value` None is a tombstone."""

    topic: str
    key: str | None
    value: Mapping[str, Any] | None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Put:
    """Set a key of the task's state; None forgets it. The key's first letters before `:` name the
    record (topics.yaml says which)."""

    key: bytes
    value: Mapping[str, Any] | None


Answer = Emit | Put


@dataclass(frozen=True, slots=True)
class Wake:
    """A timer of a state entry came due."""

    key: bytes
    due: int
    blind: bool = field(default=False)
