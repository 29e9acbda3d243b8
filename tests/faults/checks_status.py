"""G5 and G6: status never goes back, silence is only silence when we have listened, and the
outcome says what the provider's ledger says."""

import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from tests.faults.findings import Finding, finding
from tests.faults.history import History, Record, by_message, by_step

EARLY_MS: Final = 1_000
"""Timers are never early by more than a second (the clock's promise)."""

ACK_MS: Final = 100
"""The provider notes the acknowledgement after it happened, so a receipt noted before the window's
end was certainly in `callbacks` by then; this much is left for the two clocks' rounding."""

RACE_MS: Final = 1_500
"""A receipt and a failure that come this close together meet in either order."""

SETTLING: Final = ("delivered", "read")


def _window_ends(history: History) -> dict[str, int]:
    """When the silence after a command ends: its `dispatched` plus its window."""
    windows = {
        record.value["command_id"]: record.value["window_ms"] for record in history.of("send.")
    }
    return {
        record.value["command_id"]: record.value["occurred_at"]
        + windows[record.value["command_id"]]
        for record in history.of("dispatched")
        if record.value["command_id"] in windows
    }


def next_steps(history: History) -> Finding:
    """A command is followed by another of its message only when it failed, or its window ended in
    silence. That it expired is no reason: a dead dispatcher may have been in the middle of it."""
    failed = by_message(history.of("failed"))
    silent = by_step(history.of("timed-out"))
    ends = _window_ends(history)

    def allowed(before: Record, after: Record) -> bool:
        step = (before.value["message_id"], before.value["step"])
        for event in failed.get(step[0], ()):
            if event.value["origin"] == "dispatch":
                mine = event.value["command_id"] == before.value["command_id"]
            else:
                mine = event.value["step"] == step[1]
            if mine and event.at <= after.at:
                return True
        command = before.value["command_id"]
        for event in silent.get(step, ()):
            # The event and the command are written in one transaction and may be appended in
            # either order, so the decision's own time is compared, and the append with the window.
            mine = event.value["command_id"] == command
            late_enough = event.at >= ends.get(command, 0) - EARLY_MS
            if mine and late_enough and event.value["occurred_at"] <= after.at:
                return True
        return False

    looked = 0
    wrong = []
    for message, commands in history.commands().items():
        unique = list({record.value["command_id"]: record for record in commands}.values())
        for before, after in itertools.pairwise(unique):
            looked += 1
            if not allowed(before, after):
                names = [f"step {r.value['step']} try {r.value['try_no']}" for r in (before, after)]
                wrong.append(f"message {message}: {names[1]} before {names[0]} had ended")
    return finding("next step too early", "G6", looked, wrong)


def deaf_timeouts(history: History) -> Finding:
    """A window never ends in silence when a delivery was acknowledged before its end, unless the
    event says that fallback could not listen (blind)."""
    heard, ends = history.heard(), _window_ends(history)

    def wrong() -> Iterator[str]:
        for record in history.of("timed-out"):
            message, step = record.value["message_id"], record.value["step"]
            end = ends.get(record.value["command_id"])
            if end is None or record.value["blind"]:
                continue
            if record.at < end - EARLY_MS:
                yield f"{record.place}: {message} step {step} timed out {end - record.at} ms early"
            for at, notice in heard.get(message, ()):
                if at < end - ACK_MS:
                    yield (
                        f"{record.place}: {message} step {step} timed out, but step {notice.step} "
                        f"was reported {end - at} ms before"
                    )

    return finding("silence not heard out", "G6", len(history.topics.get("timed-out", ())), wrong())


