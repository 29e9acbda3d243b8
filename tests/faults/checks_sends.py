"""G3, G4, G7 and G8: what reached the provider, judged by the provider's own ledger."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tests.faults.findings import Finding, finding
from tests.faults.history import History, MessageStep, Record, by_step, source_of

CLOCK_MS: Final = 1_000
"""A request leaves the pipeline, crosses a socket and waits for a busy simulator before its ledger
says when it came."""

READ_MS: Final = 100
"""A busy provider reads a new request and the end of the old one in one go, in either order."""

KILL_MS: Final = 4_000
"""A request of a killed dispatcher may still be with the provider this long."""


def _attempts(history: History) -> dict[MessageStep, list[Mapping[str, Any]]]:
    """The attempts that events declare, once each, by message and step."""
    found: dict[MessageStep, dict[tuple[str, str, int], Mapping[str, Any]]] = defaultdict(dict)
    for record in history.of("dispatched", "failed", "dead-letter", "outcomes"):
        attempts = record.value.get("attempts")
        if not isinstance(attempts, list) or "step" not in record.value:
            continue
        step = (record.value["message_id"], record.value["step"])
        for attempt in attempts:
            identity = (
                record.value.get("event_id", ""),
                attempt["attempt_id"],
                attempt["started_at"],
            )
            found[step][identity] = attempt
    return {step: list(attempts.values()) for step, attempts in found.items()}


def _on_doubt(history: History) -> dict[str, str]:
    return {
        record.value["message_id"]: record.value["on_doubt"] for record in history.of("accepted.")
    }


def double_sends(history: History) -> tuple[Finding, Finding]:
    """A person gets a step once. Where a provider honours keys there is no exception; elsewhere
    only a step that events declare in doubt and resent, of a message whose policy is to resend."""
    attempts, policy = _attempts(history), _on_doubt(history)
    steps: dict[MessageStep, list[str]] = defaultdict(list)
    for handover in history.handovers:
        steps[handover.message_id, handover.step].append(handover.account)
    keyed, undeclared = [], []
    for (message, step), accounts in steps.items():
        if len(accounts) < 2:
            continue
        declared = [
            attempt
            for attempt in attempts.get((message, step), [])
            if attempt["resent"] or attempt["in_doubt"]
        ]
        resent = sum(attempt["resent"] for attempt in declared)
        text = f"message {message} step {step}: handed over by {accounts}, declared {len(declared)}"
        if any(
            accounts.count(name) > 1 and history.rules.honours_keys.get(name) for name in accounts
        ):
            keyed.append(text)
        elif policy.get(message) != "resend" or resent < len(accounts) - 1:
            undeclared.append(f"{text}, resent {resent}, on_doubt {policy.get(message)}")
    return (
        finding("double hand-overs, keys honoured", "G3", len(steps), keyed),
        finding("double hand-overs, not declared", "G3", len(steps), undeclared),
    )


def declared_resends(history: History) -> int:
    """How many hand-overs beyond the first were declared in doubt and resent."""
    steps: dict[MessageStep, int] = defaultdict(int)
    for handover in history.handovers:
        steps[handover.message_id, handover.step] += 1
    return sum(count - 1 for count in steps.values())


def _positions(history: History) -> dict[str, tuple[str, str, int]]:
    """Recipient, lane and offset at which each message was opened."""
    turned_away = {source_of(record) for record in history.of("rejected")}
    found: dict[str, tuple[str, str, int]] = {}
    for record in sorted(history.of("accepted."), key=lambda record: record.offset):
        if source_of(record) not in turned_away:
            value = record.value
            found.setdefault(
                value["message_id"], (value["recipient_key"], record.topic, record.offset)
            )
    return found


def _first_word(history: History) -> dict[str, int]:
    """When dispatch had its last word on each message's first command."""
    first = {
        commands[0].value["command_id"]: message for message, commands in history.commands().items()
    }
    return {
        first[record.value["command_id"]]: record.at
        for record in history.of("dispatched", "failed")
        if record.value["command_id"] in first
    }


def order(history: History) -> Finding:
    """First requests of one recipient and lane come in the order of its partition of accepted.

    A message whose first command ended before any request of it arrived (throttled, expired, in
    doubt after a crash) had its turn; what arrives later belongs to a later command.
    """
    positions, word = _positions(history), _first_word(history)
    seen: set[str] = set()
    last: dict[tuple[str, str], tuple[int, str]] = {}

    def wrong() -> Iterator[str]:
        for request in sorted(history.requests, key=lambda request: (request.at, request.line)):
            message = request.message_id
            if message in seen or message not in positions:
                continue
            seen.add(message)
            if request.at > word.get(message, request.at):
                continue
            recipient, lane, offset = positions[message]
            before, earlier = last.get((recipient, lane), (-1, ""))
            if offset < before:
                yield f"{lane} {recipient}: {earlier} at {before} was sent before {message} at {offset}"
            else:
                last[recipient, lane] = (offset, message)

    texts = list(wrong())
    return finding("order", "G4", len(seen), texts)


