"""Dispatch: one step of one message, handed to a provider.

A command ends in exactly one event: `dispatched` when a provider took it (result accepted) or may
have taken it (result unknown), `failed` when certainly nobody did. What each answer means is in
`domain/ladder.py`. Nothing here acts or waits; past the moment at which the loop writes a request
to a socket a repeat costs money, and the journal that it keeps is what makes it known.
"""

from typing import Final, cast

from pipeline.domain import ids, tracing
from pipeline.domain.drafts import blank_letter, source_of
from pipeline.domain.errors import ErrorClass, Result
from pipeline.domain.handovers import command_event
from pipeline.domain.ladder import ORIGIN, CommandProgress, DispatchConfig, Rules
from pipeline.domain.outcomes import Emit, Inbound
from pipeline.domain.ports_dispatch import Finish, Suppressed
from pipeline.domain.records import Command
from pipeline.domain.switches import NONE, Switches

__all__ = ["READS", "STAGE", "WRITES", "Dispatch", "DispatchConfig"]

STAGE: Final = ORIGIN
READS: Final = ("send.{channel}.{lane}",)
WRITES: Final = ("dispatched", "failed", "references", "dead-letter", "dispatch.journal")

_BROKEN: Final = "internal"


class Dispatch:
    """The stage; see `pipeline.domain.ports_dispatch.ConcurrentStage`."""

    def __init__(
        self, config: DispatchConfig, suppressed: Suppressed, switches: Switches = NONE
    ) -> None:
        self._config = config
        self._rules = Rules(config, suppressed, switches)

    def begin(self, record: Inbound, doubt: tuple[str, ...]) -> CommandProgress:
        """Opens a command; see the port."""
        return CommandProgress(self._rules, record, doubt)

    def providers(self, channel: str) -> tuple[str, ...]:
        """Every account that serves the channel somewhere."""
        return tuple(a.name for a in self._config.accounts if a.channel == channel)

    def broken(self, record: Inbound, detail: str, now: int, *, in_doubt: bool) -> Finish:
        """A fault of ours: the command is kept as a dead letter and its step ends."""
        command = cast(Command, record.value)
        letter = blank_letter(
            ids.unreadable_id(record.topic, record.partition, record.offset),
            STAGE,
            _BROKEN,
            "a fault in this stage",
        )
        letter["tenant"] = command["tenant"]
        letter["message_id"] = command["message_id"]
        letter["recipient_key"] = command["recipient_key"]
        letter["error_class"] = ErrorClass.CONFIG.value
        letter["detail"] = detail
        letter["channel"] = command["channel"]
        letter["priority"] = command["priority"]
        letter["occurred_at"] = now
        letter["source"] = source_of(record)
        kind, result = ("dispatched", Result.UNKNOWN) if in_doubt else ("failed", Result.REFUSED)
        event = command_event(record, STAGE, kind, "", _BROKEN, now)
        event["result"], event["in_doubt"] = result.value, in_doubt
        event["error_class"] = ErrorClass.CONFIG.value
        event["code"] = event["reason"] = _BROKEN
        headers = tracing.carried(record.headers)
        return Finish(
            (
                Emit("dead-letter", command["recipient_key"], letter, headers),
                Emit(kind, command["recipient_key"], event, headers),
            )
        )
