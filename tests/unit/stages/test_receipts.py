"""What receipts makes of each record: alone, twice, late, before its partner, at another worker."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain import ids, reference
from pipeline.domain.ports import Account, Capabilities
from pipeline.domain.records import RECORD_VERSION, Callback, Reference
from pipeline.domain.reference import Named
from pipeline.providers import PROVIDERS
from pipeline.stages.receipts import KEEP_REFERENCE_MS, PARK_MS, PARKED_PER_ID, READS, Receipts
from pipeline.testing import (
    Advance,
    Crash,
    Driver,
    Input,
    ManualClock,
    MemoryLog,
    MovePartition,
    Repeat,
    Settle,
    World,
)
from tests.flows.wire import on_the_wire

KEYS = {0: b"k" * 32, 3: b"o" * 32}
ACCOUNTS = {
    "echoing": Account("echoing", "generic", "sms", "http://127.0.0.1"),
    "own-id": Account(
        "own-id", "generic", "whatsapp", "http://127.0.0.1", Capabilities(echoes_reference=False)
    ),
}
PEPPER = b"p" * 16
RECIPIENT = ids.recipient_key(PEPPER, "acme", "phone", "+4915112345678")
MESSAGE = ids.message_id("acme", RECIPIENT, "order-1")
NAMED = Named("acme", MESSAGE, RECIPIENT, 1)
OURS = reference.make(NAMED, 0, KEYS[0])
TRACE = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


def a_world() -> tuple[World, Driver]:
    log = MemoryLog(ManualClock(), check=on_the_wire)
    driver = Driver(log, "receipts", lambda: Receipts(ACCOUNTS, PROVIDERS, KEYS), READS)
    return World(log, [driver]), driver


def report(kind: str = "delivered", **fields: Any) -> dict[str, Any]:
    return {"id": f"ev-{kind}", "type": kind, "occurred_at": 1_700_000_000_000, **fields}


def callback(
    *reports: Any, provider: str = "echoing", name: str = "cb-1", body: bytes | None = None
) -> Input:
    raw = json.dumps(list(reports)).encode() if body is None else body
    value: Callback = {
        "record_version": RECORD_VERSION,
        "tenant": "",
        "callback_id": name,
        "provider": provider,
        "received_at": 1_800_000_000_000,
        "method": "POST",
        "path": f"/callbacks/{provider}",
        "query": "",
        "headers": {"content-type": "application/json"},
        "body": raw,
    }
    return Input("callbacks", None, value, (TRACE, ("x-other", b"1")))


def known(provider_id: str = "pm-1", text: str = OURS) -> Input:
    value: Reference = {
        "record_version": RECORD_VERSION,
        "provider": "own-id",
        "provider_message_id": provider_id,
        "reference": text,
        "tenant": "acme",
        "message_id": MESSAGE,
        "recorded_at": 1_800_000_000_000,
    }
    return Input("references", f"own-id:{provider_id}", value, (TRACE,))


def own_id(kind: str = "delivered", provider_id: str = "pm-1", **fields: Any) -> Input:
    return callback(report(kind, message_id=provider_id, **fields), provider="own-id")


def events(world: World) -> list[Any]:
    return world.log.values("delivered", "read", "failed")


def letters(world: World) -> list[Any]:
    return world.log.values("dead-letter")


# A report with our reference


@pytest.mark.parametrize("kind", ["delivered", "read", "failed"])
def test_a_report_with_our_reference_is_an_event_of_the_recipient(kind: str) -> None:
    world, driver = a_world()
    world.play([callback(report(kind, reference=OURS, message_id="pm-1", country="DE"))])
    (record,) = world.log.records("delivered", "read", "failed")
    assert record.topic == kind == record.value["kind"]
    assert record.key == RECIPIENT.encode()
    assert record.headers == (TRACE,)
    said = record.value
    assert (said["tenant"], said["message_id"], said["step"]) == ("acme", MESSAGE, 1)
    assert (said["channel"], said["provider"], said["country"]) == ("sms", "echoing", "DE")
    assert (said["origin"], said["provider_event_id"]) == ("receipts", f"ev-{kind}")
    assert said["provider_message_id"] == "pm-1"
    assert said["occurred_at"] == 1_700_000_000_000
    assert driver.content() == {}
    assert letters(world) == []


def test_an_old_key_still_reads_its_references() -> None:
    world, _ = a_world()
    world.play([callback(report(reference=reference.make(NAMED, 3, KEYS[3])))])
    assert [event["message_id"] for event in events(world)] == [MESSAGE]


@pytest.mark.parametrize(
    ("code", "error_class"),
    [("number_gone", "recipient"), ("no_such_code", "unknown"), (None, "unknown")],
)
def test_a_failure_carries_class_and_code(code: str | None, error_class: str) -> None:
    world, _ = a_world()
    world.play([callback(report("failed", reference=OURS, code=code))])
    (event,) = events(world)
    assert (event["error_class"], event["code"]) == (error_class, code)


def test_a_code_that_could_hold_an_address_is_not_passed_on() -> None:
    world, _ = a_world()
    world.play([callback(report("failed", reference=OURS, code="no such number +4915112345678"))])
    assert [event["code"] for event in events(world)] == ["other"]


def test_accepted_is_no_news() -> None:
    world, _ = a_world()
    world.play([callback(report("accepted", reference=OURS))])
    assert world.log.records() == world.log.records("callbacks")


def test_a_provider_clock_from_the_future_is_not_believed() -> None:
    world, _ = a_world()
    world.play([callback(report(reference=OURS, occurred_at=1_900_000_000_000))])
    assert [event["occurred_at"] for event in events(world)] == [1_800_000_000_000]


def test_one_callback_may_hold_many_reports_and_each_counts_once() -> None:
    world, _ = a_world()
    same = report("delivered", reference=OURS)
    world.play([callback(same, report("read", reference=OURS), same)])
    assert [event["kind"] for event in events(world)] == ["delivered", "read"]


# Twice, torn, moved


@pytest.mark.parametrize("fault", [Repeat(2), Crash(torn=True), Crash(), MovePartition()])
def test_what_comes_twice_has_the_same_name(fault: Any) -> None:
    plain, _ = a_world()
    plain.play([callback(report(reference=OURS)), own_id(), known()])
    world, driver = a_world()
    world.play(
        [callback(report(reference=OURS)), fault, own_id(), fault, Settle(), fault, known(), fault]
    )
    wanted = {event["event_id"]: event for event in events(plain)}
    assert len(wanted) == 2
    assert {event["event_id"]: event for event in events(world)} == wanted
    assert set(driver.content()) == {b"r:own-id:pm-1"}
    assert letters(world) == []


def test_the_same_word_of_two_providers_is_two_events() -> None:
    world, _ = a_world()
    world.play(
        [callback(report(reference=OURS)), callback(report(reference=OURS), provider="own-id")]
    )
    assert len({event["event_id"] for event in events(world)}) == 2


def test_a_provider_that_names_no_events_is_still_recognised() -> None:
    world, _ = a_world()
    nameless = {"type": "delivered", "occurred_at": 1_700_000_000_000, "reference": OURS}
    world.play([callback(nameless), callback(nameless, name="cb-2")])
    assert len({event["event_id"] for event in events(world)}) == 1


# A report with the provider's own id only


def test_a_receipt_behind_its_reference_is_an_event() -> None:
    world, driver = a_world()
    world.play([known(), own_id()])
    (event,) = events(world)
    assert (event["message_id"], event["channel"]) == (MESSAGE, "whatsapp")
    assert set(driver.content()) == {b"r:own-id:pm-1"}


def test_a_receipt_before_its_reference_waits_for_it() -> None:
    world, driver = a_world()
    world.play([own_id(), own_id("read")])
    assert events(world) == []
    assert set(driver.content()) == {b"p:own-id:pm-1"}
    world.play([Advance(PARK_MS - 1), known()])
    assert [event["kind"] for event in events(world)] == ["delivered", "read"]
    assert set(driver.content()) == {b"r:own-id:pm-1"}


def test_it_is_the_same_event_whichever_came_first() -> None:
    first, _ = a_world()
    first.play([known(), own_id()])
    second, _ = a_world()
    second.play([own_id(), known()])
    assert events(first) == events(second)


def test_parked_receipts_take_the_trace_of_their_reference() -> None:
    world, _ = a_world()
    world.play([own_id(), known()])
    assert [record.headers for record in world.log.records("delivered")] == [(TRACE,)]


def test_a_receipt_whose_reference_never_comes_is_kept_as_a_dead_letter() -> None:
    world, driver = a_world()
    world.play([own_id(), Advance(PARK_MS - 1)])
    assert letters(world) == []
    world.play([Advance(1)])
    (letter,) = letters(world)
    assert (letter["stage"], letter["category"]) == ("receipts", "unknown_reference")
    assert json.loads(letter["raw_value"])["provider_message_id"] == "pm-1"
    assert letter["source"]["topic"] == "callbacks"
    assert driver.content() == {}


def test_every_parked_receipt_waits_a_full_day() -> None:
    world, _ = a_world()
    world.play([own_id(), Advance(PARK_MS // 2), own_id("read"), Advance(PARK_MS // 2)])
    assert letters(world) == []
    world.play([Advance(PARK_MS // 2)])
    assert len({letter["dead_letter_id"] for letter in letters(world)}) == 2


def test_a_parked_receipt_that_comes_again_is_parked_once_and_not_longer() -> None:
    world, driver = a_world()
    world.play([own_id(), Advance(PARK_MS // 2), own_id()])
    (parked,) = driver.content().values()
    assert len(parked["receipts"]) == 1
    world.play([Advance(PARK_MS // 2)])
    assert len(letters(world)) == 1


def test_parking_has_a_limit_and_what_is_over_it_is_not_lost() -> None:
    world, driver = a_world()
    many = [report("failed", message_id="pm-1", id=f"ev-{n}") for n in range(PARKED_PER_ID + 2)]
    world.play([callback(*many, provider="own-id")])
    (parked,) = driver.content().values()
    assert len(parked["receipts"]) == PARKED_PER_ID
    assert [letter["category"] for letter in letters(world)] == ["too_many_parked"] * 2


def test_a_reference_is_forgotten_after_its_time() -> None:
    world, driver = a_world()
    world.play([known(), Advance(KEEP_REFERENCE_MS - 1), own_id()])
    assert len(events(world)) == 1
    world.play([Advance(1)])
    assert driver.content() == {}
    world.play([own_id("read"), Advance(PARK_MS)])
    assert [letter["category"] for letter in letters(world)] == ["unknown_reference"]


def test_a_reference_that_comes_again_changes_nothing() -> None:
    world, driver = a_world()
    world.play([known()])
    before = driver.content()
    world.play([Advance(1_000), known()])
    assert driver.content() == before


def test_an_id_that_a_provider_uses_again_stands_for_the_later_message() -> None:
    world, _ = a_world()
    other = Named("acme", ids.message_id("acme", RECIPIENT, "order-2"), RECIPIENT, 0)
    world.play([known(), known(text=reference.make(other, 0, KEYS[0])), own_id()])
    assert [event["message_id"] for event in events(world)] == [other.message_id]


def test_a_reference_under_a_key_that_is_gone_is_a_dead_letter() -> None:
    world, driver = a_world()
    world.play([known(text=reference.make(NAMED, 5, b"x" * 32))])
    assert [letter["category"] for letter in letters(world)] == ["unknown_reference"]
    assert driver.content() == {}


def test_a_reference_whose_key_went_away_later_loses_no_receipt() -> None:
    log = MemoryLog(ManualClock(), check=on_the_wire)
    keys = dict(KEYS)
    driver = Driver(log, "receipts", lambda: Receipts(ACCOUNTS, PROVIDERS, keys), READS)
    world = World(log, [driver])
    world.play([known()])
    del keys[0]
    world.play([MovePartition(), own_id()])
    assert [letter["category"] for letter in letters(world)] == ["unknown_reference"]


# What cannot be used


FORGED = OURS[:-12] + ("A" if OURS[-12] != "A" else "B") + OURS[-11:]


@pytest.mark.parametrize(
    ("item", "category"),
    [
        (callback(body=b"<html>"), "unreadable"),
        (callback(body=b""), "unreadable"),
        (callback(body=b'"text"'), "unreadable"),
        (callback(report("bounced", reference=OURS)), "unknown_event"),
        (callback(17), "unknown_event"),
        (callback(report(reference=FORGED)), "unknown_reference"),
        (callback(report(reference="somebody-elses")), "unknown_reference"),
        (callback(report(reference="\ud800")), "unknown_reference"),
        (callback(report()), "unknown_reference"),
        (callback(report(message_id="m"), provider="nobody"), "unknown_provider"),
    ],
)
def test_what_cannot_be_used_is_kept_with_its_bytes(item: Input, category: str) -> None:
    world, driver = a_world()
    world.play([item, callback(report(reference=OURS))])
    (letter,) = letters(world)
    assert (letter["stage"], letter["category"]) == ("receipts", category)
    assert letter["raw_value"] == item.value["body"]
    assert letter["reason"] != ""
    assert letter["provider"] == item.value["provider"]
    assert len(events(world)) == 1, "the next record goes on"
    assert driver.content() == {}


def test_a_bad_report_does_not_take_its_neighbours_along() -> None:
    world, _ = a_world()
    world.play(
        [
            callback(
                report("bounced", reference=OURS),
                report(reference=OURS),
                report(reference=FORGED),
                report("read", reference=FORGED),
            )
        ]
    )
    assert [event["kind"] for event in events(world)] == ["delivered"]
    by_category = {letter["category"]: letter for letter in letters(world)}
    assert set(by_category) == {"unknown_event", "unknown_reference"}
    assert by_category["unknown_event"]["message_id"] == MESSAGE
    assert by_category["unknown_reference"]["message_id"] is None
    assert "report 3 of 4" in by_category["unknown_reference"]["detail"]
    assert "report 4 of 4" in by_category["unknown_reference"]["detail"]


def test_a_callback_that_comes_twice_makes_dead_letters_of_one_name() -> None:
    world, _ = a_world()
    world.play([callback(report("bounced")), Repeat()])
    assert len(letters(world)) == 2
    assert len({letter["dead_letter_id"] for letter in letters(world)}) == 1


def test_an_account_with_its_own_ids_may_put_anything_into_the_reference() -> None:
    world, _ = a_world()
    world.play([known(), own_id(reference="campaign-7")])
    assert len(events(world)) == 1


def test_a_provider_that_was_removed_still_has_its_parked_receipts_joined() -> None:
    log = MemoryLog(ManualClock(), check=on_the_wire)
    accounts = dict(ACCOUNTS)
    driver = Driver(log, "receipts", lambda: Receipts(accounts, PROVIDERS, KEYS), READS)
    world = World(log, [driver])
    world.play([own_id()])
    del accounts["own-id"]
    world.play([MovePartition(), known()])
    assert [(event["message_id"], event["channel"]) for event in events(world)] == [(MESSAGE, "")]


# Anything at all

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON,
        "type": st.sampled_from(["delivered", "read", "failed", "accepted", "odd"]) | JSON,
        "occurred_at": JSON,
        "reference": st.sampled_from([OURS, FORGED]) | JSON,
        "message_id": st.sampled_from(["pm-1", "\ud800", "x" * 1_000]) | JSON,
        "code": JSON,
        "country": JSON,
    },
)
BODIES = st.binary(max_size=60) | st.lists(FIELDS | JSON, max_size=4).map(
    lambda value: json.dumps(value).encode()
)


@given(bodies=st.lists(BODIES, max_size=4), provider=st.sampled_from(["echoing", "own-id"]))
@settings(max_examples=150, deadline=None)
def test_no_callback_crashes_the_stage_or_says_what_cannot_be_written(
    bodies: list[bytes], provider: str
) -> None:
    world, _ = a_world()
    items = [callback(provider=provider, name=f"cb-{n}", body=b) for n, b in enumerate(bodies)]
    world.play([*items, known(), Advance(2 * KEEP_REFERENCE_MS)])
    for event in events(world):
        assert event["message_id"] == MESSAGE


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_in_any_order_with_any_fault_the_events_are_the_same(data: st.DataObject) -> None:
    """Replay, reordering, repeats, crashes and moves only ever repeat an event under its name."""
    inputs = [
        known("pm-1"),
        known("pm-2"),
        own_id("delivered", "pm-1"),
        own_id("read", "pm-1"),
        own_id("failed", "pm-2"),
        callback(report("delivered", reference=OURS), report("odd")),
    ]
    plain, _ = a_world()
    plain.play(inputs)
    faults = st.sampled_from(
        [Repeat(), Crash(), Crash(torn=True), MovePartition(), Settle(), Advance(60_000)]
    )
    items: list[Any] = []
    for item in data.draw(st.permutations(inputs)):
        items += [item, *data.draw(st.lists(faults, max_size=2))]
    world, driver = a_world()
    world.play(items)
    assert {event["event_id"] for event in events(world)} == {
        event["event_id"] for event in events(plain)
    }
    assert {letter["dead_letter_id"] for letter in letters(world)} == {
        letter["dead_letter_id"] for letter in letters(plain)
    }
    assert set(driver.content()) == {b"r:own-id:pm-1", b"r:own-id:pm-2"}