def overlaps(history: History) -> Finding:
    """One request in flight per recipient and lane. What a killed dispatcher had in flight is
    beyond anybody's reach and not counted."""
    positions = _positions(history)
    kills = [
        (fault.at, fault.until + KILL_MS)
        for fault in history.faults
        if fault.stage == "dispatch" and fault.kind in ("kill", "stop", "leave")
    ]
    lanes: dict[tuple[str, str], list[tuple[int, int, str]]] = defaultdict(list)
    for request in history.requests:
        if request.message_id in positions:
            recipient, lane, _ = positions[request.message_id]
            ended = request.ended_at or request.at
            lanes[recipient, lane].append((request.at, ended, request.message_id))

    def wrong() -> Iterator[str]:
        for (recipient, lane), spans in lanes.items():
            spans.sort()
            for (_, ended, first), (began, _, second) in itertools.pairwise(spans):
                if began < ended - READ_MS and not any(
                    since <= began <= until for since, until in kills
                ):
                    yield f"{lane} {recipient}: {second} began {ended - began} ms before {first} ended"

    return finding("requests in flight together", "G4", len(history.requests), wrong())


def after_deadline(history: History) -> Finding:
    """Nothing is sent after the message's deadline or its command's expires_at. What left in time
    arrives within the request's own timeout, or the caller has hung up."""
    deadlines = {
        record.value["message_id"]: record.value["deadline"] for record in history.of("accepted.")
    }
    expiries = {
        step: max(record.value["expires_at"] for record in records)
        for step, records in by_step(history.of("send.")).items()
    }
    by_command = {
        record.value["command_id"]: record.value["expires_at"] for record in history.of("send.")
    }

    def wrong() -> Iterator[str]:
        for request in history.requests:
            step = (request.message_id, request.step)
            ends = min(deadlines.get(request.message_id, 2**62), expiries.get(step, 2**62))
            if request.at > ends + CLOCK_MS + history.rules.timeout_ms:
                yield f"request line {request.line}: {step} {request.at - ends} ms too late"
        for record in history.of("dispatched", "failed"):
            ends = by_command.get(record.value["command_id"] or "", 2**62)
            for attempt in record.value["attempts"]:
                if attempt["requests"] and attempt["started_at"] > ends:
                    yield f"{record.place}: attempt began {attempt['started_at'] - ends} ms too late"

    return finding("sent too late", "G7", len(history.requests), wrong())


def retries(history: History) -> Finding:
    """Tries of a step and requests of an attempt stay within the priority's policy."""
    rules = history.rules
    kills = history.kills("dispatch")
    asked: dict[MessageStep, int] = defaultdict(int)
    for request in history.requests:
        asked[request.message_id, request.step] += 1
    answered = {
        record.value["command_id"]
        for record in history.of("dispatched", "failed")
        if record.value["reason"] != "expired"
    }
    steps: dict[MessageStep, dict[str, Record]] = {}
    for step, records in by_step(history.of("send.")).items():
        # What expired unsent was no try, and is written again.
        steps[step] = {
            record.value["command_id"]: record
            for record in records
            if record.value["command_id"] in answered
        }

    def wrong() -> Iterator[str]:
        for step, commands in steps.items():
            if not commands:
                continue
            value = next(iter(commands.values())).value
            most = rules.max_tries.get(value["priority"])
            if most is None:
                continue
            if len(commands) > most:
                yield f"{step}: {len(commands)} commands, the policy allows {most}"
            accounts = rules.accounts_by_channel.get(value["channel"], 1)
            # A crash can leave each try in doubt, which one more request settles.
            bound = len(commands) * accounts * rules.requests_per_attempt + min(kills, most)
            if asked[step] > bound:
                yield f"{step}: {asked[step]} requests, at most {bound} allowed"

    return finding("retries", "G8", len(steps), wrong())


def false_doubt(history: History) -> Finding:
    """Journalled means: written to a socket next. So a crash leaves at most one doubt per slot;
    what only waited its turn is no doubt."""
    asked = {(request.message_id, request.step) for request in history.requests}
    wrong = [
        f"{step}: declared in doubt, but the provider never saw it"
        for step, attempts in _attempts(history).items()
        if step not in asked and any(attempt["in_doubt"] for attempt in attempts)
    ]
    allowed = history.rules.slots * history.kills("dispatch")
    return finding("doubt without a request", "G3", len(asked), wrong, allowed)
