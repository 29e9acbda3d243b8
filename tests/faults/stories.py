"""What happened to the messages that a finding names, in the order of the clock: the topics' side
and the provider's side together. A failed run is read here first."""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from tests.faults.findings import Finding
from tests.faults.history import History, Record

MOST: Final = 5
"""Messages per run whose story is told."""

_ID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_SHOWN: Final = (
    "kind", "step", "try_no", "channel", "provider", "status", "reason", "error_class", "code",
    "result", "in_doubt", "resent", "blind", "waiting", "outcome", "on_doubt", "command_id",
    "expires_at", "window_ms", "occurred_at",
)  # fmt: skip


def stories(history: History, findings: Iterable[Finding]) -> list[str]:
    """A text for each of the first few messages that the findings name."""
    texts = " ".join(text for found in findings for text in found.examples)
    names = list(dict.fromkeys(_ID.findall(texts)))[:MOST]
    return [_story(history, name) for name in names]


def _story(history: History, message: str) -> str:
    lines = sorted([*_from_topics(history, message), *_from_ledger(history, message)])
    lines += [(fault.at, f"{fault.kind} {fault.stage}") for fault in history.faults]
    began = min((at for at, _ in lines), default=0)
    told = "\n".join(f"  {at - began:>8} ms  {text}" for at, text in sorted(lines))
    return f"message {message}, from {began}:\n{told}"


def _from_topics(history: History, message: str) -> Iterator[tuple[int, str]]:
    for records in history.topics.values():
        for record in records:
            if record.value.get("message_id") == message:
                yield record.at, f"{'/'.join(map(str, record.place))} {_words(record)}"


def _words(record: Record) -> str:
    value = record.value
    words = [f"{name}={value[name]}" for name in _SHOWN if value.get(name) not in (None, "")]
    attempts = value.get("attempts")
    for attempt in attempts if isinstance(attempts, list) else ():
        if isinstance(attempt, dict):
            said = {name: attempt[name] for name in attempt if attempt[name] not in (None, "")}
            words.append(f"\n{'':14}attempt {said}")
    return " ".join(words)


def _from_ledger(history: History, message: str) -> Iterator[tuple[int, str]]:
    for request in history.requests:
        if request.message_id == message:
            yield (
                request.at,
                (
                    f"ledger: request of step {request.step} to {request.account}, key {request.key}, "
                    f"answer {request.answer}"
                ),
            )
    for handover in history.handovers:
        if handover.message_id == message:
            yield handover.at, f"ledger: step {handover.step} handed over by {handover.account}"
    for notice in history.notices:
        if notice.message_id == message:
            said = "never" if notice.acked_at is None else f"{notice.acked_at - notice.sent_at} ms"
            yield (
                notice.sent_at,
                f"ledger: {notice.kind} of step {notice.step}, acknowledged after {said}",
            )
