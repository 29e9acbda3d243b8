"""What the API makes of a body, and that accept takes what it took, for the same tenant and id."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.errors import BadInput
from pipeline.domain.outcomes import Emit, Inbound
from pipeline.domain.policy import Policy, PriorityPolicy, RetryPolicy, RouteStep
from pipeline.domain.ports_api import MAX_BATCH, Prepared
from pipeline.domain.requests import MAX_REQUEST_BYTES
from pipeline.domain.tenancy import HEADER
from pipeline.runtime.codec import Codec
from pipeline.stages.accept import AcceptConfig, accept, world_of
from pipeline.stages.http_intake import LEEWAY_MS, HttpIntake

NOW = 1_800_000_000_000
HOUR = 3_600_000
PEPPER = b"0123456789abcdef"
RETRY = RetryPolicy(max_tries=3, base_ms=1_000, cap_ms=10_000)
POLICY = Policy(
    priorities={
        "urgent": PriorityPolicy(30_000, HOUR, RETRY, "resend", 10_000, 5_000),
        "normal": PriorityPolicy(60_000, 24 * HOUR, RETRY, "wait", 60_000, 60_000),
        "bulk": PriorityPolicy(600_000, 72 * HOUR, RETRY, "wait", 600_000, 900_000),
    },
    rules=(),
    default_route=(RouteStep("sms"),),
)
TRACE = (("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),)
API = HttpIntake(world_of(POLICY), PEPPER, {}, lambda: "made")
ACCEPT = AcceptConfig(POLICY, PEPPER, "cluster-1", Codec().decode, {"intake": "topics-own"})
GOOD: dict[str, Any] = {"to": {"phone": "+4915112345678"}, "content": {"text": "Your code is 12"}}


def prepared(tenant: str = "shop", **changes: Any) -> Prepared:
    return API.prepare({**GOOD, **changes}, tenant, TRACE, NOW)


def accepted(one: Prepared, at: int = NOW) -> Emit:
    record = Inbound(one.topic, 0, 1, at, one.key.encode(), one.value, one.headers)
    (answer,) = accept(record, ACCEPT)
    assert isinstance(answer, Emit)
    return answer


def refused(item: object) -> BadInput:
    with pytest.raises(BadInput) as found:
        API.prepare(item, "shop", (), NOW)
    return found.value


@pytest.mark.parametrize("priority", ["urgent", "normal", "bulk"])
def test_accept_takes_it_for_the_same_tenant_under_the_same_id_and_key(priority: str):
    one = prepared(priority=priority, idempotency_key="order-1")
    assert one.topic == ("intake.bulk" if priority == "bulk" else "intake")
    answer = accepted(one, NOW + 5_000)
    assert answer.topic == f"accepted.{priority}"
    assert answer.value is not None
    assert answer.value["tenant"] == "shop"
    assert answer.value["message_id"] == one.message_id
    assert answer.key == one.key
    assert answer.headers == TRACE


def test_the_same_request_has_the_same_id_for_each_tenant_of_its_own():
    one, again = prepared(idempotency_key="k"), prepared(idempotency_key="k")
    assert one.message_id == again.message_id
    assert prepared("bank", idempotency_key="k").message_id != one.message_id
    assert prepared(idempotency_key="l").message_id != one.message_id


def test_who_gives_no_key_gets_one():
    one = prepared()
    assert one.idempotency_key == "made"
    assert json.loads(one.value)["idempotency_key"] == "made"


def test_the_tenant_comes_from_the_api_key_and_never_from_the_body():
    assert accepted(prepared(tenant="shop", idempotency_key="k")).value is not None
    error = refused({**GOOD, "tenant": "bank"})
    assert (error.field, error.code) == ("tenant", "wrong_tenant")


def test_a_client_of_the_topic_cannot_write_for_a_tenant():
    """Its record is rejected, with somebody's header on other bytes as with one of its own."""
    theirs = prepared(idempotency_key="k")
    mine = prepared(idempotency_key="l")
    for headers in (theirs.headers, ((HEADER, b"shop"),), (*mine.headers, *mine.headers)):
        record = Inbound("intake", 0, 1, NOW, None, mine.value, headers)
        (answer,) = accept(record, ACCEPT)
        assert isinstance(answer, Emit)
        assert answer.topic == "rejected"
        assert answer.value is not None
        assert answer.value["tenant"] == "topics-own"
        assert (answer.value["field"], answer.value["code"]) == (f"header {HEADER}", "wrong_tenant")


def test_a_record_without_the_header_belongs_to_the_topics_tenant():
    record = Inbound("intake", 0, 1, NOW, None, json.dumps(GOOD).encode(), TRACE)
    (answer,) = accept(record, ACCEPT)
    assert isinstance(answer, Emit)
    assert answer.value is not None
    assert answer.value["tenant"] == "topics-own"


