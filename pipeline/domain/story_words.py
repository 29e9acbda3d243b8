"""The words of a message's story: what each event means, and what each decision rested on."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypedDict

from pipeline.domain.errors import ErrorClass
from pipeline.domain.lifecycle import RECEIPT, RETRY, SEQUENCE, TURN
from pipeline.domain.records import MessageState, StepState


class Fact(TypedDict):
    """One event of a message as the table `events_unique` has it; times in milliseconds."""

    event_id: str
    kind: str
    tenant: str
    message_id: str
    recipient_key: str
    step: int
    try_no: int
    occurred_at: int
    appended_at: int
    accepted_at: int | None
    deadline: int | None
    retry_at: int | None
    channel: str
    provider: str
    country: str
    priority: str
    category: str
    campaign: str
    status: str
    result: str
    error_class: str
    code: str
    reason: str
    field: str
    latency_ms: int
    cost: float
    currency: str
    attempts: list[dict[str, Any]]
    attempts_made: int
    origin: str
    on_doubt: str
    in_doubt: bool
    resent: bool
    blind: bool
    reached_before: bool
    replay_of: str
    source_topic: str
    source_partition: int
    source_offset: int
    trace_id: str
    topic: str
    partition: int


WAITS: Final[Mapping[str, str]] = {
    SEQUENCE: "the outcome of the message before it in its sequence",
    TURN: "the turn of the person: another message to them in this lane goes first, then",
}

OVERDUE: Final[Mapping[str, str]] = {
    RECEIPT: ": receipts have to be read up to then first (does receipts run, and fallback?)",
    RETRY: " (does fallback run?)",
}

CLASSES: Final[Mapping[str, str]] = {
    ErrorClass.TRANSIENT: "the same request may work later",
    ErrorClass.THROTTLE: "it was too fast for the provider",
    ErrorClass.PROVIDER: "this provider cannot",
    ErrorClass.CHANNEL: "this channel cannot reach this person",
    ErrorClass.RECIPIENT: "the address is bad",
    ErrorClass.OPT_OUT: "the person said stop",
    ErrorClass.CONTENT: "the same content would fail again",
    ErrorClass.CONFIG: "our own configuration is wrong: somebody must look",
    ErrorClass.UNKNOWN: "the code is not in the provider's table",
}

REASONS: Final[Mapping[str, str]] = {
    **CLASSES,
    "timed_out": "nobody said that it arrived",
    "deadline": "its deadline was over",
    "no_route": "no step of its route has an address to go to",
    "opted_out": "the address was suppressed",
    "internal": "a fault of our own code; the worker's log has it",
    "accepted": "the step asks for no more than a provider that takes it",
    "delivered": "that is what the step asks for",
    "read": "that is what the step asks for",
}

_SAID: Final[Mapping[str, str]] = {
    "delivered": "it reached the person",
    "read": "the person opened it",
    "failed": "it did not reach the person",
}


def happened(fact: Fact, repeat: bool) -> str:
    """What an event says; `repeat`: an earlier request had its name already."""
    kind = fact["kind"]
    if kind == "accepted":
        return _accepted(fact, repeat)
    if kind == "rejected":
        return f"{fact['origin']} refused {place(fact)}: {_join(fact['field'], fact['reason'])}"
    number = step_name(fact["step"], fact["channel"])
    if kind == "dispatched":
        return f"{number}, try {fact['try_no']}: {_handed(fact)}"
    if kind == "failed" and fact["origin"] == "dispatch":
        return f"{number}, try {fact['try_no']}: {_handed(fact) or _blank(fact)}"
    if kind in {"delivered", "read", "failed"}:
        return f"{number}: {fact['provider']} says that {_SAID[kind]}{_detail(fact)}{_when(fact)}"
    if kind == "timed_out":
        doubt = "; it is not known whether it was sent" if fact["in_doubt"] else ""
        return f"{number}: silence for {span(fact['latency_ms'])}{doubt}"
    if kind == "late_receipts":
        said = _SAID.get(fact["reason"], fact["reason"])
        return f"{number}: {fact['provider']} says after the outcome that {said}{_detail(fact)}"
    if kind == "outcomes":
        return _outcome(fact)
    return f"kept as a dead letter: pipeline dead-letters show {fact['event_id']}"


def decided(fact: Fact, move: Fact | None, tried: int, state: MessageState | None) -> str:
    """Why the message went on as it did; empty where nothing was decided. `move` is what shows
    it: the next word on a command, or the outcome. `tried` is the last try of the step that
    dispatch had spoken of by then."""
    kind = fact["kind"]
    if kind == "accepted":
        return _route(state)
    if kind == "rejected":
        return _why_rejected(fact)
    if kind == "dispatched":
        return _after_dispatched(fact, move, state)
    if kind == "failed":
        if fact["origin"] != "dispatch" and (move is None or _stays(fact, move, tried)):
            return "counted; another hand-over may still arrive, or dispatch has yet to answer"
        return _join(_class_of(fact), _went(fact, move, state))
    if kind == "timed_out":
        heard = (
            "taken as silence although receipts lagged (blind)"
            if fact["blind"]
            else "every receipt until then was read"
        )
        return _join(heard, _went(fact, move, state))
    if kind in {"delivered", "read"}:
        if move is not None and move["kind"] == "outcomes" and move["status"] == "delivered":
            return REASONS["delivered"]
        return "noted: its step asks for more" if _asks_for_read(fact, state) else ""
    if kind == "late_receipts":
        return (
            "the person was reached twice; the outcome stays"
            if fact["reached_before"]
            else "the outcome stays"
        )
    return REASONS.get(fact["reason"], fact["reason"]) if kind == "outcomes" else ""


def step_name(step: int, channel: str) -> str:
    """A step as people count them."""
    return f"step {step + 1} {channel}".rstrip()


def after_step(steps: Sequence[StepState], step: int) -> str:
    """What comes when a step is over without success."""
    if step + 1 < len(steps):
        return f"it goes on with {step_name(step + 1, steps[step + 1]['channel'])}"
    return "it has failed: no step is left"


def place(fact: Fact) -> str:
    """Where the request of an event stands."""
    return f"{fact['source_topic']}[{fact['source_partition']}]@{fact['source_offset']}"


def unstored_outcome(state: MessageState) -> str:
    """A message that has its outcome, which ClickHouse does not have yet."""
    return (
        f"fallback settled it as {state['outcome']} ({state['outcome_reason']}) at "
        f"{clock(state['settled_at'])}; the sink has not stored that yet"
    )


def clock(at: int | None) -> str:
    """A moment for people, UTC."""
    if at is None:
        return "?"
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at)
    except OverflowError:
        return str(at)
    return moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{at % 1000:03d}"


def span(length_ms: int) -> str:
    """A length of time for people: 350 ms, 20.1 s, 5m 12s, 3h 20m, 2d 4h."""
    if length_ms < 1_000:
        return f"{length_ms} ms"
    if length_ms < 60_000:
        return f"{length_ms / 1000:.1f} s"
    seconds = length_ms // 1_000
    for unit, size, lower, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit} {seconds % size // part}{lower}"
    return f"{seconds // 60}m {seconds % 60}s"


def _accepted(fact: Fact, repeat: bool) -> str:
    if repeat:
        return f"asked for again at {place(fact)}"
    replay = f", a replay of {fact['replay_of']}" if fact["replay_of"] else ""
    return (
        f"taken from {place(fact)} as {fact['priority']} {fact['category']}{replay}; worth sending "
        f"until {clock(fact['deadline'])}"
    )


def _handed(fact: Fact) -> str:
    return ", then ".join(_attempt(attempt) for attempt in fact["attempts"])


def _attempt(attempt: Mapping[str, Any]) -> str:
    provider, took = attempt["provider"], f"in {span(int(attempt['latency_ms']))}"
    why = _brackets(attempt["error_class"], attempt["code"])
    requests = int(attempt["requests"])
    many = f" ({requests} requests)" if requests > 1 else ""
    again = ", sent again although the first may have arrived" if attempt["resent"] else ""
    if attempt["result"] == "accepted":
        cost = f" for {attempt['cost']:g} {attempt['currency']}" if attempt["cost"] else ""
        return f"{provider} took it {took}{cost}{many}{again}"
    if attempt["result"] == "refused":
        return f"{provider} refused it {took}{why}{many}"
    return f"{provider} may have taken it{why}{many}{again}"


def _blank(fact: Fact) -> str:
    """A command that no provider was asked about."""
    return f"not sent{_brackets(fact['error_class'], fact['code'])}"


def _detail(fact: Fact) -> str:
    return _brackets(fact["error_class"], fact["code"])


def _brackets(*parts: str) -> str:
    named = [part for part in dict.fromkeys(parts) if part]
    return f" ({', '.join(named)})" if named else ""


def _when(fact: Fact) -> str:
    """When it happened by the provider's clock, if that is another moment than we heard of it."""
    if abs(fact["appended_at"] - fact["occurred_at"]) <= 1_000:
        return ""
    return f", at {clock(fact['occurred_at'])} by its clock"


