"""One clock for all nodes: the broker's.

Every due time is compared with the time that brokers stamp on records (LogAppendTime), so workers
with clocks minutes apart still agree. Between two stamps the monotonic clock carries on; the wall
clock only serves before the first stamp and for the skew that is reported.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """What loops need of time."""

    def now(self) -> int:
        """The broker's time in milliseconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that only ever go forward, for waits and leases."""
        ...

    def observe(self, append_ms: int) -> None:
        """Takes the append time of a record that was acknowledged just now."""
        ...


class BrokerClock:
    """`now` is the last observed append time plus the monotonic time since.

    An acknowledgement arrives a little after its stamp, so this clock runs late by that much and
    never early.
    """

    def __init__(self) -> None:
        self._base_ms = time.time() * 1000
        self._at = time.monotonic()
        self._observed = False

    def now(self) -> int:
        """The broker's time in milliseconds since the epoch."""
        return int(self._base_ms + (time.monotonic() - self._at) * 1000)

    def monotonic(self) -> float:
        """Seconds that only ever go forward."""
        return time.monotonic()

    def observe(self, append_ms: int) -> None:
        """Takes the append time of a record that was acknowledged just now."""
        self._base_ms, self._at, self._observed = float(append_ms), time.monotonic(), True

    def skew_ms(self) -> float:
        """Local UTC minus the broker's time; more than 2,000 either way deserves an alert."""
        return time.time() * 1000 - self.now() if self._observed else 0.0


def wait(seconds: float) -> None:
    """Sleeps; the one place where product code does."""
    time.sleep(seconds)