def test_mistakes_name_field_cause_and_cure():
    error = refused({**GOOD, "to": {"phone": "12"}})
    assert (error.field, error.code) == ("to.phone", "not_a_phone_number")
    assert error.cause
    assert error.cure
    assert refused({**GOOD, "txt": 1}).field == "txt"
    assert refused("text").field == "body"


def test_a_deadline_that_accept_could_find_over_is_refused_here():
    assert refused({**GOOD, "deadline": NOW + LEEWAY_MS}).field == "deadline"
    one = prepared(deadline=NOW + LEEWAY_MS + 1)
    assert accepted(one, NOW + LEEWAY_MS).topic == "accepted.normal"


def test_what_accept_would_find_too_large_is_refused_here():
    def sized(size: int) -> dict[str, Any]:
        # Text, HTML and a key with every character taking six bytes in ASCII, two in UTF-8.
        return {**GOOD, "content": {"html": "\u00e9" * size}, "idempotency_key": "k"}

    room = MAX_REQUEST_BYTES - len(prepared(content={"html": ""} | {"text": "x"}).value)
    assert accepted(API.prepare(sized(room // 2 - 100), "shop", (), NOW)).topic == "accepted.normal"
    error = refused(sized(room // 2 + 100))
    assert (error.field, error.code) == ("body", "too_large")


def test_a_body_is_one_message_or_a_list():
    assert API.read(b'{"to": 1}') == ([{"to": 1}], False)
    assert API.read(b'{"messages": [{"to": 1}, 2]}') == ([{"to": 1}, 2], True)
    assert API.read(b"[]") == ([[]], False)


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        (b"", "body", "not_json"),
        (b'{"to": NaN}', "body", "not_json"),
        (b'{"to": "\\ud800"}', "body", "not_json"),
        (b'{"a": "secret-word', "body", "not_json"),
        (b'{"messages": [], "to": 1}', "body", "unknown_field"),
        (b'{"messages": {}}', "messages", "wrong_type"),
        (b'{"messages": []}', "messages", "empty"),
        (b'{"messages": [%s1]}' % (b"1," * MAX_BATCH), "messages", "too_long"),
        (b"[" * 5_000, "body", "not_json"),
    ],
)
def test_a_body_that_cannot_be_read_says_where_and_quotes_nothing(
    body: bytes, field: str, code: str
):
    with pytest.raises(BadInput) as found:
        API.read(body)
    assert (found.value.field, found.value.code) == (field, code)
    assert "secret-word" not in str(found.value)


def test_a_thousand_are_not_too_many():
    assert len(API.read(b'{"messages": [%s1]}' % (b"1," * (MAX_BATCH - 1))).items) == MAX_BATCH


@pytest.mark.parametrize(
    ("to", "asked"),
    [
        ({"phone": "+4915112345678"}, {"to": "+49 151 12345678"}),
        ({"phone": "+4915112345678", "email": "a@example.com"}, {"to": " 4915112345678"}),
        ({"email": "Ada@Example.com"}, {"to": "ada@example.com"}),
        ({"id": "u-1", "phone": "+4915112345678"}, {"to_id": "u-1"}),
    ],
)
def test_key_and_person_name_the_message(to: dict[str, str], asked: dict[str, str]):
    one = prepared(to=to, idempotency_key="k")
    both = {"to": None, "to_id": None, **asked}
    assert API.message_id("shop", "k", **both) == one.message_id
    assert API.message_id("bank", "k", **both) != one.message_id


@pytest.mark.parametrize(
    ("key", "to", "to_id", "field"),
    [
        (None, "+4915112345678", None, "idempotency_key"),
        ("", "+4915112345678", None, "idempotency_key"),
        ("k", None, None, "to"),
        ("k", "+4915112345678", "u-1", "to"),
        ("k", "12", None, "to.phone"),
        ("k", "a@b", None, "to.email"),
        ("k", None, "", "to.id"),
    ],
)
def test_a_question_that_names_nobody_says_so(
    key: str | None, to: str | None, to_id: str | None, field: str
):
    with pytest.raises(BadInput) as found:
        API.message_id("shop", key, to, to_id)
    assert found.value.field == field


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
FIELDS = st.sampled_from(
    ["to", "content", "route", "priority", "category", "labels", "deadline", "sequence",
     "on_doubt", "campaign", "idempotency_key", "record_version", "tenant", "other"]
)  # fmt: skip


@given(st.dictionaries(FIELDS, JSON, max_size=4), JSON)
def test_whatever_comes_is_taken_by_both_or_refused_here(changes: dict[str, Any], alone: Any):
    for item in ({**GOOD, **changes}, alone):
        try:
            one = API.prepare(item, "shop", (), NOW)
        except BadInput as error:
            words = error.field, error.cause, error.cure, error.code
        else:
            words = ("taken",)
            assert accepted(one, NOW + 1_000).topic.startswith("accepted.")
        assert all(words)
