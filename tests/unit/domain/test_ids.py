"""Ids are names of things: the same thing has the same name in every process, for ever."""

import re
import uuid

from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import ids

PEPPER = b"sixteen bytes it"
TEXT = st.text(st.characters(exclude_characters="\x1f", exclude_categories=["Cs"]), max_size=40)


def test_golden_ids_never_change():
    """A changed id would make every repeat a new message, so these stand as they are."""
    recipient = ids.recipient_key(PEPPER, "acme", "phone", "+491701234567")
    message = ids.message_id("acme", recipient, "order-1001")
    command = ids.command_id(message, 0, 1)
    assert recipient == "uVrEsyYB1DWiQposYTQJTg"
    assert message == "42282c77-c30f-5301-972c-e8e838310bef"
    assert command == "24db3947-b3c4-5346-903a-642710d1346d"
    assert ids.attempt_id(command, "sms-local") == "cab392ef-b3fa-57dd-9006-a220aab92fa2"
    assert (
        ids.event_id(message, 0, 1, "sms-local", "delivered", "evt-1")
        == "ecdc89bb-ce5d-56c7-a121-49ee49bea49b"
    )
    assert ids.idempotency_key(message, 0, 0) == "6606a173-2c40-5811-889a-479860f6bf51"
    assert ids.pepper_fingerprint(PEPPER) == "wEq4ImNt4FXDDqcq9CStQQ"


@given(tenant=TEXT, kind=st.sampled_from(["id", "phone", "email"]), value=TEXT)
def test_keys_are_short_and_plain(tenant: str, kind: str, value: str):
    key = ids.recipient_key(PEPPER, tenant, kind, value)
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", key)
    assert key == ids.recipient_key(PEPPER, tenant, kind, value)
    assert key != ids.recipient_key(b"another pepper!!", tenant, kind, value)


@given(parts=st.tuples(TEXT, TEXT, TEXT), others=st.tuples(TEXT, TEXT, TEXT))
def test_other_things_have_other_names(parts: tuple[str, str, str], others: tuple[str, str, str]):
    """Also where the same letters are cut in other places: (ab, c) is not (a, bc)."""
    same = parts == others
    assert (ids.message_id(*parts) == ids.message_id(*others)) is same
    first, second = (ids.recipient_key(PEPPER, *names) for names in (parts, others))
    assert (first == second) is same


def test_kinds_of_ids_do_not_meet():
    """The same parts under another kind of name give another id."""
    parts = ("m", 0, 1)
    found = {
        ids.command_id(*parts),
        ids.idempotency_key(*parts),
        ids.unreadable_id(*parts),
        ids.message_id("m", "0", "1"),
    }
    assert len(found) == 4
    address = ids.address_hash(PEPPER, "acme", "x")
    assert address != ids.idempotency_hash(PEPPER, "acme", "x")


def test_what_distinguishes_things_is_in_their_ids():
    message = ids.message_id("acme", "r", "k")
    assert ids.message_id("other", "r", "k") != message
    assert ids.command_id(message, 0, 1) != ids.command_id(message, 0, 2)
    assert ids.command_id(message, 0, 1) != ids.command_id(message, 1, 1)
    assert ids.idempotency_key(message, 0, 0) != ids.idempotency_key(message, 0, 1)
    assert ids.attempt_id("c", "a") != ids.attempt_id("c", "b")
    records = {
        ids.message_id_of_record(*place)
        for place in [("c", "t", 0, 1), ("c", "t", 1, 0), ("c", "u", 0, 1), ("d", "t", 0, 1)]
    }
    assert len(records) == 4


def test_ids_are_uuids_and_references_can_carry_them():
    assert uuid.UUID(ids.message_id("acme", "r", "k")).version == 5
    assert uuid.UUID(ids.message_id_of_record("c", "t", 0, 0)).version == 5


def test_a_fingerprint_tells_peppers_apart_and_is_not_the_pepper():
    assert ids.pepper_fingerprint(PEPPER) != ids.pepper_fingerprint(b"another pepper!!")
    assert PEPPER.hex() not in ids.pepper_fingerprint(PEPPER)
