"""Accept: what a good request becomes, and what every kind of bad one is told."""

import json
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain import ids
from pipeline.domain.outcomes import Emit, Inbound
from pipeline.domain.policy import Policy, PriorityPolicy, RetryPolicy, RouteStep
from pipeline.domain.requests import MAX_REQUEST_BYTES
from pipeline.domain.switches import Switches
from pipeline.runtime.codec import Codec
from pipeline.stages.accept import AcceptConfig, accept, read_phone

NOW = 1_800_000_000_000
HOUR = 3_600_000
PEPPER = b"0123456789abcdef"
CODEC = Codec()
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
CONFIG = AcceptConfig(
    POLICY, PEPPER, "cluster-1", CODEC.decode, {"intake": "default", "intake.bulk": "default"}
)
PHONE = "+4915112345678"
GOOD: dict[str, Any] = {"to": {"phone": PHONE}, "content": {"text": "Your code is 1234"}}


def record(
    value: Any,
    topic: str = "intake",
    offset: int = 7,
    headers: tuple[tuple[str, bytes], ...] = (),
    timestamp: int = NOW,
) -> Inbound:
    raw = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    return Inbound(topic, 3, offset, timestamp, b"any", raw, headers)


def one(value: Any, **where: Any) -> Emit:
    answers = accept(record(value, **where), CONFIG)
    assert len(answers) == 1, answers
    assert isinstance(answers[0], Emit)
    return answers[0]


def message(value: Any, **where: Any) -> dict[str, Any]:
    answer = one(value, **where)
    assert answer.topic.startswith("accepted."), answer
    assert answer.value is not None
    CODEC.encode("Message", answer.value)
    return dict(answer.value)


def rejection(value: Any, **where: Any) -> dict[str, Any]:
    answer = one(value, **where)
    assert answer.topic == "rejected", answer
    assert answer.key is None
    assert answer.value is not None
    CODEC.encode("Event", answer.value)
    return dict(answer.value)


def with_(**changes: Any) -> dict[str, Any]:
    return {**GOOD, **changes}


def test_a_good_request_becomes_a_message_under_its_recipients_key() -> None:
    answer = one(with_(idempotency_key="order-1", priority="urgent", labels={"team": "a"}))
    recipient = ids.recipient_key(PEPPER, "default", "phone", PHONE)
    assert answer.topic == "accepted.urgent"
    assert answer.key == recipient
    assert answer.value == {
        "record_version": 1,
        "tenant": "default",
        "message_id": ids.message_id("default", recipient, "order-1"),
        "recipient_key": recipient,
        "idempotency_hash": ids.idempotency_hash(PEPPER, "default", "order-1"),
        "source": {"topic": "intake", "partition": 3, "offset": 7},
        "accepted_at": NOW,
        "priority": "urgent",
        "category": "transactional",
        "campaign": None,
        "labels": {"team": "a"},
        "to": {"id": None, "phone": PHONE, "email": None, "country": None},
        "country": "DE",
        "content": {"text": "Your code is 1234", "subject": None, "html": None},
        "route": None,
        "deadline": NOW + HOUR,
        "sequence": None,
        "on_doubt": "resend",
        "replay_of": None,
    }


def test_avro_and_json_say_the_same() -> None:
    avro = CODEC.encode("SendRequest", with_(idempotency_key="a", labels={}))
    assert message(avro) == message(with_(idempotency_key="a"))


def test_a_route_keeps_its_order_windows_and_successes() -> None:
    route = [
        {"channel": "whatsapp", "window_s": 45, "success": "read"},
        {"channel": "sms"},
    ]
    assert message(with_(route=route))["route"] == [
        {"channel": "whatsapp", "window_s": 45.0, "success": "read"},
        {"channel": "sms", "window_s": None, "success": None},
    ]


@pytest.mark.parametrize(
    ("topic", "given_priority", "priority", "on_doubt", "life"),
    [
        ("intake", None, "normal", "wait", 24 * HOUR),
        ("intake", "", "normal", "wait", 24 * HOUR),
        ("intake", "bulk", "bulk", "wait", 72 * HOUR),
        ("intake.bulk", None, "bulk", "wait", 72 * HOUR),
        ("intake.bulk", "urgent", "urgent", "resend", HOUR),
    ],
)
def test_the_priority_decides_deadline_and_doubt(
    topic: str, given_priority: str | None, priority: str, on_doubt: str, life: int
) -> None:
    request = GOOD if given_priority is None else with_(priority=given_priority)
    found = message(request, topic=topic)
    assert (found["priority"], found["on_doubt"]) == (priority, on_doubt)
    assert found["deadline"] == NOW + life


