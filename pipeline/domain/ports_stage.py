"""The shape of a stage that keeps state: a function of (record, state, now) that answers.

A stage never acts. The runtime reads a record or finds a timer due, calls the stage, and carries
its answers out in one transaction: outputs first, then the changelog, then the offsets. What a
stage sees of its state is what is committed, with the puts of its own open transaction on top.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from pipeline.domain.outcomes import Answer, Inbound, Wake

TIMER: Final = b"t:"
WINDOW: Final = b"w:"
_DUE: Final = struct.Struct(">q")
_HEAD: Final = len(TIMER) + _DUE.size + 1


def window_entry(due: int, key: bytes) -> bytes:
    """Like `timer_entry`, for the end of a silence: it fires only when everything that had arrived
    by `due` has been heard, or, marked blind, when the stage's patience (`hold_ms`) is over."""
    return WINDOW + _DUE.pack(due) + b":" + key


def timer_entry(due: int, key: bytes) -> bytes:
    """The index entry that wakes the stage for the state key `key` at `due` (milliseconds, not
    negative). Entries sort by due time, then by key."""
    return TIMER + _DUE.pack(due) + b":" + key


def timer_of(entry: bytes) -> tuple[int, bytes]:
    """Due time and state key of a timer or window entry.

    Raises:
        ValueError: `entry` is no timer entry.
    """
    kind_known = entry.startswith((TIMER, WINDOW))
    if len(entry) < _HEAD or not kind_known or entry[_HEAD - 1 : _HEAD] != b":":
        raise ValueError(f"no timer entry: {entry!r}")
    return _DUE.unpack_from(entry, len(TIMER))[0], entry[_HEAD:]


class StateView(Protocol):
    """One task's state as its stage may look at it."""

    @property
    def task(self) -> int:
        """The task's number."""
        ...

    def get(self, key: bytes) -> dict[str, Any] | None:
        """The value under `key`, with the puts of the open transaction; the caller may change the
        dictionary it gets without changing the state."""
        ...

    def scan(self, prefix: bytes, limit: int) -> list[bytes]:
        """At most `limit` index entries that start with `prefix`, in byte order, with those of
        the open transaction's puts and without those of what it forgot or replaced."""
        ...


class StatefulStage(Protocol):
    """A stage with tasks, state and timers (fallback, receipts).

    The same record with the same state and time gives the same answers. `now` is the broker's
    time in milliseconds; a timer never wakes its entry early.
    """

    def on_record(self, record: Inbound, state: StateView, now: int) -> list[Answer]:
        """What a record leads to. Bad input is answered, not raised."""
        ...

    def on_wake(self, wake: Wake, state: StateView, now: int) -> list[Answer]:
        """What a due timer leads to. The stage must move or drop that timer by a Put, or it comes
        again at once."""
        ...

    def index(self, key: bytes, value: Mapping[str, Any]) -> Sequence[bytes]:
        """Index entries that a state entry stands for: timers (`timer_entry`) or others with
        another first letter, such as `l:...`. Derived from the value alone, so that they can be
        computed again at a restore."""
        ...

    def hold_ms(self, key: bytes, value: Mapping[str, Any]) -> int:
        """How long past its due time a window of this entry may wait to be heard out."""
        ...

    def on_crash(self, record: Inbound, state: StateView, now: int, detail: str) -> list[Answer]:
        """What to do with a record on which `on_record` raised: a fault of ours. Never raises."""
        ...

    def on_start(self, task: int, state: StateView, now: int) -> None:
        """A task's state is complete and its records follow."""
        ...

    def on_commit(self, task: int, state: StateView, positions: Mapping[str, int]) -> list[Answer]:
        """Called once for a task before its transaction is sent, with the positions that it will
        commit by topic; for books that must move with them."""
        ...
