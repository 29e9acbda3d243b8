"""One wide log line for each attempt: everything that is known of a hand-over when its command is
finished, in one place. No content, no address, nothing that a caller wrote."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pipeline.domain.outcomes import Emit
from pipeline.domain.tracing import context

Line = Mapping[str, Any]

_OF_COMMAND: Final = (
    "tenant", "message_id", "command_id", "event_id", "step", "try_no", "channel", "country",
    "priority", "accepted_at",
)  # fmt: skip
_OF_ATTEMPT: Final = (
    "attempt_id", "provider", "requests", "started_at", "latency_ms", "result", "error_class",
    "code", "provider_message_id", "cost", "currency", "in_doubt", "resent",
)  # fmt: skip


def lines(emits: Sequence[Emit]) -> list[Line]:
    """A line for each attempt in what dispatch has committed; `number` of `of`, the command's
    `end` (dispatched or failed) and, where it is tried again, `retry_at`. Times are milliseconds
    since the epoch."""
    found: list[Line] = []
    for emit in emits:
        value = emit.value
        if emit.topic not in {"dispatched", "failed"} or value is None or not value["attempts"]:
            continue
        trace = context(emit.headers)
        common = {name: value[name] for name in _OF_COMMAND}
        common |= {"end": value["kind"], "retry_at": value["retry_at"]}
        common["trace_id"] = trace.trace_id if trace else None
        attempts = value["attempts"]
        for number, attempt in enumerate(attempts, start=1):
            mine = {name: attempt[name] for name in _OF_ATTEMPT}
            found.append({**common, "number": number, "of": len(attempts), **mine})
    return found