def test_a_request_without_a_key_is_named_by_its_record() -> None:
    first, again = message(GOOD), message(GOOD)
    assert first["message_id"] == again["message_id"]
    assert first["message_id"] == ids.message_id_of_record("cluster-1", "intake", 3, 7)
    assert first["idempotency_hash"] is None
    assert message(GOOD, offset=8)["message_id"] != first["message_id"]


def test_the_same_key_is_the_same_message_wherever_it_is_read() -> None:
    keyed = with_(idempotency_key="k")
    assert message(keyed)["message_id"] == message(keyed, offset=99)["message_id"]
    other = with_(idempotency_key="k", to={"phone": "+4915112345679"})
    assert message(other)["message_id"] != message(keyed)["message_id"]


@pytest.mark.parametrize("header", ["id", "ce_id"])
def test_a_header_names_a_request_whose_body_has_no_key(header: str) -> None:
    by_header = message(GOOD, headers=((header, b"k"),))
    assert by_header["message_id"] == message(with_(idempotency_key="k"))["message_id"]
    both = message(with_(idempotency_key="k"), headers=((header, b"other"),))
    assert both["message_id"] == by_header["message_id"]


def test_a_header_that_is_no_text_is_named() -> None:
    assert rejection(GOOD, headers=(("id", b"\xff\xfe"),))["field"] == "header id"
    assert rejection(GOOD, headers=(("id", b"x" * 300),))["code"] == "too_long"


def test_the_callers_trace_is_carried_and_nothing_else() -> None:
    parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = (("traceparent", parent), ("tracestate", b"v=1"), ("other", b"secret"))
    carried = (("traceparent", parent), ("tracestate", b"v=1"))
    assert one(GOOD, headers=headers).headers == carried
    assert one({}, headers=headers).headers == carried
    assert one(GOOD, headers=(("traceparent", b"+4915112345678"),)).headers == ()
    assert one(GOOD, headers=(("traceparent", parent), ("tracestate", b"\x00"))).headers == (
        ("traceparent", parent),
    )


@pytest.mark.parametrize(
    ("to", "phone", "country"),
    [
        ({"phone": " +49 (1511) 2345-678 "}, PHONE, "DE"),
        ({"phone": "01511 2345678", "country": "de"}, PHONE, "DE"),
        ({"phone": "+12015550123"}, "+12015550123", "US"),
        ({"phone": "+15062345678"}, "+15062345678", "CA"),
        ({"phone": PHONE, "country": "FR"}, PHONE, "DE"),
        ({"phone": "+80012345678", "country": "CH"}, "+80012345678", "CH"),
        ({"email": "a@example.com", "country": "FR"}, None, "FR"),
        ({"id": "customer-1"}, None, "ZZ"),
    ],
)
def test_numbers_become_e164_and_tell_the_country(
    to: dict[str, str], phone: str | None, country: str
) -> None:
    found = message(with_(to=to))
    assert (found["to"]["phone"], found["country"]) == (phone, country)


@pytest.mark.parametrize(
    ("given_email", "email"),
    [
        ("Name.Last+tag@Example.COM", "name.last+tag@example.com"),
        ("user@münchen.example", "user@xn--mnchen-3ya.example"),
    ],
)
def test_addresses_become_lower_case(given_email: str, email: str) -> None:
    assert message(with_(to={"email": given_email}))["to"]["email"] == email


def test_one_person_has_one_key_however_the_address_is_written() -> None:
    keys = {
        message(with_(to=to))["recipient_key"]
        for to in ({"phone": PHONE}, {"phone": "01511 2345678", "country": "DE"})
    }
    assert len(keys) == 1
    by_id = message(with_(to={"id": "1", "phone": PHONE}))["recipient_key"]
    assert by_id == ids.recipient_key(PEPPER, "default", "id", "1")