def outcomes_true(history: History, faults: bool = True) -> Finding:
    """Delivered when a delivery's receipt was acknowledged before the last step's window ended;
    not delivered when none had been sent before the outcome was written."""
    heard, ends, commands = history.heard(), _window_ends(history), history.commands()
    silent = by_step(history.of("timed-out"))
    said: dict[str, int] = {}
    for notice in history.notices:
        if notice.kind in SETTLING:
            before = said.get(notice.message_id, notice.sent_at)
            said[notice.message_id] = min(before, notice.sent_at)
    deadlines = {
        record.value["message_id"]: record.value["deadline"] for record in history.of("accepted.")
    }
    # A restart may leave failures and receipts waiting together for as long as it may take.
    race = 15_000 if faults else RACE_MS

    def wrong() -> Iterator[str]:
        for message, records in history.outcomes().items():
            outcome = records[0]
            status = outcome.value["status"]
            last = max((r.value["step"] for r in commands.get(message, ())), default=0)
            if status == "delivered":
                if outcome.value["reason"] != "accepted" and (
                    message not in said or said[message] > outcome.at + ACK_MS
                ):
                    yield f"message {message}: delivered, but no receipt said so by then"
                continue
            timed_out = silent.get((message, last), [])
            if timed_out and not any(event.value["blind"] for event in timed_out):
                end = ends.get(timed_out[-1].value["command_id"], outcome.at) - ACK_MS
            else:
                end = min(outcome.at, deadlines.get(message, outcome.at)) - race
            early = [at for at, _ in heard.get(message, ()) if at < end]
            if early:
                yield (
                    f"message {message}: {status} ({outcome.value['reason']}), but a delivery was "
                    f"acknowledged {end - min(early)} ms before its last window ended"
                )

    return finding("outcome against the ledger", "G6", len(history.outcomes()), wrong())


def late_receipts(history: History) -> Finding:
    """Every delivery that did not make the outcome is a late receipt, once."""
    outcomes = history.outcomes()
    late: dict[str, set[int]] = defaultdict(set)
    for record in history.of("late-receipts"):
        late[record.value["message_id"]].add(record.value["step"])

    def wrong() -> Iterator[str]:
        for message, notices in history.heard().items():
            if message not in outcomes:
                continue
            value = outcomes[message][0].value
            steps = {notice.step for _, notice in notices}
            if value["status"] == "delivered":
                steps.discard(value["step"])
            missing = steps - late[message]
            if missing:
                yield f"message {message}: deliveries of steps {sorted(missing)} left no late receipt"

    return finding("late receipts", "G6", len(history.notices), wrong())


RANK: Final = {"": 0, "sent": 1, "dispatched": 2, "delivered": 3, "read": 4}
"""How far a step has come. Statuses that are not here (failed, timed out) end a step; `read` and
`delivered` are never left for anything below."""


def monotonic(history: History) -> Finding:
    """Status never goes back: not in fallback's own log of states, and nothing after an outcome."""
    best: dict[tuple[str, int], tuple[int, str]] = {}
    settled: dict[str, str] = {}
    looked = 0

    def wrong() -> Iterator[str]:
        nonlocal looked
        for record in sorted(
            history.of("fallback.changelog"), key=lambda record: (record.partition, record.offset)
        ):
            value = record.value
            if not (record.key or b"").startswith(b"m:") or "steps" not in value:
                continue
            looked += 1
            message = value["message_id"]
            if settled.get(message) not in (None, value["outcome"]):
                yield f"{record.place}: {message} was {settled[message]}, is {value['outcome']!r}"
            if value["outcome"]:
                settled[message] = value["outcome"]
            for number, step in enumerate(value["steps"]):
                rank = RANK.get(step["status"], 0)
                before, name = best.get((message, number), (0, ""))
                if before >= RANK["delivered"] and rank < before:
                    yield f"{record.place}: {message} step {number} was {name}, is {step['status']}"
                best[message, number] = max((before, name), (rank, step["status"]))
        yield from _after_success(history)

    texts = list(wrong())
    return finding("status goes back", "G5", looked, texts)


def _after_success(history: History) -> Iterator[str]:
    """No command and no other outcome after the outcome.

    A command and the outcome of one transaction stand in two partitions, appended in any order:
    what was decided before the outcome is the command that the settled state still waits for.
    """
    commands = history.commands()
    decided: dict[str, str | None] = {}
    for record in history.of("fallback.changelog"):
        if record.value.get("outcome"):
            decided.setdefault(record.value["message_id"], record.value["command_id"])
    for message, records in history.outcomes().items():
        if len({record.value["status"] for record in records}) > 1:
            yield f"message {message}: outcomes disagree"
        at = min(record.at for record in records)
        for command in commands.get(message, ()):
            if command.at > at and command.value["command_id"] != decided.get(message):
                yield f"message {message}: step {command.value['step']} was sent after its outcome"
