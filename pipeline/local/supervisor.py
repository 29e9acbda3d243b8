"""Runs processes by name and keeps them running: `pipeline up`, the demo and the fault tests.

A process that ends is started again at once, with a growing pause while it ends young. `stop`
passes SIGTERM on and waits, so that stages hand over; what is left after that is killed. Nothing
outlives this process (`tether.py`). Each process writes to `<logs>/<name>.log`.
"""

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

from pipeline.local import tether

STOP_PATIENCE_S: Final = 10.0
YOUNG_S: Final = 2.0  # who ends younger than this is started again after a pause
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
NOT_STARTED: Final = 127  # the exit status of what could not be started, as shells have it
LOG_BYTES: Final = 20_000_000  # a longer log is put aside at the next start

Watcher = Callable[[str, int], None]
"""Told the name and exit status (negative: the signal) of a process that ended by itself."""


@dataclass(frozen=True, slots=True)
class Status:
    """One row of the table. `state`: running, pausing (about to be started again) or stopped."""

    name: str
    state: str
    pid: int | None
    restarts: int
    up_s: float
    last_exit: int | None
    log: Path


@dataclass(slots=True, eq=False)
class _Child:
    name: str
    argv: list[str]
    env: dict[str, str]
    log: Path
    wake: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    stopping: bool = False
    process: subprocess.Popen[bytes] | None = None
    thread: threading.Thread | None = None
    started_at: float = 0.0
    starts: int = 0
    last_exit: int | None = None


class Supervisor:
    """Processes by name. Methods may be called from any thread; `add` and `stop` are idempotent
    for names that are already there or gone."""

    def __init__(self, logs: Path, on_exit: Watcher | None = None) -> None:
        self.logs = logs
        self._on_exit = on_exit
        self._children: dict[str, _Child] = {}
        self._lock = threading.Lock()

    def add(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """Starts `argv` under `name` and keeps it running; `env` is added to our environment.

        Raises:
            ValueError: the name is taken by a process that has not been stopped.
            OSError: its log cannot be written.
        """
        with self._lock:
            if name in self._children:
                raise ValueError(f"a process named {name} is already there")
            child = _Child(name, list(argv), dict(env or {}), self.logs / f"{name}.log")
            self._start(child)
            self._children[name] = child
        child.thread = threading.Thread(target=self._keep, args=(child,), name=f"keep-{name}")
        child.thread.daemon = True
        child.thread.start()

    def pids(self) -> dict[str, int]:
        """The process ids of those that run now."""
        return {row.name: row.pid for row in self.status() if row.pid is not None}

    def status(self) -> list[Status]:
        """Every process, in the order in which they were added."""
        now = time.monotonic()
        with self._lock:
            return [_row(child, now) for child in self._children.values()]

    def remove(self, name: str, patience_s: float = STOP_PATIENCE_S) -> int | None:
        """Stops one process with SIGTERM (then SIGKILL) and forgets it; its exit status."""
        with self._lock:
            child = self._children.get(name)
        if child is None:
            return None
        self._end([child], patience_s)
        with self._lock:
            self._children.pop(name, None)
        return child.last_exit

    def stop(self, patience_s: float = STOP_PATIENCE_S) -> dict[str, int | None]:
        """Stops all at the same time; their exit statuses by name. Returns when none is left."""
        with self._lock:
            children = list(self._children.values())
        self._end(children, patience_s)
        with self._lock:
            for child in children:
                self._children.pop(child.name, None)
        return {child.name: child.last_exit for child in children}

    def _end(self, children: list[_Child], patience_s: float) -> None:
        for child in children:
            with self._lock:
                child.stopping = True
                child.wake.set()
                if child.process is not None:
                    child.process.terminate()
        until = time.monotonic() + patience_s
        for child in children:
            if not child.ended.wait(max(0.0, until - time.monotonic())):
                process = child.process
                if process is not None:
                    process.kill()
                child.ended.wait()

    def _keep(self, child: _Child) -> None:
        pause = 0.0
        while True:
            # None: it could not be started again (a full disk, say); that counts as an early end.
            process = child.process
            status = process.wait() if process is not None else NOT_STARTED
            with self._lock:
                child.last_exit = status
                child.process = None
                stopping = child.stopping
            if stopping:
                child.ended.set()
                return
            if self._on_exit is not None:
                self._on_exit(child.name, status)
            young = time.monotonic() - child.started_at < YOUNG_S
            pause = min(max(pause * 2, FIRST_PAUSE_S), LONGEST_PAUSE_S) if young else 0.0
            child.wake.wait(pause)
            with self._lock:
                if child.stopping:
                    child.ended.set()
                    return
                with contextlib.suppress(OSError):
                    self._start(child)

    @staticmethod
    def _start(child: _Child) -> None:
        if child.log.exists() and child.log.stat().st_size > LOG_BYTES:
            child.log.replace(child.log.with_suffix(".log.1"))
        child.process = tether.spawn(child.argv, log=child.log, env=child.env)
        child.started_at = time.monotonic()
        child.starts += 1


def _row(child: _Child, now: float) -> Status:
    process = child.process
    running = process is not None and process.returncode is None
    return Status(
        name=child.name,
        state="running" if running else "stopped" if child.stopping else "pausing",
        pid=process.pid if running and process is not None else None,
        restarts=max(child.starts - 1, 0),
        up_s=now - child.started_at if running else 0.0,
        last_exit=child.last_exit,
        log=child.log,
    )


def wait_for_signal() -> int:
    """Returns the number of the SIGINT, SIGTERM or SIGHUP that arrives; for the main thread.

    The former handlers are back when it returns, so that a second Ctrl-C ends the program.
    """
    came = threading.Event()
    numbers: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        numbers.append(number)
        came.set()

    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    former = {number: signal.signal(number, note) for number in watched}
    try:
        while not came.wait(1.0):  # a wait without end would hold signals back on some systems
            pass
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    return numbers[0]


def describe(status: int | None) -> str:
    """An exit status in words."""
    if status is None:
        return "running"
    if status >= 0:
        return f"status {status}"
    try:
        return f"{signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"