@pytest.mark.parametrize(
    "deadline",
    [NOW + HOUR, "2027-01-15T09:00:00Z", "2027-01-15T10:00:00+01:00", "2027-01-15T09:00:00.000Z"],
)
def test_a_deadline_is_milliseconds_or_iso_8601(deadline: Any) -> None:
    assert message(with_(deadline=deadline))["deadline"] == NOW + HOUR


BAD: list[tuple[str, Any, str, str]] = [
    ("no object", [GOOD], "body", "wrong_type"),
    ("a text", '"hello"', "body", "not_json"),
    ("only a text", b'"hello"', "body", "wrong_type"),
    ("an unknown field", with_(too=1), "too", "unknown_field"),
    ("a field with a number for a name", {**GOOD, PHONE: 1}, "body", "unknown_field"),
    ("no recipient", {"content": {"text": "a"}}, "to", "missing"),
    ("an empty recipient", with_(to={}), "to", "missing"),
    ("a recipient of text", with_(to=PHONE), "to", "wrong_type"),
    ("an unknown address", with_(to={"fone": PHONE}), "to.fone", "unknown_field"),
    ("no phone number", with_(to={"phone": "not a number"}), "to.phone", "not_a_phone_number"),
    ("a number of nobody", with_(to={"phone": "+49123"}), "to.phone", "not_a_phone_number"),
    ("no country's number", with_(to={"phone": "+99912345678"}), "to.phone", "not_a_phone_number"),
    ("a national number", with_(to={"phone": "015112345678"}), "to.phone", "not_a_phone_number"),
    ("a phone as a number", with_(to={"phone": 4915112345678}), "to.phone", "wrong_type"),
    ("an empty phone", with_(to={"phone": ""}), "to.phone", "not_a_phone_number"),
    ("a huge phone", with_(to={"phone": "+" + "1" * 10_000}), "to.phone", "not_a_phone_number"),
    ("no country", with_(to={"phone": PHONE, "country": "XX"}), "to.country", "unknown_value"),
    ("a country of a number", with_(to={"id": "1", "country": 49}), "to.country", "wrong_type"),
    ("no address", with_(to={"email": "nobody"}), "to.email", "not_an_email"),
    ("two ats", with_(to={"email": "a@b@example.com"}), "to.email", "not_an_email"),
    ("a header", with_(to={"email": "a@example.com\r\nBcc: b@c.de"}), "to.email", "not_an_email"),
    ("no domain", with_(to={"email": "a@localhost"}), "to.email", "not_an_email"),
    ("a long local part", with_(to={"email": "a" * 65 + "@a.de"}), "to.email", "not_an_email"),
    ("an empty id", with_(to={"id": " "}), "to.id", "empty"),
    ("a long id", with_(to={"id": "x" * 201}), "to.id", "too_long"),
    ("no content", {"to": {"phone": PHONE}}, "content", "missing"),
    ("blank content", with_(content={"text": " \n"}), "content", "missing"),
    ("content as text", with_(content="hello"), "content", "wrong_type"),
    ("text as a number", with_(content={"text": 5}), "content.text", "wrong_type"),
    ("a long text", with_(content={"text": "x" * 100_001}), "content.text", "too_long"),
    ("an unknown content", with_(content={"txt": "a"}), "content.txt", "unknown_field"),
    ("an empty route", with_(route=[]), "route", "empty"),
    ("a route as text", with_(route="sms"), "route", "wrong_type"),
    ("a step as text", with_(route=["sms"]), "route[0]", "wrong_type"),
    ("a long route", with_(route=[{"channel": "sms"}] * 11), "route", "too_long"),
    ("an unknown channel", with_(route=[{"channel": "smss"}]), "route[0].channel", "unknown_value"),
    ("no channel", with_(route=[{}]), "route[0].channel", "missing"),
    ("a route to nowhere", with_(route=[{"channel": "email"}]), "route", "missing"),
    (
        "a short window",
        with_(route=[{"channel": "sms"}, {"channel": "sms", "window_s": 9}]),
        "route[1].window_s",
        "out_of_bounds",
    ),
    (
        "a long window",
        with_(route=[{"channel": "sms", "window_s": 1e300}]),
        "route[0].window_s",
        "out_of_bounds",
    ),
    (
        "a window that is true",
        with_(route=[{"channel": "sms", "window_s": True}]),
        "route[0].window_s",
        "wrong_type",
    ),
    (
        "an unknown success",
        with_(route=[{"channel": "sms", "success": "seen"}]),
        "route[0].success",
        "unknown_value",
    ),
    ("an unknown priority", with_(priority="high"), "priority", "unknown_value"),
    ("a priority as a number", with_(priority=1), "priority", "wrong_type"),
    ("an unknown doubt", with_(on_doubt="maybe"), "on_doubt", "unknown_value"),
    ("a deadline in the past", with_(deadline=NOW - 1), "deadline", "in_the_past"),
    ("a deadline now", with_(deadline=NOW), "deadline", "in_the_past"),
    ("a deadline in seconds", with_(deadline=NOW // 1000 + 60), "deadline", "in_the_past"),
    ("a far deadline", with_(deadline=NOW + 31 * 24 * HOUR), "deadline", "out_of_bounds"),
    ("a deadline of text", with_(deadline="tomorrow"), "deadline", "wrong_type"),
    ("a deadline nowhere", with_(deadline="2027-01-15T09:00:00"), "deadline", "wrong_type"),
    ("a deadline that is true", with_(deadline=True), "deadline", "wrong_type"),
    ("a deadline of a fraction", with_(deadline=1.5), "deadline", "wrong_type"),
    ("a long key", with_(idempotency_key="x" * 256), "idempotency_key", "too_long"),
    ("an empty key", with_(idempotency_key=""), "idempotency_key", "empty"),
    ("a key as a number", with_(idempotency_key=5), "idempotency_key", "wrong_type"),
    ("a key of controls", with_(idempotency_key="a\x1fb"), "idempotency_key", "control_character"),
    ("a long sequence", with_(sequence="x" * 101), "sequence", "too_long"),
    ("a long campaign", with_(campaign="x" * 101), "campaign", "too_long"),
    ("a category in words", with_(category="My Category"), "category", "unknown_value"),
    ("labels as a list", with_(labels=["a"]), "labels", "wrong_type"),
    ("a label of a number", with_(labels={"a": 1}), "labels", "wrong_type"),
    ("many labels", with_(labels={str(n): "" for n in range(21)}), "labels", "too_long"),
    ("a long label", with_(labels={"a": "x" * 257}), "labels", "too_long"),
    ("another tenant", with_(tenant="other"), "tenant", "wrong_tenant"),
    ("a tenant of a number", with_(tenant=1), "tenant", "wrong_type"),
    ("another version", with_(record_version=99), "record_version", "unknown_value"),
    ("a body of 1 MB", with_(content={"text": "x" * 1_000_000}), "body", "too_large"),
    ("another record", CODEC.encode("ProfileUpdate", {"to": {}}), "body", "wrong_record"),
]


@pytest.mark.parametrize(("value", "field", "code"), [b[1:] for b in BAD if b[3] != "not_json"])
def test_a_bad_request_is_one_rejection_that_names_its_field(
    value: Any, field: str, code: str
) -> None:
    event = rejection(value)
    assert (event["field"], event["code"]) == (field, code)
    assert event["kind"] == "rejected"
    assert event["origin"] == "accept"
    assert event["source"] == {"topic": "intake", "partition": 3, "offset": 7}
    assert event["occurred_at"] == NOW
    cause, _, cure = event["reason"].partition("; ")
    assert cause
    assert cure


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\x93random \xff bytes", "not_json"),
        (b'{"to": {"phone": "+4915112345678"', "not_json"),
        (b'{"to": NaN}', "not_json"),
        (b"[" * 100_000, "not_json"),
        (CODEC.encode("SendRequest", with_(labels={}))[:-3], "invalid_body"),
        (CODEC.encode("SendRequest", with_(labels={})) + b"x", "invalid_body"),
        (b"\xc3\x01" + b"12345678" + b"body", "unknown_schema"),
        (b"\x00\x00\x00\x00\x63body", "no_registry"),
        (b"\x00", "unknown_framing"),
    ],
)
def test_what_cannot_be_read_is_kept_as_a_dead_letter(raw: bytes, code: str) -> None:
    answers = accept(record(raw), CONFIG)
    assert [answer.topic for answer in answers if isinstance(answer, Emit)] == [
        "rejected",
        "dead-letter",
    ]
    event, letter = (dict(answer.value or {}) for answer in answers if isinstance(answer, Emit))
    assert (event["field"], event["code"]) == ("body", code)
    assert (letter["raw_key"], letter["raw_value"]) == (b"any", raw)
    assert letter["dead_letter_id"] == ids.unreadable_id("intake", 3, 7)
    assert letter["message_id"] == event["message_id"]
    CODEC.encode("DeadLetter", letter)


