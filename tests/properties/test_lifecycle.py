"""Whatever providers do, in whatever order receipts come, and wherever workers die: one outcome a
message, true and final, and nothing that a guarantee forbids on the way."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain import ids
from pipeline.domain.drafts import blank_event
from pipeline.domain.switches import Switches
from pipeline.testing import Advance, Crash, Input, MovePartition, Repeat, Settle
from tests.flows.judge import findings, unique_commands
from tests.flows.life import (
    DEADLINE,
    MINUTE,
    OTHER_PHONE,
    PHONE,
    SECOND,
    WINDOW,
    Life,
    message_id,
    request,
    unique,
)
from tests.flows.outside import no_answer, refused, taken, unreachable

# What providers may do

MOMENTS = st.sampled_from(
    [5, 300, 2 * SECOND, WINDOW - 2 * SECOND, WINDOW + 7 * SECOND, 3 * WINDOW]
)
REPORTS = st.lists(
    st.tuples(MOMENTS, st.sampled_from(["delivered", "read"]))
    | st.tuples(MOMENTS, st.just("failed"), st.sampled_from(["unreachable", "expired", "spam"])),
    max_size=3,
)
SAYS = st.one_of(
    st.builds(
        lambda reports, takes: taken(*reports, takes_ms=takes),
        REPORTS,
        st.sampled_from([20, 3 * SECOND]),
    ),
    st.sampled_from(
        ["busy", "not_on_channel", "invalid_address", "no_credit", "content_rejected"]
    ).map(refused),
    st.sampled_from([None, 30]).map(lambda after: refused("too_fast", after)),
    st.builds(
        lambda at, hears: (
            no_answer((at, "delivered"), hears=True) if hears else no_answer(hears=False)
        ),
        MOMENTS,
        st.booleans(),
    ),
    st.just(unreachable()),
)
SCRIPTS = st.fixed_dictionaries(
    {name: st.lists(SAYS, min_size=1, max_size=3) for name in ("wa", "sms", "sms2", "voice")}
)
REQUESTS = st.lists(
    st.builds(
        lambda number, phone, priority, sequence, on_doubt, sms_first: request(
            f"m{number}",
            phone,
            priority=priority,
            sequence=sequence,
            **({"on_doubt": on_doubt} if on_doubt else {}),
            **({"route": [{"channel": "sms"}, {"channel": "voice"}]} if sms_first else {}),
        ),
        st.integers(0, 3),
        st.sampled_from([PHONE, OTHER_PHONE]),
        st.sampled_from(["urgent", "normal"]),
        st.sampled_from([None, None, "s"]),
        st.sampled_from([None, "wait", "resend"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)
FAULTS = st.dictionaries(st.integers(1, 40), st.builds(Crash, st.booleans()), max_size=12)
CRASHES = st.dictionaries(st.integers(1, 40), st.builds(Crash), max_size=12)


def whole(script: Any, items: list[Any], faults: Any = None, *, repeats: int = 1) -> Life:
    life = Life(script)
    life.outside.repeat_callbacks = repeats
    if faults is not None:
        life.accept.faults, life.fallback.faults, life.receipts.faults = faults
    return life.play(*items, Advance(DEADLINE + 5 * MINUTE))


@given(
    script=SCRIPTS,
    requests=REQUESTS,
    faults=st.tuples(FAULTS, FAULTS, FAULTS),
    repeats=st.integers(1, 2),
)
@settings(max_examples=120, deadline=None)
def test_every_life_keeps_every_guarantee(
    script: Any, requests: list[Any], faults: Any, repeats: int
) -> None:
    """G1, G3 to G8, with crashes and torn transactions anywhere."""
    life = whole(script, requests, faults, repeats=repeats)
    assert findings(life) == []


@given(script=SCRIPTS, requests=REQUESTS)
@settings(max_examples=40, deadline=None)
def test_the_same_input_gives_the_same_output(script: Any, requests: list[Any]) -> None:
    assert whole(script, requests).log.records() == whole(script, requests).log.records()


@given(script=SCRIPTS, requests=REQUESTS, faults=st.tuples(CRASHES, CRASHES, CRASHES))
@settings(max_examples=60, deadline=None)
def test_crashes_change_nothing_that_anybody_can_see(
    script: Any, requests: list[Any], faults: Any
) -> None:
    """G2: the same outcomes and the same events under the same names."""
    plain, crashed = whole(script, requests), whole(script, requests, faults)
    for topics in (
        ("outcomes",),
        ("dispatched", "failed", "delivered", "read", "timed-out", "late-receipts", "rejected"),
    ):
        assert set(unique(crashed.log.values(*topics))) == set(unique(plain.log.values(*topics)))
    said = {o["message_id"]: (o["status"], o["reason"]) for o in plain.outcomes()}
    assert {o["message_id"]: (o["status"], o["reason"]) for o in crashed.outcomes()} == said
    assert crashed.fallback.content().keys() == plain.fallback.content().keys()


# Receipts in any order


def an_event(kind: str, name: str, *, step: int = 0, **fields: Any) -> Input:
    """What dispatch or receipts say of the first command of `step`."""
    event = blank_event(name, kind, "default", message_id(), "")
    event["step"] = step
    event["origin"] = "receipts"
    event["provider"] = "wa"
    event["provider_message_id"] = "pm-1"
    event["provider_event_id"] = name
    return Input(kind, None, {**event, **fields})


def dispatched(life: Life, step: int = 0) -> Input:
    (command,) = (c for c in unique_commands(life) if c["step"] == step)
    attempt = {
        "attempt_id": ids.attempt_id(command["command_id"], "wa"),
        "provider": "wa",
        "requests": 1,
        "started_at": life.clock.now(),
        "latency_ms": 1,
        "result": "accepted",
        "error_class": None,
        "code": None,
        "provider_message_id": "pm-1",
        "cost": 0.01,
        "currency": "EUR",
        "in_doubt": False,
        "resent": False,
    }
    return an_event(
        "dispatched",
        f"dispatched-{step}",
        step=step,
        origin="dispatch",
        command_id=command["command_id"],
        result="accepted",
        attempts=[attempt],
        occurred_at=life.clock.now(),
    )


def keyed(item: Input, life: Life) -> Input:
    """The event as the recipient's partition would carry it."""
    key = life.commands()[0]["recipient_key"]
    return Input(item.topic, key, {**item.value, "recipient_key": key})


