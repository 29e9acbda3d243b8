"""Requests in flight: an event loop in a thread of its own, and the lease that lets it send.

The thread that owns the Kafka clients submits requests and collects what came of them; nothing
else is shared. Whoever takes a task over waits until the lease of its owner has ended, so the
lease is looked at with the request in hand, on the monotonic clock.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.domain.ports import HttpRequest
from pipeline.domain.ports_dispatch import Answered, Send, Unclear
from pipeline.runtime.clock import Clock
from pipeline.runtime.sender import Sender

log = logging.getLogger(__name__)

LEASE_S: Final = 5.0


def no_step(_step: str) -> None:
    """Called at named steps, so that tests can end the process exactly there: after_journal,
    before_request, after_answer, before_commit, after_commit."""


class Lease:
    """Until when this worker may begin requests. Written by one thread, read by another."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = 0.0

    def renew(self, started: float) -> None:
        """The commit that said so began at `started` (monotonic seconds) and succeeded."""
        self._until = started + LEASE_S

    def end(self) -> None:
        """Nothing may begin until the next commit."""
        self._until = 0.0

    @property
    def left(self) -> float:
        """Seconds."""
        return self._until - self._clock.monotonic()


@dataclass(frozen=True, slots=True)
class Withheld:
    """The request did not begin: the lease, the task or the time had ended."""


@dataclass(slots=True, eq=False)
class Job:
    """One request on its way. `alive` is asked right before it begins."""

    send: Send
    request: HttpRequest
    alive: Callable[[], bool]
    owner: Any
    started_at: int = 0
    latency_ms: int = 0
    answer: Answered | Withheld | None = None


class Requests:
    """Runs jobs. `submit`, `take` and `close` belong to the owner's thread."""

    def __init__(
        self,
        sender: Callable[[], Sender],
        clock: Clock,
        lease: Lease,
        on_step: Callable[[str], None] = no_step,
    ) -> None:
        self._clock, self._lease, self._on_step = clock, lease, on_step
        self._make = sender
        self._sender: Sender | None = None
        self._done: deque[Job] = deque()
        self._ended = threading.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="requests", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    @property
    def running(self) -> int:
        """How many requests have begun and not ended."""
        return len(self._running)

    def submit(self, jobs: Sequence[Job]) -> None:
        """Begins them all."""
        self._loop.call_soon_threadsafe(self._begin, jobs)

    def take(self) -> list[Job]:
        """Jobs that came to an end, each once."""
        taken = []
        while self._done:
            taken.append(self._done.popleft())
        return taken

    def wait(self, seconds: float) -> None:
        """Until a job has come to its end, at most so long."""
        if not self._done:
            self._ended.wait(seconds)
        self._ended.clear()

    def _finish(self, job: Job, answer: Answered | Withheld) -> None:
        job.answer = answer
        self._done.append(job)
        self._ended.set()

    def _begin(self, jobs: Sequence[Job]) -> None:
        if self._sender is None:
            self._sender = self._make()
        for job in jobs:
            task = self._loop.create_task(self._one(job, self._sender))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _one(self, job: Job, sender: Sender) -> None:
        job.started_at = self._clock.now()
        if self._lease.left <= 0 or not job.alive() or job.started_at >= job.send.expires_at:
            self._finish(job, Withheld())
            return
        started = self._clock.monotonic()
        answer: Answered = Unclear("interrupted")
        try:
            # From here on a repeat costs money; the journal knows of this request.
            self._on_step("before_request")
            answer = await sender.send(job.request, job.send.timeout_ms)
            self._on_step("after_answer")
        except Exception:
            log.exception("sending to %s", job.send.provider)
            answer = Unclear("internal")
        finally:
            job.latency_ms = int((self._clock.monotonic() - started) * 1000)
            self._finish(job, answer)

    def close(self) -> None:
        """Gives up what is still running and ends the thread."""
        if self._loop.is_closed():
            return
        done = threading.Event()

        async def end() -> None:
            try:
                for task in list(self._running):
                    task.cancel()
                await asyncio.gather(*self._running, return_exceptions=True)
                if self._sender is not None:
                    await self._sender.close()
            finally:
                done.set()

        self._loop.call_soon_threadsafe(self._spawn, end())
        done.wait(5.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        self._loop.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        task.add_done_callback(lambda done: done.exception())