def _outcome(fact: Fact) -> str:
    steps = f"step {fact['step'] + 1}" if fact["channel"] else ""
    by = " by " + " ".join(filter(None, (fact["channel"], fact["provider"]))) if steps else ""
    cost = f", {fact['cost']:g} {fact['currency']}" if fact["cost"] else ""
    doubt = ", with a doubt that was never settled" if fact["in_doubt"] else ""
    made = f", {fact['attempts_made']} attempts" if fact["attempts_made"] != 1 else ", 1 attempt"
    if fact["status"] == "delivered":
        return f"delivered{by} ({steps}) after {span(fact['latency_ms'])}{made}{cost}{doubt}"
    return f"failed after {span(fact['latency_ms'])}{made}{cost}{doubt}"


def _why_rejected(fact: Fact) -> str:
    if fact["code"] == "duplicate":
        return "its idempotency key names this message already, so nothing is sent for it"
    if fact["code"] == "opted_out":
        return "every address of its route is suppressed"
    return ""


def _after_dispatched(fact: Fact, move: Fact | None, state: MessageState | None) -> str:
    if move is not None and move["kind"] == "outcomes" and move["reason"] == "accepted":
        return REASONS["accepted"]
    window = _window(fact, state)
    within = f" within {window}" if window else ""
    if fact["result"] == "unknown":
        policy = "" if not fact["on_doubt"] else f" (on_doubt {fact['on_doubt']})"
        return f"not sent again{policy}: a receipt{within} or the silence after it decides"
    return f"now a receipt has to come{within}"