def alone(**switches: bool) -> Life:
    """One message whose first command is out, and nobody to answer it but the test."""
    life = Life({"wa": []}, switches=Switches(**switches))
    life.outside.deaf = True
    route = [{"channel": "whatsapp"}, {"channel": "sms"}]
    return life.play(request(route=route, deadline=life.started + DEADLINE))


def receipts(*, negative: bool) -> list[Input]:
    said = [an_event("delivered", "d"), an_event("delivered", "d"), an_event("read", "r")]
    no = an_event("failed", "f", error_class="channel", code="unreachable")
    return [*said, no, no] if negative else said


WEATHER = st.sampled_from([Settle(), Repeat(), Crash(), MovePartition(), Advance(SECOND)])


@given(negative=st.booleans(), data=st.data())
@settings(max_examples=150, deadline=None)
def test_receipts_in_any_order_give_the_same_final_word(
    negative: bool, data: st.DataObject
) -> None:
    """G5: delivered and read apply at once, a negative one waits for dispatch and undoes nothing;
    repeats, reordering and deaths of workers change nothing (G6: and no second live command)."""
    life = alone()
    items: list[Any] = []
    for item in data.draw(st.permutations([dispatched(life), *receipts(negative=negative)])):
        items += [keyed(item, life), *data.draw(st.lists(WEATHER, max_size=2))]
    life.play(*items, Advance(2 * DEADLINE))
    outcome = life.outcome()
    assert (outcome["status"], outcome["channel"]) == ("delivered", "whatsapp")
    assert len(life.outcomes()) == 1
    assert len(unique_commands(life)) <= 2
    late = life.events("late-receipts")
    assert [event for event in late if event["reason"] != "failed"] == [], "one hand-over"


@given(order=st.permutations([0, 1, 2]))
@settings(max_examples=20, deadline=None)
def test_a_negative_receipt_waits_for_the_word_of_dispatch(order: list[int]) -> None:
    """G5: however often it comes before, the next channel is asked after the word and once."""
    life = alone()
    no = an_event("failed", "f", error_class="channel", code="unreachable")
    items = [keyed(item, life) for item in (no, no, dispatched(life))]
    for place in order:
        life.play(items[place])
        heard = life.log.records("dispatched") and life.log.records("failed")
        assert len(unique_commands(life)) == (2 if heard else 1)


def test_a_switch_that_lets_status_go_back_is_seen() -> None:
    """The judge is worth something: the mutant of G5 is found."""
    life = alone(status_may_go_back=True)
    no = an_event("failed", "f", error_class="channel", code="unreachable")
    items = [keyed(item, life) for item in (dispatched(life), an_event("delivered", "d"), no)]
    life.play(*items, Advance(2 * DEADLINE))
    assert any("G5" in finding for finding in findings(life))


def a_planted(switch: str, *, on: bool) -> Life:
    """A small world in which a planted fault has something to break."""
    life = Life(
        {"wa": [taken((WINDOW - SECOND, "delivered"))], "sms": [taken()], "voice": [taken()]},
        switches=Switches(**{switch: on}),
    )
    deadline = life.started + (10 * SECOND if switch == "deadline_ignored" else DEADLINE)
    slow = {"wa": [taken(takes_ms=15 * SECOND)]} if switch == "deadline_ignored" else {}
    life.outside.script = {**life.outside.script, **slow}
    items = [request(name, deadline=deadline) for name in ("first", "m")]
    return life.play(*items, Settle(), Repeat(), Advance(2 * DEADLINE))


@pytest.mark.parametrize(
    ("switch", "guarantee"),
    [("no_dedup", "G1"), ("window_ignored", "G6"), ("deadline_ignored", "G7")],
)
def test_the_judge_sees_what_it_is_for(switch: str, guarantee: str) -> None:
    """Each planted fault breaks its guarantee where this judge looks, and only then."""
    assert findings(a_planted(switch, on=False)) == []
    assert any(guarantee in finding for finding in findings(a_planted(switch, on=True)))
