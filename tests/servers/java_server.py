"""A Java server that only tests start: it answers, or the test hears the end of its log."""

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from pipeline.local import tether

START_TIMEOUT_S = 120.0  # seconds on an idle machine


class JavaServer:
    """A process with an HTTP interface at `url`. `stop` ends it."""

    def __init__(self, title: str, url: str, log: Path) -> None:
        self.title, self.url, self.log = title, url, log
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, argv: Sequence[str], path: str, env: Mapping[str, str] | None = None) -> None:
        """Starts `argv` and returns when `path` answers 200."""
        self._process = tether.spawn(argv, log=self.log, env=env)
        end = time.monotonic() + START_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < end:
            try:
                if httpx.get(self.url + path, timeout=5.0).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
        said = self.log.read_text(errors="replace")[-4000:]
        self.stop()
        raise AssertionError(f"{self.title} did not come up. The end of its log:\n{said}")

    def stop(self) -> None:
        if self._process is not None:
            tether.stop(self._process, 15.0)
            self._process = None
