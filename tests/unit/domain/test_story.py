"""A message's story from made events: order, reasons, and what it waits for."""

from typing import Any, cast

import pytest

from pipeline.domain import lifecycle, story
from pipeline.domain.outcomes import Inbound
from pipeline.domain.records import MessageState, StepState
from pipeline.domain.story import Story
from pipeline.domain.story_words import Fact, clock, span

T0 = 1_767_225_600_000
DAY = 86_400_000


def fact(kind: str, at: int, **changes: Any) -> Fact:
    """An event `at` milliseconds after the beginning; the writer's clock agrees."""
    blank: dict[str, Any] = {
        name: {int: 0, bool: False, float: 0.0}.get(hint, "")
        for name, hint in Fact.__annotations__.items()
    }
    blank |= {"accepted_at": T0, "deadline": None, "retry_at": None, "attempts": []}
    blank |= {
        "event_id": f"{kind}-{at}",
        "kind": kind,
        "tenant": "acme",
        "message_id": "m-1",
        "occurred_at": T0 + at,
        "appended_at": T0 + at,
        "source_topic": "intake",
    }
    return cast(Fact, blank | changes)


def accepted(at: int = 0, **changes: Any) -> Fact:
    return fact("accepted", at, priority="normal", category="otp", deadline=T0 + DAY, **changes)


def attempt(provider: str, result: str, error_class: str = "", code: str = "", **changes: Any):
    return {
        "provider": provider,
        "result": result,
        "requests": 1,
        "latency_ms": 120,
        "error_class": error_class,
        "code": code,
        "cost": 0.03 if result == "accepted" else 0.0,
        "currency": "EUR",
        "in_doubt": False,
        "resent": False,
        **changes,
    }


def dispatched(at: int, step: int = 0, try_no: int = 1, **changes: Any) -> Fact:
    found = {"result": "accepted", "provider": "sms-a", "channel": "sms", "origin": "dispatch"}
    found |= {"attempts": [attempt("sms-a", "accepted")]} | changes
    return fact("dispatched", at, step=step, try_no=try_no, **found)


def failed(at: int, error_class: str, step: int = 0, try_no: int = 1, **changes: Any) -> Fact:
    found = {"result": "refused", "provider": "sms-a", "channel": "sms", "origin": "dispatch"}
    found |= {"attempts": [attempt("sms-a", "refused", error_class, "http_500")]} | changes
    return fact("failed", at, step=step, try_no=try_no, error_class=error_class, **found)


def receipt(kind: str, at: int, step: int = 0, **changes: Any) -> Fact:
    found = {"provider": "sms-a", "channel": "sms", "origin": "receipts"} | changes
    return fact(kind, at, step=step, **found)


def outcome(at: int, status: str, reason: str, step: int = 0, **changes: Any) -> Fact:
    return fact(
        "outcomes", at, step=step, status=status, reason=reason, channel="sms", latency_ms=at,
        **changes,
    )  # fmt: skip


def a_step(channel: str, **changes: Any) -> StepState:
    found = {
        "channel": channel, "window_ms": 20_000, "success": "delivered", "status": "", "tries": 0,
        "key_no": 0, "dispatched_at": None, "provider": "", "reason": "", "result": "",
        "commands": 1, "alive": 0, "negatives": 0, "negative_class": "", "negative_code": "",
        "cost": 0.0,
    }  # fmt: skip
    return cast(StepState, found | changes)


def a_state(*steps: StepState, **changes: Any) -> MessageState:
    message: Any = {
        "tenant": "acme", "message_id": "m-1", "recipient_key": "r", "accepted_at": T0,
        "source": {"topic": "intake", "partition": 0, "offset": 0}, "deadline": T0 + DAY,
        "priority": "normal", "category": "otp", "campaign": None, "labels": {}, "country": "DE",
        "sequence": None, "on_doubt": "wait", "replay_of": None,
    }  # fmt: skip
    record = Inbound("accepted.normal", 0, 0, T0, None, None)
    found = lifecycle.opened(message, record, list(steps) or [a_step("sms")])
    return cast(MessageState, {**found, **changes})


def texts(told: Story) -> list[tuple[str, str]]:
    return [(line.kind, line.because) for line in told.lines]


