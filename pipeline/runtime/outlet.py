"""A way out of the process that can be slow without anybody noticing.

The loop puts things in and goes on; a thread of its own hands them over in batches. What does not
fit any more, because whoever takes them is slow or away, is dropped and counted.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

log = logging.getLogger(__name__)

Item = TypeVar("Item")

ROOM: Final = 8_192
"""Things that may wait; some seconds of a busy worker, some megabytes."""

BATCH: Final = 512
EVERY_S: Final = 1.0
CLOSE_S: Final = 1.2
"""How long the end of a worker may wait for all that is left: of the 10 s that it has, requests in
flight may have taken 8."""


class Outlet(Generic[Item]):
    """Hands things to `deliver`, which may block and returns whether they were taken; what it
    raises counts as no. `put` belongs to one thread."""

    def __init__(
        self,
        name: str,
        deliver: Callable[[Sequence[Item]], bool],
        *,
        room: int = ROOM,
        every_s: float = EVERY_S,
    ) -> None:
        self.exported = self.failed = self.dropped = 0
        self._name, self._deliver, self._room, self._every_s = name, deliver, room, every_s
        self._items: deque[Item] = deque()
        self._stop = threading.Event()
        self._well = True
        self._thread = threading.Thread(target=self._run, name=f"outlet-{name}", daemon=True)
        self._thread.start()

    def put(self, items: Sequence[Item]) -> None:
        """Never waits and never raises."""
        if len(self._items) + len(items) > self._room:
            self.dropped += len(items)
        else:
            self._items.extend(items)

    def stop(self) -> None:
        """Begins to hand over what waits, at once."""
        self._stop.set()

    def join(self, seconds: float) -> None:
        """After `stop`: waits until everything is handed over, at most so long. Who did not take
        things lately is not waited for."""
        if self._well:
            self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._empty()
        self._empty()

    def _empty(self) -> None:
        while self._items:
            batch = [self._items.popleft() for _ in range(min(BATCH, len(self._items)))]
            try:
                taken = self._deliver(batch)
            except Exception as error:  # noqa: BLE001 - telemetry breaks nothing
                log.debug("%s: %s", self._name, type(error).__name__)
                taken = False
            if taken:
                self.exported += len(batch)
            else:
                self.failed += len(batch)
            if taken != self._well:
                self._well = taken
                log.warning("%s %s", self._name, "are taken again" if taken else "are not taken")
