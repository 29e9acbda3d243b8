"""Which processes belong to a folder: by their words or their environment."""

from pathlib import Path


def of(folder: Path) -> dict[int, str]:
    """Process ids and command lines of everything that knows `folder`; zombies do not count."""
    wanted = str(folder).encode()
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
            environment = (process / "environ").read_bytes()
        except OSError:
            continue  # it ended, or is not ours
        if words and wanted in words + environment:
            found[int(process.name)] = words.replace(b"\0", b" ").decode(errors="replace")
    return found
