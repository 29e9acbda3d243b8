"""Ports on the loopback address: free ones, and a clear word about who holds a taken one."""

import secrets
import socket
import sys
import threading
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"


class PortTaken(RuntimeError):
    """A wanted port is in use; the text says by whom, where that can be seen, and what to do."""


# Below the range from which systems take the ports of outgoing connections: a server that is
# killed and started again must find its port still free.
_LOWEST: Final = 20_000
_HIGHEST: Final = 32_000

_given: set[int] = set()
_lock = threading.Lock()


def free_port() -> int:
    """A port that nobody listens on now and that this process has not been given before."""
    with _lock:
        for _ in range(1_000):
            port = _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST)
            if port not in _given and _bindable(port) is None:
                _given.add(port)
                return port
    raise PortTaken(f"no port from {_LOWEST} to {_HIGHEST} is free on {HOST}")


def _bindable(port: int) -> OSError | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return error
    return None


def claim(port: int, what: str, setting: str) -> int:
    """`port` when it is free (0: any free one).

    Raises:
        PortTaken: somebody listens there; `what` wanted it and `setting` moves it.
    """
    if port == 0:
        return free_port()
    error = _bindable(port)
    if error is not None:
        raise PortTaken(
            f"{what} wants port {port}, which {holder(port)} holds. Stop it, or set {setting}"
            f" to another port ({error.strerror})."
        )
    return port


def holder(port: int) -> str:
    """Who listens on `port`, as well as this user may see it."""
    inode = _listening_inode(port) if sys.platform == "linux" else None
    if inode is not None:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                for descriptor in (process / "fd").iterdir():
                    if str(descriptor.readlink()) == f"socket:[{inode}]":
                        command = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                        words = command.decode(errors="replace").strip()
                        return f"process {process.name} ({words[:80]})"
            except OSError:
                continue  # it ended, or it is another user's
    return "another process"


def _listening_inode(port: int) -> str | None:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port:
                return fields[9]
    return None
