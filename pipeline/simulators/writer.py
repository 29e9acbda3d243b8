"""The writing side of the ledger: lines gathered for a few milliseconds, then appended at once."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson

_FLUSH_S: Final = 0.02


class LedgerWriter:
    """Appends lines to a file; within an event loop they are there 20 ms later, outside of one at
    once. Cuts off a last line that a kill left unfinished. One owner."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._lines: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        _cut_unfinished(self._file)

    def write(self, line: Mapping[str, Any]) -> None:
        """Adds one line."""
        self._lines.append(orjson.dumps(line))
        if self._timer is not None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
        else:
            self._timer = loop.call_later(_FLUSH_S, self.flush)

    def flush(self) -> None:
        """Appends what was gathered."""
        self._timer = None
        if not self._lines:
            return
        whole = memoryview(b"\n".join(self._lines) + b"\n")
        self._lines.clear()
        while whole:
            whole = whole[os.write(self._file, whole) :]

    def close(self) -> None:
        """Appends what was gathered and closes the file."""
        if self._timer is not None:
            self._timer.cancel()
        self.flush()
        os.close(self._file)


def _cut_unfinished(file: int) -> None:
    end = os.fstat(file).st_size
    keep = end
    while keep:
        start = max(0, keep - 4096)
        chunk = os.pread(file, keep - start, start)
        newline = chunk.rfind(b"\n")
        if newline >= 0:
            keep = start + newline + 1
            break
        keep = start
    if keep != end:
        os.ftruncate(file, keep)
