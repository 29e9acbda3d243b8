"""What the journal says about commands: which were begun, and which were left in doubt.

A command that was begun at another position is a repeat (a torn transaction of its writer can
write it twice) and is dropped. One that was begun at the same position and is not finished was in
a dead worker's hands: its open requests are in doubt.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pipeline.domain.records import JournalEntry

KEEP_MS: Final = 15 * 60_000
_GENERATION_MS: Final = 60_000

SEND: Final = "send"
NOT_SENT: Final = "not_sent"
SETTLED: Final = "settled"
"""The command was finished without a request (expired, suppressed, too much waiting)."""


@dataclass(slots=True)
class Known:
    """A command that was begun: where it was read, and its requests that were not taken back."""

    topic: str
    offset: int
    open: tuple[str, ...] = ()


class Attempts:
    """One task's memory of its journal, for 15 minutes of record time."""

    def __init__(self) -> None:
        self._known: dict[str, Known] = {}
        self._generations: deque[tuple[int, list[str]]] = deque()

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, entries: Iterable[JournalEntry], at: int) -> None:
        """Takes entries in the order of the journal; `at` is their append time."""
        for entry in entries:
            command = entry["command_id"]
            known = self._known.get(command)
            if known is None:
                known = self._known[command] = Known(entry["topic"], entry["offset"])
                self._generation(at).append(command)
            if entry["kind"] == SEND:
                known.open = (*known.open, entry["provider"])
            elif entry["kind"] == NOT_SENT and entry["provider"] in known.open:
                last = len(known.open) - 1 - known.open[::-1].index(entry["provider"])
                known.open = known.open[:last] + known.open[last + 1 :]

    def look(self, command_id: str) -> Known | None:
        """What is known of a command; None when it was never begun."""
        return self._known.get(command_id)

    def note(self, command_id: str, topic: str, offset: int, at: int) -> bool:
        """Remembers where a command was read. False when it is known from another position: a
        repeat."""
        known = self._known.get(command_id)
        if known is None:
            self._known[command_id] = Known(topic, offset)
            self._generation(at).append(command_id)
            return True
        return known.topic == topic and known.offset == offset

    def forget(self, now: int) -> None:
        """Drops what was begun more than 15 minutes before `now`."""
        while self._generations and self._generations[0][0] < now - KEEP_MS - _GENERATION_MS:
            _, commands = self._generations.popleft()
            for command in commands:
                self._known.pop(command, None)

    def _generation(self, at: int) -> list[str]:
        if not self._generations or at >= self._generations[-1][0] + _GENERATION_MS:
            self._generations.append((at, []))
        return self._generations[-1][1]
