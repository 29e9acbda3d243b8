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
_DUE: Final = struct.Struct(">q")
_HEAD: Final = len(TIMER) + _DUE.size + 1


def timer_entry(due: int, key: bytes) -> bytes:
    """The index entry that wakes the stage for the state key `key` at `due` (milliseconds, not
    negative). Entries sort by due time, then by key."""
    return TIMER + _DUE.pack(due) + b":" + key


def timer_of(entry: bytes) -> tuple[int, bytes]:
    """Due time and state key of a timer entry.

    Raises:
        ValueError: `entry` is no timer entry.
    """
    if len(entry) < _HEAD or not entry.startswith(TIMER) or entry[_HEAD - 1 : _HEAD] != b":":
        raise ValueError(f"no timer entry: {entry!r}")
    return _DUE.unpack_from(entry, len(TIMER))[0], entry[_HEAD:]


class StateView(Protocol):
    """One task's state as its stage may look at it."""

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