@pytest.mark.parametrize(("raw", "code"), [(None, "null_value"), (b"", "empty_value")])
def test_nothing_is_rejected_without_a_dead_letter_of_nothing(raw: Any, code: str) -> None:
    event = rejection(raw)
    assert (event["field"], event["code"]) == ("body", code)


def test_near_misses_are_suggested() -> None:
    assert "did you mean content?" in rejection(with_(contnt={}))["reason"]
    assert "did you mean to.phone?" in rejection(with_(to={"phon": PHONE}))["reason"]
    assert "did you mean sms?" in rejection(with_(route=[{"channel": "SMS"}]))["reason"]


def test_a_rejection_repeats_nothing_that_the_caller_wrote() -> None:
    """Whatever is wrong, and wherever the canaries stand, none of them gets into an event."""
    canaries = ("+4915155566677", "canary@example.org", "canary text", "+49151555666771")
    phone, email, text, bad = canaries
    for value in (
        {"to": {"phone": bad, "email": email}, "content": {"text": text}},
        {"to": {"phone": phone}, "content": {"text": text}, "priority": phone},
        {"to": {"phone": phone}, "content": {"text": text}, "route": [{"channel": text}]},
        {"to": {"phone": phone}, "content": {"text": text}, text: 1},
        {"to": {"phone": phone}, "content": {"text": text}, phone: 1},
        {"to": {"phone": phone}, "content": text},
        {"to": {"email": text}, "content": {"text": text}},
        {"to": {"phone": phone}, "content": {"text": text}, "deadline": phone},
        {"to": {"phone": phone}, "content": {"text": text}, "tenant": phone},
        {"to": {"phone": phone}, "content": {"text": text}, "category": phone},
    ):
        shown = json.dumps(rejection(value))
        assert not [canary for canary in canaries if canary in shown], shown


