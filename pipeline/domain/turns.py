"""Whose turn it is: one at a time per key in the order of arrival, and a bounded number in all.

Both are values without a clock or a thread; the loop that owns them is the only one to touch them.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")


class Turns(Generic[K, T]):
    """At most one item of each key is active; the others wait behind it."""

    def __init__(self) -> None:
        self._waiting: dict[K, deque[T]] = {}
        self._active: dict[K, T] = {}
        self.waiting = 0

    def __len__(self) -> int:
        return len(self._active) + self.waiting

    def enter(self, key: K, item: T) -> bool:
        """Whether `item` may go at once; otherwise `leave` gives it when its turn comes."""
        if key not in self._active:
            self._active[key] = item
            return True
        self._waiting.setdefault(key, deque()).append(item)
        self.waiting += 1
        return False

    def leave(self, key: K) -> T | None:
        """The active item of `key` is finished: the next one, now active, or None."""
        queue = self._waiting.get(key)
        if not queue:
            self._active.pop(key, None)
            return None
        item = queue.popleft()
        self.waiting -= 1
        if not queue:
            del self._waiting[key]
        self._active[key] = item
        return item

    def drop(self, gone: Callable[[T], bool]) -> list[T]:
        """Takes out every item for which `gone` is true, the active ones as well: only for keys of
        which all items go. Returns the waiting ones."""
        self._active = {key: item for key, item in self._active.items() if not gone(item)}
        taken: list[T] = []
        for key in list(self._waiting):
            queue = self._waiting[key]
            kept = deque(item for item in queue if not gone(item))
            taken += [item for item in queue if gone(item)]
            if kept:
                self._waiting[key] = kept
            else:
                del self._waiting[key]
        self.waiting -= len(taken)
        return taken


@dataclass(frozen=True, slots=True)
class Limits:
    """How much dispatch holds at once. A provider gets at most a `share` of the requests in flight,
    so that one that hangs leaves room for the rest, and `waiting` commands per lane behind them."""

    slots: int = 128
    share: float = 0.25
    waiting: int = 500

    @property
    def per_provider(self) -> int:
        """Requests in flight that one provider may have."""
        return max(1, int(self.slots * self.share))


class Place(Enum):
    """What asking for a slot came to."""

    GRANTED = "granted"
    WAITING = "waiting"
    FULL = "full"


class Slots(Generic[T]):
    """Requests in flight: bounded in all and by provider; lanes in order of urgency."""

    def __init__(self, limits: Limits, lanes: Sequence[str]) -> None:
        self._limits = limits
        self._lanes = tuple(lanes)
        self._held: dict[str, int] = {}
        self._queues: dict[tuple[str, str], deque[T]] = {}
        self.held = 0
        self.waiting = 0

    def ask(self, provider: str, lane: str, item: T) -> Place:
        """GRANTED: the slot is held until `free`. WAITING: `free` gives the item later, its slot
        held. FULL: neither; the item has to leave its lane."""
        queue = self._queues.get((provider, lane))
        if not queue and self._room(provider):
            self._hold(provider)
            return Place.GRANTED
        if queue is not None and len(queue) >= self._limits.waiting:
            return Place.FULL
        if queue is None:
            queue = self._queues[provider, lane] = deque()
        queue.append(item)
        self.waiting += 1
        return Place.WAITING

    def filled(self, provider: str, lane: str) -> float:
        """How much of the waiting room is taken, 0 to 1; at 1 `ask` says FULL."""
        return len(self._queues.get((provider, lane), ())) / self._limits.waiting

    def free(self, provider: str) -> list[T]:
        """Gives a slot back. Returns the items that hold one now, most urgent first."""
        self.held -= 1
        self._held[provider] -= 1
        return list(self._granted())

    def drop(self, gone: Callable[[T], bool]) -> list[T]:
        """Takes out the waiting items for which `gone` is true."""
        taken: list[T] = []
        for place, queue in self._queues.items():
            taken += [item for item in queue if gone(item)]
            self._queues[place] = deque(item for item in queue if not gone(item))
        self.waiting -= len(taken)
        return taken

    def _room(self, provider: str) -> bool:
        held = self._held.get(provider, 0)
        return self.held < self._limits.slots and held < self._limits.per_provider

    def _hold(self, provider: str) -> None:
        self.held += 1
        self._held[provider] = self._held.get(provider, 0) + 1

    def _granted(self) -> Iterator[T]:
        for lane in self._lanes:
            # The provider that holds least goes first, so that none is starved by a busy one.
            for provider in sorted(
                (p for (p, of), queue in self._queues.items() if of == lane and queue),
                key=lambda name: self._held.get(name, 0),
            ):
                queue = self._queues[provider, lane]
                while queue and self._room(provider):
                    self._hold(provider)
                    self.waiting -= 1
                    yield queue.popleft()