def test_a_fallback_is_told_in_order_with_the_reason_of_every_decision() -> None:
    facts = [
        outcome(25_000, "delivered", "delivered", 1, attempts_made=3, cost=0.06, currency="EUR"),
        receipt("delivered", 24_990, 1, occurred_at=T0 + 21_000),
        dispatched(20_100, 1, channel="voice"),
        fact("timed_out", 20_050, try_no=2, channel="sms", latency_ms=19_000, origin="fallback"),
        dispatched(1_000, 0, 2),
        failed(50, "transient"),
        accepted(),
    ]
    told = story.tell(facts, None, T0 + 30_000)
    assert [line.kind for line in told.lines] == [
        "accepted", "failed", "dispatched", "timed_out", "dispatched", "delivered", "outcomes",
    ]  # fmt: skip
    reasons = [line.because for line in told.lines]
    assert reasons[1] == "the same request may work later; so tried again (950 ms later)"
    assert reasons[2] == "now a receipt has to come"
    assert reasons[3] == "every receipt until then was read; so on to step 2 voice"
    assert reasons[5] == "that is what the step asks for"
    said = [line.text for line in told.lines]
    assert said[0].startswith(
        "taken from intake[0]@0 as normal otp; worth sending until 2026-01-02"
    )
    assert said[1] == "step 1 sms, try 1: sms-a refused it in 120 ms (transient, http_500)"
    assert said[2] == "step 1 sms, try 2: sms-a took it in 120 ms for 0.03 EUR"
    assert said[3] == "step 1 sms: silence for 19.0 s"
    assert said[5].endswith("it reached the person, at 2026-01-01 00:00:21.000 by its clock")
    assert said[6] == "delivered by sms (step 2) after 25.0 s, 3 attempts, 0.06 EUR"
    assert (told.status, told.waiting) == ("delivered", None)


@pytest.mark.parametrize(
    ("end", "state", "because"),
    [
        (outcome(90, "failed", "content"), None, "fail again; nothing more is sent for it"),
        (
            outcome(90, "failed", "content"),
            a_state(a_step("sms")),
            "fail again; no step was left",
        ),
        (outcome(90, "failed", "deadline"), None, "fail again; its deadline came first"),
        (dispatched(90, 2, channel="email"), None, "on to step 3 email; 1 left out, their address"),
        (None, None, "what follows is not decided or not stored yet"),
    ],
)
def test_where_a_failure_led_is_said(end: Fact | None, state: Any, because: str) -> None:
    facts = [accepted(), failed(50, "content"), *([end] if end else [])]
    assert because in story.tell(facts, state, T0 + 100).lines[1].because


def test_a_receipt_that_moved_nothing_is_told_as_counted() -> None:
    """A receipt names no try: what was at work is known from dispatch's words before it."""
    early = receipt("failed", 40, error_class="recipient")
    waits = "counted; another hand-over may still arrive, or dispatch has yet to answer"
    assert ("failed", waits) in texts(story.tell([accepted(), early, dispatched(50)], None, T0))
    late = receipt("failed", 60, error_class="recipient")
    silent = fact("timed_out", 90, try_no=1, latency_ms=40)
    assert ("failed", waits) in texts(
        story.tell([accepted(), dispatched(50), late, silent], None, T0)
    )
    again = dispatched(90, 0, 2)
    moved = story.tell([accepted(), dispatched(50), late, again], None, T0).lines[2].because
    assert moved == "the address is bad; so tried again (30 ms later)"


def test_what_is_in_doubt_is_said() -> None:
    unknown = dispatched(
        50, result="unknown", attempts=[attempt("sms-a", "unknown", "transient", "timeout")]
    )
    told = story.tell([accepted(), unknown], a_state(), T0 + 60, at=T0 + 60)
    line = told.lines[1]
    assert line.text == "step 1 sms, try 1: sms-a may have taken it (transient, timeout)"
    assert "a receipt within 20.0 s or the silence after it decides" in line.because
    assert told.waiting is not None
    assert told.waiting.until == T0 + 50 + 20_000


@pytest.mark.parametrize(
    ("changes", "step", "what", "until", "then"),
    [
        ({"waiting": "sequence"}, {}, "the outcome of the message before it", T0 + DAY, "failed"),
        ({"waiting": "turn"}, {}, "another message to them in this lane", T0 + DAY, "failed"),
        (
            {"waiting": "answer", "command_id": "c", "command_expires_at": T0 + 900},
            {"commands": 2},
            "dispatch to hand over step 1 sms, try 2",
            T0 + 900,
            "gives it back unsent",
        ),
        (
            {"waiting": "receipt"},
            {"dispatched_at": T0 + 100, "provider": "sms-a"},
            "a receipt of sms-a for step 1 sms",
            T0 + 20_100,
            "it goes on with step 2 voice",
        ),
        (
            {"waiting": "receipt", "deadline": T0 + 5_000},
            {"dispatched_at": T0 + 100},
            "a receipt of the provider",
            T0 + 5_000,
            "it has failed (deadline",
        ),
        (
            {"waiting": "retry", "due_at": T0 + 700, "due_for": "retry"},
            {},
            "the time of the next try of step 1 sms",
            T0 + 700,
            "it asks for its turn again",
        ),
    ],
)
def test_what_an_open_message_waits_for_comes_from_its_state(
    changes: dict[str, Any], step: dict[str, Any], what: str, until: int, then: str
) -> None:
    state = a_state(a_step("sms", **step), a_step("voice"), **changes)
    told = story.tell([accepted()], state, T0 + 200)
    assert told.status == "open"
    assert told.waiting is not None
    assert what in told.waiting.text
    assert told.waiting.until == until
    assert then in told.waiting.then
    assert "ago" not in told.waiting.then


