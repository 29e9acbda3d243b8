"""Children that die with their parent, even when the parent is killed with -9.

`spawn` starts a program through this file: the child asks the kernel to be killed with its parent
(Linux), or leaves a watcher behind that does it (elsewhere), and then becomes the program, so the
process id is the program's own. Each child has a session of its own: Ctrl-C reaches only the
parent, which stops its children in order.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_WATCH_EVERY_S: Final = 0.2

_jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
_lock = threading.Lock()
_spawner: list[threading.Thread] = []


def spawn(
    argv: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Starts `argv` as a child that this process cannot leave behind.

    Its output is appended to `log`; `env` is added to our environment; it reads nothing.

    Raises:
        OSError: the log cannot be opened.
    """
    started: Future[subprocess.Popen[bytes]] = Future()

    def start() -> None:
        try:
            started.set_result(_start(argv, log, env, cwd))
        except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
            started.set_exception(error)

    # The kernel ties a child to the *thread* that forked it, so one thread that lives as long as
    # the process starts them all.
    with _lock:
        if not _spawner or not _spawner[0].is_alive():
            _spawner[:] = [threading.Thread(target=_run_jobs, name="spawner", daemon=True)]
            _spawner[0].start()
    _jobs.put(start)
    return started.result()


def stop(child: subprocess.Popen[bytes], patience_s: float = 10.0) -> int:
    """Ends `child` with SIGTERM, after `patience_s` with SIGKILL; returns its exit status."""
    if child.poll() is None:
        child.terminate()
        try:
            return child.wait(patience_s)
        except subprocess.TimeoutExpired:
            child.kill()
    return child.wait()


def _run_jobs() -> None:
    while True:
        _jobs.get()()


def _start(
    argv: Sequence[str], log: Path, env: Mapping[str, str] | None, cwd: Path | None
) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    wrapper = [sys.executable, "-I", "-S", __file__, str(os.getpid()), *argv]
    with log.open("ab") as output:
        return subprocess.Popen(
            wrapper,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        _leave_watcher(parent, os.getpid())
    if os.getppid() != parent:  # it died before we had asked
        os._exit(1)


def _leave_watcher(parent: int, child: int) -> None:
    """A grandchild that kills `child` when `parent` is gone, and ends with either."""
    import time

    if os.fork():
        return
    os.setsid()
    while True:
        time.sleep(_WATCH_EVERY_S)
        if os.getppid() != child:  # the program has ended
            os._exit(0)
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            os.kill(child, signal.SIGKILL)
            os._exit(0)


def _become(arguments: Sequence[str]) -> None:
    _die_with(int(arguments[0]))
    os.execvp(arguments[1], list(arguments[1:]))


if __name__ == "__main__":
    _become(sys.argv[1:])