def test_a_repeat_of_a_rejected_request_has_a_rejection_of_its_own() -> None:
    bad = with_(priority="high", idempotency_key="k")
    first, again, repeat = rejection(bad), rejection(bad), rejection(bad, offset=8)
    assert first == again
    assert repeat["event_id"] != first["event_id"]
    assert first["message_id"] != message(with_(idempotency_key="k"))["message_id"]


def test_a_request_of_the_largest_size_fits_where_it_goes() -> None:
    text = "x" * 100_000
    html = "y" * (MAX_REQUEST_BYTES - 101_000)
    found = message(with_(content={"text": text, "html": html[:400_000]}))
    assert len(CODEC.encode("Message", found)) < 1_000_000


def test_a_profile_update_becomes_the_profile() -> None:
    update = {"to": {"phone": PHONE, "email": "A@b.de"}, "preference": ["email", "sms"]}
    answer = one(update, topic="recipients")
    recipient = ids.recipient_key(PEPPER, "default", "phone", PHONE)
    assert (answer.topic, answer.key) == ("profiles", recipient)
    assert answer.value == {
        "record_version": 1,
        "tenant": "default",
        "recipient_key": recipient,
        "phone": PHONE,
        "email": "a@b.de",
        "country": "DE",
        "preference": ["email", "sms"],
        "updated_at": NOW,
    }
    avro = CODEC.encode("ProfileUpdate", update)
    assert one(avro, topic="recipients").value == answer.value


@pytest.mark.parametrize(
    ("update", "field"),
    [
        ({"preference": ["sms"]}, "to"),
        ({"to": {"phone": PHONE}, "preference": ["pigeon"]}, "preference[0]"),
        ({"to": {"phone": PHONE}, "preference": ["sms", "sms"]}, "preference"),
        ({"to": {"phone": PHONE}, "preference": "sms"}, "preference"),
        ({"to": {"phone": PHONE}, "prefs": []}, "prefs"),
    ],
)
def test_a_bad_profile_update_is_rejected(update: Any, field: str) -> None:
    assert rejection(update, topic="recipients")["field"] == field