def _window(fact: Fact, state: MessageState | None) -> str:
    if state is None or fact["step"] >= len(state["steps"]):
        return ""
    return span(state["steps"][fact["step"]]["window_ms"])


def _asks_for_read(fact: Fact, state: MessageState | None) -> bool:
    if fact["kind"] == "read" or state is None or fact["step"] >= len(state["steps"]):
        return False
    return state["steps"][fact["step"]]["success"] == "read"


def _class_of(fact: Fact) -> str:
    if fact["reason"] == "expired":
        return "it was not sent by its time"
    if fact["code"] in {"suppressed", "no_provider"}:
        return {
            "suppressed": "the address is suppressed",
            "no_provider": "no provider of the channel serves the country",
        }[fact["code"]]
    return CLASSES.get(fact["error_class"], "")


def _stays(fact: Fact, move: Fact, tried: int) -> bool:
    """Whether the message did not move on because of this receipt: the same command went on. A
    receipt names no try, so `tried` says which one was at work."""
    same = move["step"] == fact["step"] and move["try_no"] == max(tried, 1)
    return same and move["kind"] != "outcomes"


def _route(state: MessageState | None) -> str:
    if state is None:
        return ""
    steps = [
        f"{step['channel']} ({step['success']} within {span(step['window_ms'])})"
        for step in state["steps"]
    ]
    return "its route: " + ", then ".join(steps) if steps else ""


def _went(fact: Fact, move: Fact | None, state: MessageState | None) -> str:
    """Where the message went after a failure or a silence."""
    if move is None:
        named = f", not before {clock(fact['retry_at'])}" if fact["retry_at"] else ""
        return f"what follows is not decided or not stored yet{named}"
    if move["kind"] == "outcomes":
        return _ended(fact, move, state)
    if move["step"] == fact["step"]:
        return f"so tried again ({span(max(0, move['appended_at'] - fact['appended_at']))} later)"
    skipped = move["step"] - fact["step"] - 1
    left = f"; {skipped} left out, their address was suppressed by then" if skipped > 0 else ""
    return f"so on to {step_name(move['step'], move['channel'])}{left}"


def _ended(fact: Fact, move: Fact, state: MessageState | None) -> str:
    if move["status"] == "delivered":
        return "a receipt came all the same"
    if move["reason"] == "deadline":
        return "its deadline came first"
    last = state is not None and fact["step"] + 1 >= len(state["steps"])
    stopping = fact["error_class"] in {ErrorClass.OPT_OUT, ErrorClass.CONTENT}
    if last or (state is None and not stopping):
        return "no step was left"
    return "nothing more is sent for it"


def _join(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