def test_what_is_overdue_says_so_and_who_should_have_acted() -> None:
    state = a_state(a_step("sms", dispatched_at=T0), waiting="receipt")
    waiting = story.tell([accepted()], state, T0 + 80_000).waiting
    assert waiting is not None
    assert waiting.then.startswith("it has failed: no step is left; that was due 1m 0s ago")
    assert "does receipts run" in waiting.then


def test_without_the_state_the_events_say_what_they_can() -> None:
    nothing = story.tell([accepted()], None, T0).waiting
    assert nothing is not None
    assert (nothing.what, nothing.until) == ("unknown", T0 + DAY)
    open_window = story.tell([accepted(), dispatched(5)], None, T0).waiting
    assert open_window is not None
    assert (open_window.what, open_window.until) == ("receipt", None)
    retry = story.tell([accepted(), failed(5, "throttle", retry_at=T0 + 99)], None, T0).waiting
    assert retry is not None
    assert retry.until == T0 + 99


def test_the_story_as_of_then_knows_nothing_later() -> None:
    facts = [accepted(), dispatched(100), receipt("delivered", 900), outcome(901, "delivered", "x")]
    settled = a_state(a_step("sms"), status="settled", outcome="delivered")
    told = story.tell(facts, settled, T0 + DAY, at=T0 + 500)
    assert [line.kind for line in told.lines] == ["accepted", "dispatched"]
    assert told.status == "open"
    assert told.waiting is not None
    assert (told.waiting.what, told.waiting.until) == ("receipt", T0 + 20_100)
    assert story.in_order(facts, T0 - 1) == []


def test_an_outcome_that_is_not_stored_yet_is_told_from_the_state() -> None:
    state = a_state(status="settled", outcome="failed", outcome_reason="deadline", settled_at=T0)
    told = story.tell([accepted()], state, T0 + 10)
    assert (told.status, told.waiting) == ("failed", None)
    assert "the sink has not stored that yet" in told.notes[0]


def test_a_repeat_is_refused_and_the_message_goes_on() -> None:
    again = {"source_offset": 7}
    facts = [
        accepted(),
        accepted(10, **again),
        fact("rejected", 11, code="duplicate", reason="duplicate", origin="fallback", **again),
    ]
    told = story.tell(facts, None, T0 + 20)
    assert told.status == "open"
    assert told.lines[1].text == "asked for again at intake[0]@7"
    assert told.lines[2].because.startswith("its idempotency key names this message already")
    alone = fact("rejected", 0, code="missing", field="to", reason="it is missing; add it")
    rejected = story.tell([alone], None, T0)
    assert (rejected.status, rejected.waiting) == ("rejected", None)
    assert rejected.lines[0].text.endswith("refused intake[0]@0: to; it is missing; add it")


def test_the_story_for_programs_names_everything() -> None:
    facts = [accepted(replay_of="m-0"), dispatched(5)]
    found = story.as_dict(story.tell(facts, None, T0, replays=["m-2"]))
    assert (found["message_id"], found["status"], found["tenant"]) == ("m-1", "open", "acme")
    assert (found["replay_of"], found["replayed_as"]) == ("m-0", ["m-2"])
    assert [event["kind"] for event in found["events"]] == ["accepted", "dispatched"]
    assert found["waiting"]["for"] == "receipt"


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (0, "0 ms"), (999, "999 ms"), (20_050, "20.1 s"), (61_000, "1m 1s"),
        (3 * 3_600_000 + 60_000, "3h 1m"), (2 * DAY + 3_600_000, "2d 1h"),
    ],
)  # fmt: skip
def test_lengths_of_time_are_short(length: int, text: str) -> None:
    assert span(length) == text


def test_a_moment_that_no_calendar_has_is_a_number() -> None:
    assert clock(T0) == "2026-01-01 00:00:00.000"
    assert clock(1 << 60) == str(1 << 60)
    assert clock(None) == "?"