def test_a_topic_is_bound_to_its_tenant() -> None:
    config = AcceptConfig(POLICY, PEPPER, "c", CODEC.decode, {"intake": "shop"})
    (own,) = accept(record(with_(tenant="shop")), config)
    (left_out,) = accept(record(GOOD), config)
    (foreign,) = accept(record(with_(tenant="default")), config)
    assert isinstance(own, Emit)
    assert isinstance(left_out, Emit)
    assert isinstance(foreign, Emit)
    assert own.value == left_out.value
    assert own.value is not None
    assert own.value["tenant"] == "shop"
    assert foreign.topic == "rejected"


def test_what_the_registry_cannot_answer_now_is_not_judged() -> None:
    class Away(Exception):
        pass

    def decode(_raw: bytes) -> tuple[str, dict[str, Any]]:
        raise Away

    config = AcceptConfig(POLICY, PEPPER, "c", decode)
    with pytest.raises(Away):
        accept(record(b"\x00\x00\x00\x00\x01a"), config)


def test_the_planted_fault_makes_every_repeat_another_message() -> None:
    config = AcceptConfig(
        POLICY,
        PEPPER,
        "c",
        CODEC.decode,
        switches=Switches(random_message_id=True),
        random_id=lambda: str(uuid.uuid4()),
    )
    (first,), (again,) = accept(record(GOOD), config), accept(record(GOOD), config)
    assert isinstance(first, Emit)
    assert isinstance(again, Emit)
    assert first.value is not None
    assert again.value is not None
    assert first.value["message_id"] != again.value["message_id"]


def test_numbers_are_remembered_within_bounds() -> None:
    info = read_phone.cache_info()
    assert info.maxsize is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["to", "content", "route", "priority", "deadline", "labels", "tenant", "idempotency_key",
     "sequence", "campaign", "category", "on_doubt", "record_version", "preference", "x"]
)  # fmt: skip


def judge(raw: bytes | None, topic: str) -> list[Any]:
    """The same record gives the same answers, one of them about the record, and all encodable."""
    answers = accept(record(raw, topic=topic), CONFIG)
    assert answers == accept(record(raw, topic=topic), CONFIG)
    topics = [answer.topic for answer in answers if isinstance(answer, Emit)]
    assert topics in (
        ["rejected"],
        ["rejected", "dead-letter"],
        ["profiles"],
        ["accepted.urgent"],
        ["accepted.normal"],
        ["accepted.bulk"],
    )
    for answer in answers:
        assert isinstance(answer, Emit)
        assert answer.value is not None
        name = {"rejected": "Event", "dead-letter": "DeadLetter", "profiles": "Profile"}
        CODEC.encode(name.get(answer.topic, "Message"), answer.value)
    return topics


@given(st.none() | st.binary(max_size=200), st.sampled_from(["intake", "recipients"]))
@settings(deadline=None, max_examples=150)
def test_any_bytes_get_one_answer_and_always_the_same(raw: bytes | None, topic: str) -> None:
    judge(raw, topic)


@given(st.dictionaries(NAMES, JSON, max_size=6), st.sampled_from(["intake", "recipients"]))
@settings(deadline=None, max_examples=300)
def test_any_json_gets_one_answer_and_always_the_same(changes: Any, topic: str) -> None:
    base = GOOD if topic == "intake" else {"to": {"phone": PHONE}}
    judge(json.dumps({**base, **changes}).encode(), topic)


@given(
    st.dictionaries(st.sampled_from(["id", "phone", "email", "country", "x"]), JSON, max_size=4),
    st.dictionaries(st.sampled_from(["text", "subject", "html", "x"]), JSON, max_size=3),
    st.lists(
        st.dictionaries(st.sampled_from(["channel", "window_s", "success"]), JSON, max_size=3),
        max_size=3,
    ),
)
@settings(deadline=None, max_examples=200)
def test_any_parts_get_one_answer_and_always_the_same(to: Any, content: Any, route: Any) -> None:
    judge(json.dumps({"to": to, "content": content, "route": route}).encode(), "intake")
