"""A message's life as a table: what was asked for, what the providers do, what comes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from pipeline.testing import Advance, Crash, Input, Item, Settle
from pipeline.topology import CATALOGUE
from tests.flows.judge import findings
from tests.flows.life import (
    HOUR,
    MINUTE,
    OTHER_PHONE,
    PHONE,
    POLICY,
    SECOND,
    WINDOW,
    Life,
    message_id,
    request,
    unique,
)
from tests.flows.outside import Script, no_answer, refused, taken, unreachable

DELIVERS = taken((2 * SECOND, "delivered"))
SILENT = taken()
ONLY_SMS = [{"channel": "sms"}]


@dataclass(frozen=True)
class Row:
    """One life. `kinds` counts events by kind, `asked` are the providers in the order of their
    requests, `within` is when the outcome came (milliseconds after the request)."""

    script: Script
    status: str
    channel: str
    asked: list[str]
    kinds: Mapping[str, int]
    within: tuple[int, int]
    fields: Mapping[str, Any] = field(default_factory=dict)
    outcome: Mapping[str, Any] = field(default_factory=dict)
    letters: int = 0


SOON = (0, 10 * SECOND)
AFTER_ONE_WINDOW = (WINDOW, WINDOW + 10 * SECOND)
NEXT_DELIVERS: Script = {"sms": [DELIVERS]}

LIVES: dict[str, Row] = {
    "delivered at the first step": Row(
        {"wa": [DELIVERS]},
        "delivered",
        "whatsapp",
        ["wa"],
        {"dispatched": 1, "delivered": 1},
        SOON,
        outcome={"steps_tried": 1, "attempts": 1, "in_doubt": False},
    ),
    "silence moves to the next channel at the end of the window": Row(
        {"wa": [SILENT], **NEXT_DELIVERS},
        "delivered",
        "sms",
        ["wa", "sms"],
        {"dispatched": 2, "timed-out": 1, "delivered": 1},
        AFTER_ONE_WINDOW,
        outcome={"steps_tried": 2, "attempts": 2},
    ),
    "a refusal moves to the next channel at once": Row(
        {"wa": [refused("not_on_channel")], **NEXT_DELIVERS},
        "delivered",
        "sms",
        ["wa", "sms"],
        {"failed": 1, "dispatched": 1, "delivered": 1},
        SOON,
    ),
    "a bad address moves to the next channel at once": Row(
        {"wa": [refused("invalid_address")], **NEXT_DELIVERS},
        "delivered",
        "sms",
        ["wa", "sms"],
        {"failed": 1, "dispatched": 1, "delivered": 1},
        SOON,
    ),
    "a negative receipt moves to the next channel at once": Row(
        {"wa": [taken((2 * SECOND, "failed", "unreachable"))], **NEXT_DELIVERS},
        "delivered",
        "sms",
        ["wa", "sms"],
        {"dispatched": 2, "failed": 1, "delivered": 1},
        SOON,
    ),
    "a receipt may come before the answer": Row(
        {"wa": [taken((100, "delivered"), takes_ms=3 * SECOND)]},
        "delivered",
        "whatsapp",
        ["wa"],
        {"dispatched": 1, "delivered": 1},
        SOON,
    ),
    "a negative receipt before the answer waits for it": Row(
        {"sms": [taken((100, "failed", "number_gone"), takes_ms=3 * SECOND)], "voice": [DELIVERS]},
        "delivered",
        "voice",
        ["sms", "voice"],
        {"dispatched": 2, "failed": 1, "delivered": 1},
        SOON,
        fields={"route": [{"channel": "sms"}, {"channel": "voice"}]},
    ),
    "a retry after a negative receipt has a new key, however early the receipt came": Row(
        {"voice": [taken((5, "failed", "expired"), takes_ms=3 * SECOND), DELIVERS]},
        "delivered",
        "voice",
        ["voice", "voice"],
        {"dispatched": 2, "failed": 1, "delivered": 1},
        (0, MINUTE),
        fields={"route": [{"channel": "voice"}]},
    ),
    "read says delivered too": Row(
        {"wa": [taken((2 * SECOND, "read"))]},
        "delivered",
        "whatsapp",
        ["wa"],
        {"dispatched": 1, "read": 1},
        SOON,
    ),
    "a step that wants to be read is not content with delivered": Row(
        {"wa": [DELIVERS], **NEXT_DELIVERS},
        "delivered",
        "sms",
        ["wa", "sms"],
        {"dispatched": 2, "delivered": 2, "timed-out": 1},
        AFTER_ONE_WINDOW,
        fields={"route": [{"channel": "whatsapp", "success": "read"}, {"channel": "sms"}]},
    ),
    "a step that wants to be accepted is content with the answer": Row(
        {"sms": [SILENT]},
        "delivered",
        "sms",
        ["sms"],
        {"dispatched": 1},
        SOON,
        fields={"route": [{"channel": "sms", "success": "accepted"}]},
    ),
    "what passes is tried again on the same channel": Row(
        {"sms": [refused("busy"), DELIVERS], "sms2": [refused("busy")]},
        "delivered",
        "sms",
        ["sms", "sms2", "sms"],
        {"failed": 1, "dispatched": 1, "delivered": 1},
        (0, MINUTE),
        fields={"route": ONLY_SMS},
        outcome={"steps_tried": 1, "attempts": 3},
    ),
    "a throttled step is tried again when the provider says": Row(
        {"wa": [refused("too_fast", retry_after_s=30), DELIVERS]},
        "delivered",
        "whatsapp",
        ["wa", "wa"],
        {"failed": 1, "dispatched": 1, "delivered": 1},
        (30 * SECOND, MINUTE),
    ),
    "one provider refuses and the next takes it within the step": Row(
        {"sms": [refused("no_credit")], "sms2": [DELIVERS]},
        "delivered",
        "sms",
        ["sms", "sms2"],
        {"dispatched": 1, "delivered": 1},
        SOON,
        fields={"route": ONLY_SMS},
        outcome={"provider": "sms2"},
    ),
    "no connection is no doubt": Row(
        {"sms": [unreachable()], "sms2": [DELIVERS]},
        "delivered",
        "sms",
        ["sms", "sms2"],
        {"dispatched": 1, "delivered": 1},
        SOON,
        fields={"route": ONLY_SMS},
        outcome={"in_doubt": False, "resent": False},
    ),
    "an unknown answer of a provider with keys is asked again with the same key": Row(
        {"wa": [no_answer((3 * SECOND, "delivered"))]},
        "delivered",
        "whatsapp",
        ["wa", "wa"],
        {"dispatched": 1, "delivered": 1},
        SOON,
        outcome={"in_doubt": False, "resent": False},
    ),
    "an unknown answer is waited for where nothing may be sent twice": Row(
        {"sms": [no_answer((3 * SECOND, "delivered"))]},
        "delivered",
        "sms",
        ["sms"],
        {"dispatched": 1, "delivered": 1},
        SOON,
        fields={"route": ONLY_SMS, "on_doubt": "wait"},
    ),
    "an unknown answer is sent again, marked, where silence is worse": Row(
        {"sms": [no_answer(hears=False)], "sms2": [DELIVERS]},
        "delivered",
        "sms",
        ["sms", "sms2"],
        {"dispatched": 1, "delivered": 1},
        SOON,
        fields={"route": ONLY_SMS, "on_doubt": "resend"},
        outcome={"in_doubt": True, "resent": True},
    ),
    "a late receipt of an earlier step still counts": Row(
        {"wa": [taken((WINDOW + 10 * SECOND, "delivered"))], "sms": [SILENT]},
        "delivered",
        "whatsapp",
        ["wa", "sms"],
        {"dispatched": 2, "timed-out": 1, "delivered": 1},
        (WINDOW + 10 * SECOND, WINDOW + 20 * SECOND),
    ),
    "a receipt after the outcome is late and changes nothing": Row(
        {"wa": [taken((2 * WINDOW, "delivered"))], **NEXT_DELIVERS},
        "delivered",
        "sms",
        ["wa", "sms"],
        {"dispatched": 2, "timed-out": 1, "delivered": 2, "late-receipts": 1},
        AFTER_ONE_WINDOW,
    ),
    "silence everywhere fails when the last window is over": Row(
        {"wa": [SILENT], "sms": [SILENT], "voice": [SILENT]},
        "failed",
        "voice",
        ["wa", "sms", "voice"],
        {"dispatched": 3, "timed-out": 3},
        (3 * WINDOW, 3 * WINDOW + 10 * SECOND),
        outcome={"reason": "timed_out"},
        letters=1,
    ),
    "refusals everywhere fail at once": Row(
        {
            "wa": [refused("not_on_channel")],
            "sms": [refused("invalid_address")],
            "voice": [refused("invalid_address")],
        },
        "failed",
        "voice",
        ["wa", "sms", "voice"],
        {"failed": 3},
        SOON,
        outcome={"reason": "recipient"},
        letters=1,
    ),
    "a message that is worthless is not sent any more": Row(
        {"wa": [SILENT], "sms": [SILENT], "voice": [DELIVERS]},
        "failed",
        "sms",
        ["wa", "sms"],
        {"dispatched": 2, "timed-out": 1},
        (90 * SECOND, 100 * SECOND),
        fields={"deadline_in": 90 * SECOND},
        outcome={"reason": "deadline"},
        letters=1,
    ),
    "retries end with the policy's patience": Row(
        {"sms": [refused("busy")], "sms2": [refused("busy")]},
        "failed",
        "sms",
        ["sms", "sms2"] * 3,
        {"failed": 3},
        (0, 2 * MINUTE),
        fields={"route": ONLY_SMS},
        outcome={"reason": "transient"},
        letters=1,
    ),
}


FAILED_ROUTES = {name: row for name, row in LIVES.items() if row.status == "failed"}


def live(row: Row, *faults: Item, life: Life | None = None) -> Life:
    life = life or Life(row.script)
    fields = dict(row.fields)
    if "deadline_in" in fields:
        fields["deadline"] = life.started + fields.pop("deadline_in")
    return life.play(request(**fields), *faults, Advance(4 * WINDOW))


def check(row: Row, life: Life) -> None:
    outcome = life.outcome()
    assert (outcome["status"], outcome["channel"]) == (row.status, row.channel)
    assert life.asked() == row.asked
    assert life.kinds() == row.kinds
    took = outcome["occurred_at"] - life.started
    assert row.within[0] <= took <= row.within[1]
    for name, value in row.outcome.items():
        assert outcome[name] == value, name
    letters = {letter["dead_letter_id"] for letter in life.log.values("dead-letter")}
    assert len(letters) == row.letters


@pytest.mark.parametrize("row", LIVES.values(), ids=list(LIVES))
def test_a_life(row: Row) -> None:
    life = live(row)
    check(row, life)
    assert len(life.outcomes()) == 1
    assert findings(life) == []


@pytest.mark.parametrize("row", LIVES.values(), ids=list(LIVES))
@pytest.mark.parametrize("torn", [False, True], ids=["crash", "torn"])
def test_a_life_in_which_every_other_transaction_fails(row: Row, torn: bool) -> None:
    """The same ends, the same requests, the same names of events; only repeats are allowed."""
    life = Life(row.script)
    for driver in (life.accept, life.fallback, life.receipts):
        driver.faults = {number: Crash(torn=torn) for number in range(1, 60, 2)}
    live(row, life=life)
    check(row, life)
    assert life.fallback.transactions > 2 * len(life.commands()) / (2 if torn else 1) - 1
    assert findings(life) == []


@pytest.mark.parametrize("row", LIVES.values(), ids=list(LIVES))
def test_a_life_whose_callbacks_all_come_three_times(row: Row) -> None:
    life = Life(row.script)
    life.outside.repeat_callbacks = 3
    live(row, life=life)
    check(row, life)


@pytest.mark.parametrize("row", FAILED_ROUTES.values(), ids=list(FAILED_ROUTES))
def test_a_failed_message_is_a_dead_letter_with_everything_in_it(row: Row) -> None:
    life = live(row)
    (letter,) = life.log.values("dead-letter")
    assert letter["message_id"] == message_id()
    assert letter["message"]["content"]["text"] == "hello m"
    assert letter["reason"] == life.outcome()["reason"]
    assert len(letter["attempts"]) == len(row.asked)


def test_a_settled_message_keeps_no_content() -> None:
    life = live(LIVES["delivered at the first step"])
    kept = life.fallback.content()
    assert {key[:2] for key in kept if key != b"ledger"} == {b"m:"}
    assert "hello" not in str(kept)


def test_the_books_balance_at_every_moment() -> None:
    """Opened is settled and open; accepted is opened, duplicates, repeats and refused (G10)."""
    life = Life({"wa": [SILENT], "sms": [DELIVERS]})
    life.accept.faults = {1: Crash(torn=True)}
    life.play(request("a"), request("b"), Settle(), request("a"), Advance(4 * WINDOW))
    ledgers = [
        record.value for record in life.log.records("fallback.changelog") if record.key == b"ledger"
    ]
    assert ledgers
    for ledger in ledgers:
        assert ledger["opened"] == ledger["settled"] + ledger["open"]
    last = {ledger["partition"]: ledger for ledger in ledgers}.values()
    total = {
        name: sum(ledger[name] for ledger in last)
        for name in ("opened", "duplicates", "repeats", "refused", "settled", "open")
    }
    assert total == {
        "opened": 2,
        "duplicates": 1,
        "repeats": 2,
        "refused": 0,
        "settled": 2,
        "open": 0,
    }
    accepted = len(life.log.records("accepted.normal"))
    assert accepted == total["opened"] + total["duplicates"] + total["repeats"]


# Repeats of a request


def test_a_request_that_comes_twice_is_sent_once_and_says_so() -> None:
    life = Life({"wa": [DELIVERS]})
    life.play(request(), request(), Settle(), request(), Advance(WINDOW), request())
    assert life.asked() == ["wa"]
    assert len(life.outcomes()) == 1
    rejected = life.events("rejected")
    assert [event["reason"] for event in rejected] == ["duplicate"] * 3
    assert {event["message_id"] for event in rejected} == {message_id()}
    assert len(unique(rejected)) == 3, "each repeat has a rejection of its own"


def test_our_own_repeat_of_a_request_is_no_duplicate() -> None:
    life = Life({"wa": [DELIVERS]})
    life.accept.faults = {1: Crash(torn=True)}
    life.play(request(), Advance(WINDOW))
    assert len(life.log.records("accepted.normal")) == 2
    assert life.kinds() == {"dispatched": 1, "delivered": 1}
    assert len(life.outcomes()) == 1


def test_a_request_without_a_key_is_a_message_of_its_own_each_time() -> None:
    life = Life({"wa": [DELIVERS]})
    item = request(idempotency_key=None)
    life.play(item, item, Advance(WINDOW))
    assert life.asked() == ["wa", "wa"]
    assert len({outcome["message_id"] for outcome in life.outcomes()}) == 2


def test_a_rejected_request_does_not_use_up_its_key() -> None:
    life = Life({"wa": [DELIVERS]})
    life.play(request(priority="soon"), Settle(), request(), Advance(WINDOW))
    assert life.outcome()["status"] == "delivered"
    assert [event["field"] for event in life.events("rejected")] == ["priority"]


def test_what_cannot_be_read_stops_nobody() -> None:
    life = Life({"wa": [DELIVERS]})
    life.play(Input("intake", PHONE, b"\x00\xff{"), request(), Advance(WINDOW))
    assert life.outcome()["status"] == "delivered"
    assert len(life.log.records("rejected", "dead-letter")) == 2


# Order


def test_messages_of_one_recipient_leave_in_order_and_one_at_a_time() -> None:
    """Across channels: the second one waits for the answer to the first (G4)."""
    life = Life({"wa": [taken((5 * SECOND, "delivered"), takes_ms=4 * SECOND)], "sms": [DELIVERS]})
    items = [request("a"), request("b", route=ONLY_SMS), request("c")]
    life.play(*items, Advance(4 * WINDOW))
    asked = life.outside.requests
    assert [(one.provider, one.text) for one in asked] == [
        ("wa", "hello a"),
        ("sms", "hello b"),
        ("wa", "hello c"),
    ]
    assert asked[1].at >= asked[0].at + 4 * SECOND
    assert {outcome["status"] for outcome in life.outcomes()} == {"delivered"}


def test_a_recipient_does_not_wait_for_another() -> None:
    life = Life({f"wa {PHONE}": [taken(takes_ms=30 * SECOND)], "wa": [DELIVERS], "sms": [DELIVERS]})
    life.play(request("a"), request("b", OTHER_PHONE), Advance(20 * SECOND))
    assert life.outcome("b", OTHER_PHONE)["latency_ms"] < 5 * SECOND


def test_an_urgent_message_does_not_wait_for_a_normal_one() -> None:
    life = Life({"wa": [taken(takes_ms=30 * SECOND)], "sms": [DELIVERS]})
    life.play(
        request("a"), Settle(), request("b", priority="urgent", route=ONLY_SMS), Advance(MINUTE)
    )
    assert life.outcome("b")["latency_ms"] < 5 * SECOND


def test_waiting_for_silence_does_not_hold_up_the_next_message() -> None:
    life = Life({"wa": [SILENT], "sms": [DELIVERS]})
    life.play(request("a"), request("b", route=ONLY_SMS), Advance(10 * SECOND))
    assert life.outcome("b")["status"] == "delivered"


def test_a_sequence_waits_for_the_outcome_of_the_one_before() -> None:
    life = Life({"wa": [SILENT], "sms": [DELIVERS]})
    named = {"sequence": "order-7"}
    life.play(
        request("a", **named),
        request("b", route=ONLY_SMS, **named),
        request("c", route=ONLY_SMS),
        Advance(4 * WINDOW),
    )
    by_text = {one.text: one for one in life.outside.requests}
    settled = life.outcome("a")["occurred_at"]
    assert settled >= life.started + WINDOW
    assert by_text["hello b"].at >= settled
    assert by_text["hello c"].at < settled
    assert life.outcome("b")["status"] == "delivered"


def test_a_sequence_goes_on_after_a_failure() -> None:
    life = Life({"wa": [refused("opted_out")], "sms": [DELIVERS]})
    named = {"sequence": "order-7"}
    items = [request("a", **named), request("b", route=ONLY_SMS, **named)]
    life.play(*items, Advance(4 * WINDOW))
    assert life.outcome("b")["status"] == "delivered"


# Time


def test_nothing_is_sent_after_the_deadline() -> None:
    """Not even what waited for its turn (G7)."""
    life = Life({"wa": [taken(takes_ms=40 * SECOND)]})
    items = [request(name, deadline=life.started + MINUTE) for name in "abc"]
    life.play(*items, Advance(4 * WINDOW))
    assert [one.text for one in life.outside.requests] == ["hello a", "hello b"]
    assert {outcome["reason"] for outcome in life.outcomes()} == {"deadline"}
    assert len(life.outcomes()) == 3
    for outcome in life.outcomes():
        assert outcome["occurred_at"] <= life.started + MINUTE + SECOND


def test_a_late_receipt_that_reached_the_person_twice_says_what_it_cost() -> None:
    life = live(LIVES["a receipt after the outcome is late and changes nothing"])
    (late,) = life.events("late-receipts")
    assert late["reached_before"] is True
    assert late["cost"] == pytest.approx(0.01)
    assert late["channel"] == "whatsapp"


def test_a_receipt_after_a_failure_reached_the_person_once() -> None:
    life = Life({"sms": [taken((2 * WINDOW, "delivered"))]})
    life.play(request(route=ONLY_SMS), Advance(4 * WINDOW))
    assert life.outcome()["status"] == "failed"
    (late,) = life.events("late-receipts")
    assert (late["reached_before"], late["cost"]) == (False, 0.0)


def test_read_after_delivered_is_no_second_delivery() -> None:
    life = Life({"wa": [taken((SECOND, "delivered"), (5 * SECOND, "read"))]})
    life.play(request(), Advance(WINDOW))
    assert len(life.outcomes()) == 1
    assert life.kinds() == {"dispatched": 1, "delivered": 1, "read": 1}


def test_a_window_that_nobody_heard_out_is_marked_blind() -> None:
    life = Life({"wa": [SILENT], "sms": [DELIVERS]})
    life.fallback.hears = False
    life.play(request(), Advance(4 * WINDOW))
    (event,) = life.events("timed-out")
    assert event["blind"] is True
    assert event["occurred_at"] >= life.started + WINDOW + POLICY.priorities["normal"].blind_hold_ms


def test_a_command_that_dispatch_read_too_late_is_written_again() -> None:
    """Under a new name, and only when dispatch has said that it did not send the old one (G6)."""
    life = Life({"wa": [DELIVERS]})
    life.outside.deaf = True
    life.play(request(), Advance(POLICY.priorities["normal"].command_ttl_ms + MINUTE))
    assert len(life.commands()) == 1
    life.outside.deaf = False
    life.play(Settle(), Advance(WINDOW))
    first, second = life.commands()
    assert first["command_id"] != second["command_id"]
    assert life.outcome()["status"] == "delivered"
    assert findings(life) == []


@pytest.mark.parametrize("on_doubt", ["resend", "wait"])
@pytest.mark.parametrize("away", [SECOND, 20 * MINUTE], ids=["in time", "past its life"])
def test_a_dispatcher_dies_in_the_middle_of_a_request(on_doubt: str, away: int) -> None:
    """However late its successor comes: nobody is sent the step again, but by policy and marked
    (G3)."""
    gone = taken((WINDOW, "failed", "number_gone"))
    life = Life({"sms": [gone], "sms2": [gone]})
    life.play(request(on_doubt=on_doubt, route=ONLY_SMS), Settle())
    life.outside.crash()
    life.play(Advance(away))
    life.outside.recover()
    life.play(Advance(4 * WINDOW))
    resent = on_doubt == "resend" and away == SECOND
    assert len(life.asked()) == (2 if resent else 1)
    assert (life.outcome()["in_doubt"], life.outcome()["resent"]) == (True, resent)
    assert life.outcome()["status"] == "failed"
    assert findings(life) == []


def test_a_command_that_is_lost_ends_its_step_in_doubt() -> None:
    """It holds the recipient's turn for an hour and not for ever, and is not sent on that channel
    again."""
    life = Life({"wa": [DELIVERS]})
    life.outside.deaf = True
    deadline = life.started + 5 * HOUR
    life.play(request("a", deadline=deadline), request("b", deadline=deadline), Advance(HOUR))
    assert [command["channel"] for command in life.commands()] == ["whatsapp"]
    life.play(Advance(6 * MINUTE))
    first, *_, last = life.commands()
    assert (first["message_id"], first["channel"]) == (message_id("a"), "whatsapp")
    assert (last["message_id"], last["channel"]) == (message_id("a"), "sms")
    (silence,) = life.events("timed-out")
    assert (silence["in_doubt"], silence["result"]) == (True, "unknown")


def test_a_receipt_wins_against_a_failure_that_is_read_with_it() -> None:
    """Fallback was away: by the time it reads that the second step failed, the first had arrived,
    so nothing is sent by the third (G6)."""
    late_no = refused("invalid_address", takes_ms=5 * SECOND)
    life = Life({"wa": [taken((WINDOW + 3 * SECOND, "delivered"))], "sms": [late_no]})
    life.play(request(), Advance(WINDOW + SECOND))
    assert [command["channel"] for command in life.commands()] == ["whatsapp", "sms"]
    life.fallback.away = True
    life.play(Advance(MINUTE))
    assert len(life.events("delivered", "failed")) == 2
    life.fallback.away = False
    life.play(Advance(WINDOW))
    assert len(life.commands()) == 2
    assert life.outcome()["channel"] == "whatsapp"


def test_timers_that_come_due_together_do_not_undo_each_other() -> None:
    """Fallback was away; the death of one command settles the next message, whose own timer is due
    in the same turn. It must not be forgotten for that."""
    life = Life({"wa": [DELIVERS]})
    life.outside.deaf = True
    life.play(
        request("a", deadline=life.started + MINUTE),
        request("b", deadline=life.started + MINUTE + 40 * SECOND),
        Advance(MINUTE + SECOND),
    )
    assert [outcome["reason"] for outcome in life.outcomes()] == ["deadline"]
    life.clock.advance(10 * MINUTE)
    life.play(Settle(), request("b"))
    assert [outcome["reason"] for outcome in life.outcomes()] == ["deadline"] * 2
    assert [event["reason"] for event in life.events("rejected")] == ["duplicate"]


def test_a_forgotten_message_leaves_nothing_behind() -> None:
    life = live(LIVES["delivered at the first step"])
    life.play(Advance(POLICY.remember_ms))
    assert set(life.fallback.content()) <= {b"ledger"}


def test_the_callers_trace_goes_through_every_hop() -> None:
    trace = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    life = Life({"wa": [SILENT], "sms": [refused("invalid_address")], "voice": [SILENT]})
    item = request()
    life.play(Input(item.topic, item.key, item.value, (trace,)), Advance(4 * WINDOW))
    for record in life.log.records():
        if record.topic not in ("fallback.changelog", "receipts.changelog"):
            assert trace in record.headers, record.topic


def test_no_event_carries_content_or_address() -> None:
    life = Life({"wa": [SILENT], "sms": [refused("invalid_address")], "voice": [DELIVERS]})
    life.play(request(), request(), Advance(4 * WINDOW))
    events = [record for record in life.log.records() if not CATALOGUE.topic(record.topic).content]
    assert len({record.topic for record in events}) >= 6
    for record in events:
        assert "hello" not in str(record)
        assert PHONE[1:] not in str(record)
