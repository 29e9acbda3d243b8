"""One message's story: what happened, why each decision fell as it did, and what it waits for now.

Told from its events alone; fallback's state, where it is at hand, adds what only the state knows:
until when an open message waits. Everything is in the order in which the brokers took the records
(`_appended_at`, one clock), because decisions were made in that order; `occurred_at` is what each
writer said, a provider included.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.domain import story_words as words
from pipeline.domain.lifecycle import ANSWER, OPEN, RECEIPT, RETRY, SEQUENCE, SETTLED, TURN
from pipeline.domain.records import MessageState
from pipeline.domain.story_words import Fact


@dataclass(frozen=True, slots=True)
class Line:
    """One event in words. `because` is the decision that followed and its reason, or empty."""

    at: int
    kind: str
    step: int
    try_no: int
    text: str
    because: str
    event_id: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """What an open message waits for. `what` is a word of `lifecycle` (`sequence`, `turn`,
    `answer`, `receipt`, `retry`) or `unknown`; `until` in milliseconds, None when not known."""

    what: str
    text: str
    until: int | None
    then: str


@dataclass(frozen=True, slots=True)
class Story:
    """A message's story. `status` is open, delivered, failed or rejected; `notes` say what could
    not be found out and why."""

    message_id: str
    status: str
    about: Mapping[str, Any]
    lines: tuple[Line, ...]
    waiting: Waiting | None
    replays: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


_ORDER: Final = (
    "accepted", "rejected", "dispatched", "failed", "delivered", "read", "timed_out",
    "late_receipts", "outcomes", "dead_letter",
)  # fmt: skip
"""Of what was appended in the same millisecond: causes before effects."""

_ABOUT: Final = (
    "tenant", "recipient_key", "priority", "category", "campaign", "country", "replay_of", "trace_id"
)  # fmt: skip


def in_order(facts: Sequence[Fact], at: int | None = None) -> list[Fact]:
    """The facts in the order in which they became known; those until `at` only, when given."""
    known = [fact for fact in facts if at is None or fact["appended_at"] <= at]
    return sorted(
        known, key=lambda f: (f["appended_at"], _ORDER.index(f["kind"]), f["step"], f["try_no"])
    )


def tell(
    facts: Sequence[Fact],
    state: MessageState | None,
    now: int,
    *,
    at: int | None = None,
    replays: Sequence[str] = (),
) -> Story:
    """The story of the message that all `facts` are about; there is at least one.

    `state` is fallback's state of it as of now, if it could be read. With `at` the story is told
    as of then: later facts are unknown, and of the state only the route counts. `replays` are the
    messages that replayed its dead letter.
    """
    known = in_order(facts, at)
    live = state if at is None else None
    moment = now if at is None else at
    outcome = next((fact for fact in known if fact["kind"] == "outcomes"), None)
    notes: list[str] = []
    status = OPEN
    waiting = None
    if outcome is not None:
        status = outcome["status"]
    elif live is not None and live["status"] == SETTLED:
        status = live["outcome"]
        notes.append(words.unstored_outcome(live))
    elif _refused(known):
        status = "rejected"
    elif live is not None:
        waiting = _waiting(live, moment)
    elif known:
        waiting = _guessed(known, state)
    first = known[0] if known else in_order(facts)[0]
    return Story(
        message_id=first["message_id"],
        status=status,
        about=_about(known),
        lines=tuple(
            Line(
                at=fact["appended_at"],
                kind=fact["kind"],
                step=fact["step"],
                try_no=fact["try_no"],
                text=words.happened(fact, _is_repeat(known, number)),
                because=words.decided(
                    fact, _next_move(known, number), _tried(known[:number], fact["step"]), state
                ),
                event_id=fact["event_id"],
            )
            for number, fact in enumerate(known)
        ),
        waiting=waiting,
        replays=tuple(replays),
        notes=notes,
    )


def as_dict(story: Story) -> dict[str, Any]:
    """The story for programs."""
    waiting = story.waiting
    return {
        "message_id": story.message_id,
        "status": story.status,
        **story.about,
        "replayed_as": list(story.replays),
        "events": [
            {
                "at": line.at,
                "kind": line.kind,
                "step": line.step,
                "try_no": line.try_no,
                "text": line.text,
                "because": line.because,
                "event_id": line.event_id,
            }
            for line in story.lines
        ],
        "waiting": None
        if waiting is None
        else {
            "for": waiting.what,
            "text": waiting.text,
            "until": waiting.until,
            "then": waiting.then,
        },
        "notes": list(story.notes),
    }


def _about(known: Sequence[Fact]) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(_ABOUT, "")
    found |= {"accepted_at": None, "deadline": None}
    for fact in reversed(known):
        for name in found:
            found[name] = fact[name] or found[name]
    return found


def _is_repeat(known: Sequence[Fact], number: int) -> bool:
    """Whether a request is not the first one under its message's name."""
    return any(fact["kind"] == "accepted" for fact in known[:number])


