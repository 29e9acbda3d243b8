"""The fault proxy as a child process, so that a busy test does not slow the pipeline's traffic."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

Event = dict[str, Any]


class ProxyProcess:
    """Starts a proxy before `upstream` (host:port as the broker advertises it)."""

    def __init__(self, upstream: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.proxy", "--upstream", upstream],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._events: list[Event] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        started = self.wait(lambda event: event["event"] == "listening", 20)
        self.address = f"127.0.0.1:{started['port']}"

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self._events.append(json.loads(line))
                self._news.notify_all()

    def order(self, do: str, **details: Any) -> None:
        """Gives an order (proxy.py lists them)."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **details}) + "\n")
        self._process.stdin.flush()

    def events(self, kind: str) -> list[Event]:
        """What has happened so far."""
        with self._news:
            return [event for event in self._events if event["event"] == kind]

    def wait(self, wanted: Callable[[Event], bool], seconds: float, since: int = 0) -> Event:
        """The first event from number `since` on that is wanted.

        Raises:
            TimeoutError: it did not happen in time, or the proxy died.
        """
        deadline = time.monotonic() + seconds
        with self._news:
            while True:
                for event in self._events[since:]:
                    if wanted(event):
                        return event
                left = deadline - time.monotonic()
                if left <= 0 or self._process.poll() is not None:
                    raise TimeoutError(f"the proxy told no such thing: {self._events[-5:]}")
                self._news.wait(min(left, 0.5))

    def count(self) -> int:
        """How many events there are; a place to wait from."""
        with self._news:
            return len(self._events)

    def close(self) -> None:
        """Ends the proxy."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(5)
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
