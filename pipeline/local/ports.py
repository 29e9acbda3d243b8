"""Ports on the loopback address: free ones, and a clear word about who holds a taken one."""

import socket
import sys
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"


class PortTaken(RuntimeError):
    """A wanted port is in use; the text says by whom, where that can be seen, and what to do."""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def claim(port: int, what: str, setting: str) -> int:
    """`port` when it is free (0: any free one).

    Raises:
        PortTaken: somebody listens there; `what` wanted it and `setting` moves it.
    """
    if port == 0:
        return free_port()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PortTaken(
                f"{what} wants port {port}, which {holder(port)} holds. Stop it, or set {setting}"
                f" to another port ({error.strerror})."
            ) from error
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
