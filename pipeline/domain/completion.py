"""Which records of a partition are finished when they finish out of order.

A commit says one offset: everything below it is finished. What is finished above it stands in the
commit's metadata as text: run lengths of unfinished and finished offsets in turn, the first run
unfinished and beginning at the committed offset. Offsets that hold no record (transaction markers,
aborted records) are never seen and count as finished.

The text is `m1:` and numbers in base64 letters, five bits a letter, lowest first, the sixth bit
set where a number goes on. A broker takes 4,095 characters of metadata; `crowded` says in time
when no new records may be taken.
"""

from collections import deque
from typing import Final

LIMIT: Final = 4_000
_VERSION: Final = "m1:"
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_VALUES: Final = {letter: value for value, letter in enumerate(_LETTERS)}
_MAX_OPEN: Final = 500
"""Each unfinished offset costs at most one letter and the finished run behind it four, up to a run
of a million: 500 of them and a batch of 250 in hand stay below 3,750 letters."""


class UnknownMap(ValueError):
    """A map of another version, or no map: replay from the committed offset."""


class Completion:
    """The progress of one partition. Offsets must be taken in rising order."""

    __slots__ = ("_open", "_unread", "frontier")

    def __init__(self, position: int, text: str = "") -> None:
        """Restores what a commit said.

        Raises:
            UnknownMap: `text` is not a map that this version reads.
        """
        self.frontier = position
        self._open: dict[int, None] = {}
        for length, unfinished in _runs(text):
            if unfinished:
                self._open |= dict.fromkeys(range(self.frontier, self.frontier + length))
            self.frontier += length
        self._unread = deque(self._open)

    def take(self, offset: int) -> bool:
        """Whether the record at `offset` is still to be worked on. What a restored map calls
        unfinished and is passed over here held no record after all."""
        while self._unread and self._unread[0] < offset:
            self._open.pop(self._unread.popleft(), None)
        if self._unread and self._unread[0] == offset:
            self._unread.popleft()
            return True
        if offset < self.frontier:
            return False
        self._open[offset] = None
        self.frontier = offset + 1
        return True

    def finish(self, offset: int) -> None:
        """Finished once is finished for ever; a second time changes nothing."""
        self._open.pop(offset, None)

    def finished(self, offset: int) -> bool:
        """Whether nothing is left to do at `offset`."""
        return offset < self.frontier and offset not in self._open

    @property
    def position(self) -> int:
        """The offset to commit: the lowest that is not finished."""
        return next(iter(self._open), self.frontier)

    @property
    def unfinished(self) -> int:
        """How many records were taken and are not finished, or were when restored."""
        return len(self._open)

    @property
    def crowded(self) -> bool:
        """Whether the map could come near the broker's limit: take no new records."""
        return len(self._open) >= _MAX_OPEN

    @property
    def roomy(self) -> bool:
        """Whether new records may be taken again."""
        return len(self._open) < _MAX_OPEN // 2

    def text(self) -> str:
        """The metadata to commit with `position`; empty when nothing above it is finished."""
        letters: list[str] = []
        end = start = self.position
        for offset in self._open:
            if offset != end:
                _write(letters, end - start)
                _write(letters, offset - end)
                start = offset
            end = offset + 1
        if end < self.frontier and self._open:
            _write(letters, end - start)
            _write(letters, self.frontier - end)
        return _VERSION + "".join(letters) if letters else ""


def _write(letters: list[str], number: int) -> None:
    while number > 31:
        letters.append(_LETTERS[number & 31 | 32])
        number >>= 5
    letters.append(_LETTERS[number])


def _runs(text: str) -> list[tuple[int, bool]]:
    """Run lengths with whether each is unfinished."""
    if not text:
        return []
    if not text.startswith(_VERSION):
        raise UnknownMap(text[:16])
    runs: list[tuple[int, bool]] = []
    number = shift = 0
    for letter in text[len(_VERSION) :]:
        value = _VALUES.get(letter)
        if value is None or shift > 60:
            raise UnknownMap(text[:16])
        number |= (value & 31) << shift
        shift += 5
        if value < 32:
            runs.append((number, len(runs) % 2 == 0))
            number = shift = 0
    if shift or sum(length for length, unfinished in runs if unfinished) > LIMIT * 32:
        raise UnknownMap(text[:16])
    return runs
