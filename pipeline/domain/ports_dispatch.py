"""The shapes between dispatch and the loop that runs it with requests in flight.

The stage answers "send this" or "this is finished"; the loop sends, and brings what came back as
the next input. So every decision about a command is a function that needs no socket to be tested.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pipeline.domain.outcomes import Emit, Inbound
from pipeline.domain.ports import HttpReply, HttpRequest
from pipeline.domain.records import Command

Suppressed = Callable[[str, str, str, str, int], bool]
"""(tenant, address hash, channel, category, now): whether this address must not be written to."""


@dataclass(frozen=True, slots=True)
class NotSent:
    """Certainly nothing of the request left: name lookup, connect, TLS or the pool failed."""

    code: str


@dataclass(frozen=True, slots=True)
class Unclear:
    """The request may have left, and no whole answer came."""

    code: str


Answered = HttpReply | NotSent | Unclear


@dataclass(frozen=True, slots=True)
class Send:
    """One request to make next. `expires_at` is the last moment at which it may begin (ms)."""

    provider: str
    attempt_id: str
    key_no: int
    timeout_ms: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Finish:
    """The command is finished, with these records."""

    answers: tuple[Emit, ...]


class Progress(Protocol):
    """What became of one command so far. Owned by one thread."""

    @property
    def command(self) -> Command:
        """What is to be done."""
        ...

    @property
    def in_doubt(self) -> bool:
        """Whether a request for it may have been taken, ours or a dead worker's."""
        ...

    def next(self, now: int) -> Send | Finish:
        """What to do now. Asked again whenever time has passed before the request left; a Send
        has no effect by itself."""
        ...

    def request(self) -> HttpRequest | None:
        """The bytes of the last Send, the same however often it is asked. None: there is nothing
        to say on this channel, and `next` tells how the command ends."""
        ...

    def answered(self, answer: Answered, started_at: int, latency_ms: int, now: int) -> bool:
        """Takes what came of the last Send, begun at `started_at` (ms). True when the provider
        certainly did not take it, so that its journal entry may be taken back."""
        ...

    def crowded(self, now: int) -> Finish:
        """Too much waits for the provider: gives the command back."""
        ...


class ConcurrentStage(Protocol):
    """A stage whose work is requests to the outside."""

    def begin(self, record: Inbound, doubt: tuple[str, ...]) -> Progress:
        """Opens a command (`record.value`). `doubt` names the providers, one name per request in
        the order of sending, that a dead worker may have handed it to."""
        ...

    def providers(self, channel: str) -> tuple[str, ...]:
        """Every account that serves the channel somewhere."""
        ...

    def broken(self, record: Inbound, detail: str, now: int, *, in_doubt: bool) -> Finish:
        """Settles a command on which our own code raised."""
        ...