def _refused(known: Sequence[Fact]) -> bool:
    """Whether the request itself was rejected: a rejection of another place is of a repeat."""
    accepted = next((f for f in known if f["kind"] == "accepted"), None)
    return any(
        f["kind"] == "rejected" and (accepted is None or words.place(f) == words.place(accepted))
        for f in known
    )


def _is_move(fact: Fact) -> bool:
    """Whether it shows what fallback had decided before: a word on a command, or the end."""
    kind, origin = fact["kind"], fact["origin"]
    return kind in {"dispatched", "timed_out", "outcomes"} or (
        kind == "failed" and origin == "dispatch"
    )


def _tried(before: Sequence[Fact], step: int) -> int:
    """The last try of a step that dispatch has spoken of; 0 for none."""
    return max((f["try_no"] for f in before if _is_move(f) and f["step"] == step), default=0)


def _next_move(known: Sequence[Fact], number: int) -> Fact | None:
    """The first later fact that shows what was decided after this one."""
    fact = known[number]
    here = (fact["step"], fact["try_no"])
    for later in known[number + 1 :]:
        moved = (later["step"], later["try_no"]) > here or fact["kind"] != "timed_out"
        if _is_move(later) and (later["kind"] == "outcomes" or moved):
            return later
    return None


def _waiting(state: MessageState, now: int) -> Waiting:
    """What an open message waits for, by fallback's own word."""
    step = state["steps"][state["step"]] if state["steps"] else None
    what = state["waiting"] or "unknown"
    until, deadline = state["due_at"], state["deadline"]
    channel = step["channel"] if step else ""
    number = words.step_name(state["step"], channel)
    over = f"it has failed (deadline {words.clock(deadline)})"
    ahead = words.after_step(state["steps"], state["step"])
    if what == SEQUENCE:
        text, until, then = words.WAITS[SEQUENCE], deadline, over
    elif what == TURN:
        text, until, then = f"{words.WAITS[TURN]} {number}", deadline, over
    elif what == ANSWER:
        until = state["command_expires_at"]
        text = f"dispatch to hand over {number}, try {step['commands'] if step else 0}"
        then = "dispatch gives it back unsent, and it asks for its turn again"
    elif what == RECEIPT and step is not None:
        until = min((step["dispatched_at"] or 0) + step["window_ms"], deadline)
        text = f"a receipt of {step['provider'] or 'the provider'} for {number}"
        then = over if until == deadline else ahead
    elif what == RETRY:
        text, then = f"the time of the next try of {number}", "it asks for its turn again"
    else:
        text, then = "something that its state does not name", over
    if until is not None and until < now:
        then += f"; that was due {words.span(now - until)} ago{words.OVERDUE.get(what, '')}"
    return Waiting(what, text, until, then)


def _guessed(known: Sequence[Fact], state: MessageState | None) -> Waiting:
    """What the events alone say; the state gives the windows of the route, if it is known."""
    deadline = next((f["deadline"] for f in known if f["deadline"]), None)
    over = f"it has failed (deadline {words.clock(deadline)})" if deadline else "it has failed"
    last = next((f for f in reversed(known) if _is_move(f)), None)
    if last is None:
        text = "its first hand-over: its turn in the recipient's lane, then dispatch"
        return Waiting("unknown", text, deadline, over)
    number = words.step_name(last["step"], last["channel"])
    steps = state["steps"] if state is not None else []
    if last["kind"] == "dispatched":
        text = f"a receipt of {last['provider'] or 'the provider'} for {number}"
        if last["step"] >= len(steps):
            return Waiting(RECEIPT, text, None, "the next step, or the end")
        end = last["occurred_at"] + steps[last["step"]]["window_ms"]
        return Waiting(RECEIPT, text, end, words.after_step(steps, last["step"]))
    if last["kind"] == "timed_out":
        return Waiting("unknown", f"the step after {number}", deadline, over)
    text = f"the next try of {number}, or the step after it"
    return Waiting("unknown", text, last["retry_at"], over)
