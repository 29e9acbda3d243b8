"""Fallback: the one owner of a message's life, from the first look at its idempotency key to its
outcome, and the only writer of commands.

What each record means when it comes

| record | twice | late | before its predecessor | never |
|---|---|---|---|---|
| accepted | the same source: a repeat of ours, dropped; another: `rejected`, duplicate | past the deadline: opened and failed | - | - |
| dispatched, failed of dispatch | the command is live no more: books only | after the command was given up: books only | - | the turn is held until the deadline (an hour at most), then the step is over in doubt |
| delivered, read | the same mark: dropped | after the outcome: `late-receipts` | applies at once, implies dispatched | the window ends the step |
| failed of receipts | the same mark: dropped | after the outcome: `late-receipts` | waits for dispatch's word | the window |
| profile | the same | applies to the next message | - | the message's own addresses |

At two workers: a task has one owner, and an abort drops everything here. Turns: a command is
written only when no other of the same recipient and lane is live, so first tries leave in the
order of the recipient's partition of `accepted`, across channels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from pipeline.domain import ids, life_events, lifecycle, plan
from pipeline.domain.backoff import full_jitter_ms, unit_of
from pipeline.domain.desk import Desk
from pipeline.domain.errors import ErrorClass
from pipeline.domain.lifecycle import ANSWER, OPEN, RECEIPT, RETRY, SEQUENCE, SETTLED, TURN
from pipeline.domain.outcomes import Answer, Inbound, Wake
from pipeline.domain.policy import Policy
from pipeline.domain.ports_stage import StateView
from pipeline.domain.records import (
    RECORD_VERSION,
    Attempt,
    Command,
    Event,
    Ledger,
    Message,
    MessageState,
    Profile,
    StepState,
)
from pipeline.domain.switches import NONE, Switches
from pipeline.domain.tracing import carried

STAGE: Final = "fallback"
READS: Final = (
    "profiles",
    "accepted.{lane}",
    "dispatched",
    "delivered",
    "read",
    "failed",
)
WRITES: Final = (
    "rejected",
    "send.{channel}.{lane}",
    "timed-out",
    "late-receipts",
    "outcomes",
    "dead-letter",
)

GRACE_MS: Final = 15_000
"""After a command's expires_at, until it is surely not sent any more: send lease, request time and
slack."""

UNHEARD_MS: Final = 60 * 60_000
"""Only dispatch can say what became of a command, and it says so of every command that it reads,
however late. Until then nobody may assume that it was not sent: a dead dispatcher may have been in
the middle of it. A command of which nothing is heard for so long after its expires_at was lost, and
its step is over, in doubt."""

LEDGER: Final = b"ledger"
_FOREVER: Final = 1 << 50
_AGAIN: Final = {ErrorClass.TRANSIENT, ErrorClass.THROTTLE}
_COUNTS: Final = ("opened", "duplicates", "repeats", "refused", "settled")

IsSuppressed = Callable[[str, str, str, str], bool]
"""Whether an address must not be written to, by tenant, channel, category and address."""


class Fallback:
    """The stage. Holds nothing about messages: only what it was configured with, and what the
    open transaction adds to the books of each task."""

    def __init__(self, policy: Policy, suppressed: IsSuppressed, switches: Switches = NONE) -> None:
        self._policy, self._suppressed, self._switches = policy, suppressed, switches
        self._counted: dict[int, dict[str, int]] = {}

    # The shape of a stateful stage

    def index(self, key: bytes, value: Mapping[str, Any]) -> Sequence[bytes]:
        """Timer, turn and sequence of a message; nothing else has any."""
        return lifecycle.index(key, cast(MessageState, value)) if key.startswith(b"m:") else ()

    def hold_ms(self, _key: bytes, value: Mapping[str, Any]) -> int:
        """The patience of the message's priority with a silence nobody could hear out. A command
        is never called dead unheard: its silence holds until the deadline."""
        if value["due_for"] == "command":
            return max(0, int(value["deadline"]) - int(value["due_at"]))
        return self._policy.priorities[value["priority"]].blind_hold_ms

    def on_start(self, task: int, _state: StateView, _now: int) -> None:
        """Nothing of an earlier owner's open transaction counts."""
        self._counted[task] = dict.fromkeys(_COUNTS, 0)

    def on_commit(self, task: int, state: StateView, positions: Mapping[str, int]) -> list[Answer]:
        """The books move with every transaction (G10)."""
        counted = self._counted[task]
        self._counted[task] = dict.fromkeys(_COUNTS, 0)
        kept = cast(Ledger | None, state.get(LEDGER))
        total = {name: counted[name] + (kept[name] if kept else 0) for name in _COUNTS}
        desk = Desk(self, state)
        desk.put(
            LEDGER,
            {
                "record_version": RECORD_VERSION,
                "tenant": "",
                "partition": task,
                "positions": {**(kept["positions"] if kept else {}), **positions},
                **total,
                "open": total["opened"] - total["settled"],
            },
        )
        return desk.answers()

    def on_record(self, record: Inbound, state: StateView, now: int) -> list[Answer]:
        """A profile, a request, dispatch's word on a command, or a receipt."""
        desk = Desk(self, state)
        if record.topic == "profiles":
            if record.value is not None:
                profile = cast(Profile, record.value)
                desk.put(lifecycle.profile_key(profile["recipient_key"]), record.value)
        elif record.topic.startswith("accepted."):
            self._open(desk, record, now)
        else:
            self._event(desk, cast(Event, record.value), now)
        return desk.answers()

    def on_wake(self, wake: Wake, state: StateView, now: int) -> list[Answer]:
        """A window, a retry, a deadline, a dead command, or the end of remembering."""
        desk = Desk(self, state)
        message = cast(MessageState | None, desk.get(wake.key))
        if message is None or message["due_at"] != wake.due:
            return []  # another timer of the same turn has moved this one already
        due_for = message["due_for"]
        if due_for == "forget":
            desk.put(wake.key, None)
            return desk.answers()
        self._keep(desk, message)
        # A command's silence is held until the deadline, so a blind one means that this is over.
        if due_for == "command" and (not wake.blind or message["status"] == SETTLED):
            self._command_died(desk, message, now)
        elif message["status"] == SETTLED:
            self._arm(message)
        elif due_for in ("deadline", "command"):
            self._settle(desk, message, "failed", "deadline", message["step"], now)
        elif due_for == "window":
            self._silent(desk, message, wake.blind, now)
        else:
            self._ask_turn(desk, message, now)
        return desk.answers()

    def on_crash(self, record: Inbound, state: StateView, now: int, _detail: str) -> list[Answer]:
        """A fault of ours: the message ends as failed, so that nobody waits for it for ever."""
        desk = Desk(self, state)
        name = (record.value or {}).get("message_id") if isinstance(record.value, dict) else None
        key = lifecycle.message_key(name) if name else record.key or b""
        message = cast(MessageState | None, desk.get(key)) if key.startswith(b"m:") else None
        if message is None and record.topic.startswith("accepted."):
            message = lifecycle.opened(cast(Message, record.value), record, [])
            self._count(desk, "opened")
        if message is None:
            return []
        self._keep(desk, message)
        message["command_id"] = None
        if message["status"] == OPEN:
            self._settle(desk, message, "failed", "internal", message["step"], now)
        else:
            self._arm(message)
        return desk.answers()

    # Opening

    def _open(self, desk: Desk, record: Inbound, now: int) -> None:
        asked = cast(Message, record.value)
        key = lifecycle.message_key(asked["message_id"])
        known = cast(MessageState | None, desk.get(key))
        if known is not None and not self._switches.no_dedup:
            if known["source"] == asked["source"]:
                self._count(desk, "repeats")
            else:
                self._count(desk, "duplicates")
                self._reject(desk, asked, record, "duplicate", "idempotency_key", now)
            return
        profile = cast(Profile | None, desk.get(lifecycle.profile_key(asked["recipient_key"])))
        to = plan.with_profile(asked, profile)
        steps, removed = plan.resolve(
            asked,
            to,
            profile,
            self._policy,
            lambda channel, address: self._suppressed(
                asked["tenant"], channel, asked["category"], address
            ),
        )
        if removed and not steps:
            self._count(desk, "refused")
            self._reject(desk, asked, record, "opted_out", "to", now)
            return
        self._count(desk, "opened")
        message = lifecycle.opened(asked, record, steps)
        ahead = message["sequence"] is not None and desk.scan(lifecycle.sequence_prefix(message), 1)
        self._keep(desk, message)
        desk.put(lifecycle.content_key(asked["message_id"]), {**asked, "to": to})
        if not steps:
            self._settle(desk, message, "failed", "no_route", 0, now)
        elif ahead:
            self._wait(message, SEQUENCE)
        else:
            self._ask_turn(desk, message, now)

    def _reject(
        self, desk: Desk, asked: Message, record: Inbound, reason: str, field: str, now: int
    ) -> None:
        event = life_events.rejected(asked, reason, field, now)
        desk.emit("rejected", asked["recipient_key"], event, carried(record.headers))

    # Turns and commands

    def _ask_turn(self, desk: Desk, message: MessageState, now: int) -> None:
        """Writes the command when the recipient's lane is free and nobody is before, else waits."""
        self._wait(message, TURN)
        self._next_turn(desk, message, now)

    def _next_turn(self, desk: Desk, message: MessageState, now: int) -> None:
        """Gives the recipient's turn in this lane to whoever is first, if it is free."""
        while not desk.scan(lifecycle.live_prefix(message), 1):
            queue = desk.scan(lifecycle.turn_prefix(message), 1)
            if not queue:
                return
            key = lifecycle.message_key(lifecycle.message_of_entry(queue[0]))
            first = cast(MessageState, desk.get(key))
            self._keep(desk, first)
            self._command(desk, first, now)

    def _command(self, desk: Desk, message: MessageState, now: int) -> None:
        if now >= message["deadline"] and not self._switches.deadline_ignored:
            self._settle(desk, message, "failed", "deadline", message["step"], now)
            return
        key = lifecycle.content_key(message["message_id"])
        content = cast(Message, desk.get(key))
        number = message["step"]
        step = message["steps"][number]
        address = plan.address_of(content["to"], step["channel"])
        if address is None or self._suppressed(
            message["tenant"], step["channel"], message["category"], address
        ):
            self._step_over(desk, message, "skipped", "opted_out", now)
            return
        step["commands"] += 1
        step["status"] = "sent"
        step["alive"] = step["negatives"] = 0
        deadline = _FOREVER if self._switches.deadline_ignored else message["deadline"]
        ttl = self._policy.priorities[message["priority"]].command_ttl_ms
        expires_at = min(deadline, now + ttl)
        command: Command = {
            "record_version": RECORD_VERSION,
            "tenant": message["tenant"],
            "message_id": message["message_id"],
            "recipient_key": message["recipient_key"],
            "command_id": ids.command_id(message["message_id"], number, step["commands"]),
            "step": number,
            "try_no": step["commands"],
            "key_no": step["key_no"],
            "channel": step["channel"],
            "address": address,
            "content": content["content"],
            "country": message["country"],
            "category": message["category"],
            "campaign": message["campaign"],
            "priority": message["priority"],
            "on_doubt": message["on_doubt"],
            "window_ms": step["window_ms"],
            "expires_at": expires_at,
            "accepted_at": message["accepted_at"],
            "order": message["accepted_offset"],
        }
        message["command_id"] = command["command_id"]
        message["command_expires_at"] = expires_at
        self._wait(message, ANSWER)
        desk.emit(
            f"send.{step['channel']}.{message['priority']}",
            message["recipient_key"],
            command,
            lifecycle.trace_headers(message),
        )

    def _command_died(self, desk: Desk, message: MessageState, now: int) -> None:
        """Nobody will answer this command any more, and nobody can send it."""
        self._release(desk, message, now)
        if message["status"] == OPEN:
            message["steps"][message["step"]]["result"] = "unknown"
            message["in_doubt"] = True
            self._silent(desk, message, False, now)
            self._next_turn(desk, message, now)

    def _release(self, desk: Desk, message: MessageState, now: int) -> None:
        """The live command is over. Who is next is looked up by the caller or here, once the
        message itself has decided what it wants."""
        message["command_id"] = None
        message["command_expires_at"] = None
        message["waiting"] = ""
        self._arm(message)
        if message["status"] == SETTLED:
            self._next_turn(desk, message, now)

    # Events

    def _event(self, desk: Desk, event: Event, now: int) -> None:
        message = cast(MessageState | None, desk.get(lifecycle.message_key(event["message_id"])))
        if message is None:
            return  # forgotten, or never ours: nothing may come of it
        self._keep(desk, message)
        if event["origin"] == "dispatch":
            self._word_of_dispatch(desk, message, event, now)
        else:
            self._receipt(desk, message, event, now)

    def _word_of_dispatch(self, desk: Desk, message: MessageState, event: Event, now: int) -> None:
        if event["command_id"] != message["command_id"]:
            return  # a repeat, or the word on a command that was given up
        step = message["steps"][event["step"]]
        settled = message["status"] == SETTLED
        self._book(message, step, event["attempts"])
        if settled:
            lifecycle.forget_what_is_over(message)
        self._release(desk, message, now)
        if settled:
            return
        if event["kind"] == "dispatched":
            step["result"] = event["result"]
            step["provider"] = event["provider"] or step["provider"]
            step["dispatched_at"] = event["occurred_at"]
            if lifecycle.better("dispatched", step["status"]):
                step["status"] = "dispatched"
            step["tries"] += 1
            if event["result"] == "accepted" and step["success"] == "accepted":
                self._succeed(desk, message, event["step"], "accepted", now)
            elif step["negatives"] and step["negatives"] >= step["alive"]:
                step["key_no"] += 1
                self._move_on(desk, message, step["negative_class"], step["negative_code"], now)
            else:
                self._wait(message, RECEIPT)
        elif event["reason"] == "expired":
            self._ask_turn(desk, message, now)
            return
        else:
            step["tries"] += 1
            step["key_no"] += 1
            self._move_on(
                desk,
                message,
                event["error_class"] or "",
                event["code"] or "",
                now,
                event["retry_at"],
            )
        self._next_turn(desk, message, now)

    def _book(self, message: MessageState, step: StepState, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            message["attempts"].append(attempt)
            message["cost"] = round(message["cost"] + attempt["cost"], 6)
            message["currency"] = attempt["currency"] or message["currency"]
            message["in_doubt"] = message["in_doubt"] or attempt["in_doubt"]
            message["resent"] = message["resent"] or attempt["resent"]
            if attempt["result"] != "refused":
                step["alive"] += attempt["requests"] if attempt["resent"] else 1
                step["cost"] = attempt["cost"] or step["cost"]

    def _receipt(self, desk: Desk, message: MessageState, event: Event, now: int) -> None:
        mark = lifecycle.receipt_mark(event)
        if mark in message["seen"] or event["step"] >= len(message["steps"]):
            return
        message["seen"] = [*message["seen"], mark]
        step = message["steps"][event["step"]]
        if message["status"] == SETTLED:
            self._late(desk, message, event, now)
            return
        if event["kind"] == "failed":
            self._negative(desk, message, step, event, now)
            return
        self._first_reach(message, event)
        message["delivered_channel"] = step["channel"]
        if lifecycle.better(event["kind"], step["status"]):
            step["status"] = event["kind"]
        step["provider"] = event["provider"] or step["provider"]
        if lifecycle.reached(event["kind"], step["success"]):
            # What the step asked for, and not which of two receipts came first.
            self._succeed(desk, message, event["step"], step["success"], now)

    def _negative(
        self, desk: Desk, message: MessageState, step: StepState, event: Event, now: int
    ) -> None:
        """Counts against the step at work; acts once dispatch has spoken and no hand-over of the
        step is left that could still arrive."""
        if event["step"] != message["step"] or lifecycle.better(step["status"], "dispatched"):
            return
        if lifecycle.is_of_earlier_try(message, event["provider_message_id"]):
            return
        step["negatives"] += 1
        step["negative_class"] = event["error_class"] or ""
        step["negative_code"] = event["code"] or ""
        if message["waiting"] == RECEIPT and step["negatives"] >= step["alive"]:
            step["key_no"] += 1
            self._move_on(desk, message, step["negative_class"], step["negative_code"], now)
            self._next_turn(desk, message, now)

    def _late(self, desk: Desk, message: MessageState, event: Event, now: int) -> None:
        """A receipt after the outcome. Each hand-over that reached the person counts once, and
        what follows of a hand-over that counted already is no news."""
        reaching = event["kind"] != "failed"
        twice = reaching and message["delivered_channel"] != ""
        if reaching:
            if not self._first_reach(message, event):
                return
            message["delivered_channel"] = (
                message["delivered_channel"] or message["steps"][event["step"]]["channel"]
            )
        late = life_events.late_receipt(message, event, twice, now)
        desk.emit("late-receipts", message["recipient_key"], late, lifecycle.trace_headers(message))
        if self._switches.status_may_go_back:
            self._outcome(desk, message, "failed", event["kind"], event["step"], now)

    def _first_reach(self, message: MessageState, event: Event) -> bool:
        """Whether this hand-over was not known to have reached the person; now it is."""
        mark = lifecycle.reach_mark(event)
        if mark in message["seen"]:
            return False
        message["seen"] = [*message["seen"], mark]
        return True

    # Decisions

    def _move_on(
        self,
        desk: Desk,
        message: MessageState,
        error_class: str,
        code: str,
        now: int,
        retry_at: int | None = None,
    ) -> None:
        """The step at work has failed: what its class asks for."""
        step = message["steps"][message["step"]]
        policy = self._policy
        retry = policy.priorities[message["priority"]].retry
        if error_class in _AGAIN and step["tries"] < retry.max_tries:
            unit = unit_of(message["message_id"], message["step"], step["tries"])
            at = max(now + full_jitter_ms(retry, step["tries"], unit), retry_at or 0)
            if at < message["deadline"]:
                step["status"] = "failed"
                self._wait(message, RETRY)
                self._due(message, at, "retry")
                return
        stops = (error_class == ErrorClass.OPT_OUT and policy.on_opt_out == "stop") or (
            error_class == ErrorClass.CONTENT and policy.on_content == "stop"
        )
        reason = error_class or ErrorClass.UNKNOWN.value
        if stops:
            step["status"], step["reason"] = "failed", code
            self._settle(desk, message, "failed", reason, message["step"], now)
        else:
            self._step_over(desk, message, "failed", reason, now)

    def _silent(self, desk: Desk, message: MessageState, blind: bool, now: int) -> None:
        event = life_events.timed_out(message, blind, now)
        desk.emit("timed-out", message["recipient_key"], event, lifecycle.trace_headers(message))
        self._step_over(desk, message, "timed_out", "timed_out", now)

    def _step_over(
        self, desk: Desk, message: MessageState, status: str, reason: str, now: int
    ) -> None:
        """On to the next step, or to the end."""
        step = message["steps"][message["step"]]
        if not lifecycle.better(step["status"], "dispatched"):
            step["status"] = status
        step["reason"] = reason
        if message["step"] + 1 >= len(message["steps"]):
            self._settle(desk, message, "failed", reason, message["step"], now)
            return
        message["step"] += 1
        self._ask_turn(desk, message, now)

    def _succeed(self, desk: Desk, message: MessageState, step: int, kind: str, now: int) -> None:
        self._settle(desk, message, "delivered", kind, step, now)

    def _settle(
        self, desk: Desk, message: MessageState, status: str, reason: str, step: int, now: int
    ) -> None:
        """Writes the one outcome; a failure also goes to the dead letters with all that is known."""
        self._count(desk, "settled")
        message["status"] = SETTLED
        message["outcome"], message["outcome_reason"] = status, reason
        message["settled_at"] = now
        if message["waiting"] != ANSWER:
            message["waiting"] = ""
        self._outcome(desk, message, status, reason, step, now)
        key = lifecycle.content_key(message["message_id"])
        if status == "failed":
            content = cast(Message | None, desk.get(key))
            letter = life_events.dead_letter(message, reason, content, now)
            trace = lifecycle.trace_headers(message)
            desk.emit("dead-letter", message["recipient_key"], letter, trace)
        desk.put(key, None)
        lifecycle.forget_what_is_over(message)
        self._arm(message)
        if message["sequence"] is not None:
            self._wake_sequence(desk, message, now)

    def _outcome(
        self, desk: Desk, message: MessageState, status: str, reason: str, step: int, now: int
    ) -> None:
        name = ids.event_id(message["message_id"], 0, 0, "", "outcome", "")
        outcome = lifecycle.outcome_of(message, name, status, reason, step, now)
        desk.emit("outcomes", message["recipient_key"], outcome, lifecycle.trace_headers(message))

    def _wake_sequence(self, desk: Desk, message: MessageState, now: int) -> None:
        for entry in desk.scan(lifecycle.sequence_prefix(message), 1):
            key = lifecycle.message_key(lifecycle.message_of_entry(entry))
            following = cast(MessageState, desk.get(key))
            if following["waiting"] == SEQUENCE:
                self._keep(desk, following)
                self._ask_turn(desk, following, now)

    # Waiting

    def _wait(self, message: MessageState, what: str) -> None:
        message["waiting"] = what
        self._arm(message)

    def _due(self, message: MessageState, at: int, due_for: str) -> None:
        message["due_at"], message["due_for"] = at, due_for

    def _arm(self, message: MessageState) -> None:
        """One timer a message: the first thing that time alone will bring."""
        if message["command_id"] is not None:
            patience = UNHEARD_MS if message["status"] == OPEN else GRACE_MS
            died = (message["command_expires_at"] or 0) + patience
            if message["status"] == OPEN and message["deadline"] < died:
                self._due(message, message["deadline"], "deadline")
            else:
                self._due(message, died, "command")
        elif message["status"] == SETTLED:
            self._due(message, (message["settled_at"] or 0) + self._policy.remember_ms, "forget")
        else:
            self._due(message, message["deadline"], "deadline")
            if message["waiting"] == RECEIPT:
                step = message["steps"][message["step"]]
                window = 0 if self._switches.window_ignored else step["window_ms"]
                end = (step["dispatched_at"] or 0) + window
                if end <= message["deadline"]:
                    self._due(message, end, "window")
        if self._switches.deadline_ignored and message["due_for"] == "deadline":
            self._due(message, _FOREVER, "deadline")

    # Books

    def _keep(self, desk: Desk, message: MessageState) -> None:
        desk.put(lifecycle.message_key(message["message_id"]), lifecycle.as_dict(message))

    def _count(self, desk: Desk, name: str) -> None:
        self._counted.setdefault(desk.task, dict.fromkeys(_COUNTS, 0))[name] += 1
