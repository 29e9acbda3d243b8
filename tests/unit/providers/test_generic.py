"""The generic adapter: every answer has one meaning, every callback becomes receipts."""

import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from pipeline.domain.errors import ErrorClass, Result
from pipeline.domain.ports import Account, Delivery, HttpReply, Unreadable
from pipeline.domain.records import Callback
from pipeline.providers.generic import CODES, MAX_RETRY_AFTER_MS, Generic

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
OLD_SECRET = "whsec_" + base64.b64encode(b"an older secret of theirs").decode()
ACCOUNT = Account(
    name="sms-a",
    adapter="generic",
    channel="sms",
    base_url="http://127.0.0.1:1/sms-a/",
    credential="hidden",
    callback_secrets=(SECRET,),
    callback_url="http://127.0.0.1:2/callbacks/sms-a",
    sender="Shop",
)
NOW = int(datetime.now(UTC).timestamp() * 1000)
ADAPTER = Generic()


def delivery(**changes: object) -> Delivery:
    given = {
        "address": "+4915123456789",
        "text": "Guten Tag, „Müller“",
        "subject": "",
        "html": "",
        "reference": "ref-1",
        "idempotency_key": "key-1",
        "valid_for_ms": 4_500,
    }
    return Delivery(**{**given, **changes})  # type: ignore[arg-type]


def reply(status: int, body: bytes | object = b"", **headers: str) -> HttpReply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpReply(status, {k.replace("_", "-"): v for k, v in headers.items()}, raw)


def callback(body: bytes | object, headers: dict[str, str] | None = None) -> Callback:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return {
        "record_version": 1,
        "callback_id": "c",
        "provider": "sms-a",
        "received_at": NOW,
        "method": "POST",
        "path": "/",
        "query": "",
        "headers": headers or {},
        "body": raw,
    }


def error(code: str) -> dict[str, object]:
    return {"error": {"code": code, "message": "no"}}


def test_a_request_says_everything_and_the_same_twice() -> None:
    request = ADAPTER.build(ACCOUNT, delivery())
    assert request == ADAPTER.build(ACCOUNT, delivery())
    assert request.method == "POST"
    assert request.url == "http://127.0.0.1:1/sms-a/v1/sms/messages"
    assert request.headers["idempotency-key"] == "key-1"
    assert request.headers["authorization"] == "Bearer hidden"
    assert json.loads(request.body) == {
        "to": "+4915123456789",
        "text": "Guten Tag, „Müller“",
        "subject": "",
        "html": "",
        "from": "Shop",
        "reference": "ref-1",
        "callback_url": "http://127.0.0.1:2/callbacks/sms-a",
        "valid_for_s": 4.5,
    }


def test_a_yes_with_an_id_is_accepted() -> None:
    read = ADAPTER.read_reply(ACCOUNT, reply(202, {"id": "m-1"}))
    assert (read.result, read.provider_message_id, read.error_class) == (
        Result.ACCEPTED,
        "m-1",
        None,
    )


@pytest.mark.parametrize("row", [row for row in CODES if row.status], ids=lambda row: row.code)
def test_every_documented_code_is_a_refusal_of_its_class(row) -> None:
    read = ADAPTER.read_reply(ACCOUNT, reply(row.status, error(row.code)))
    assert (read.result, read.error_class, read.code) == (
        Result.REFUSED,
        row.error_class,
        row.code,
    )


@pytest.mark.parametrize(
    ("answer", "error_class", "code"),
    [
        (reply(200, b"<!doctype html>"), ErrorClass.UNKNOWN, "http_200"),
        (reply(202, b""), ErrorClass.UNKNOWN, "http_202"),
        (reply(202, b'{"id": "m-'), ErrorClass.UNKNOWN, "http_202"),
        (reply(202, {"id": ""}), ErrorClass.UNKNOWN, "http_202"),
        (reply(202, {"id": 7}), ErrorClass.UNKNOWN, "http_202"),
        (reply(202, b'["m-1"]'), ErrorClass.UNKNOWN, "http_202"),
        (reply(202, b'{"id": "a", "id": "b"}'), ErrorClass.UNKNOWN, "http_202"),
        (reply(202, b'{"id": "\\ud800"}'), ErrorClass.UNKNOWN, "http_202"),
        (reply(202, b"[" * 100_000), ErrorClass.UNKNOWN, "http_202"),
        (HttpReply(200, {}, b'{"id": "m-1"}', truncated=True), ErrorClass.UNKNOWN, "http_200"),
        (reply(500, error("busy")), ErrorClass.TRANSIENT, "busy"),
        (reply(500, b"oops"), ErrorClass.TRANSIENT, "http_500"),
        (reply(502, b"<html>bad gateway"), ErrorClass.TRANSIENT, "http_502"),
        (reply(503, b"<html>no upstream"), ErrorClass.TRANSIENT, "http_503"),
        (reply(503, error("never_heard")), ErrorClass.TRANSIENT, "never_heard"),
        (reply(408), ErrorClass.TRANSIENT, "http_408"),
        (reply(409), ErrorClass.TRANSIENT, "http_409"),
        (reply(0), ErrorClass.UNKNOWN, "http_0"),
    ],
)
def test_whatever_is_not_a_clear_answer_is_in_doubt(answer, error_class, code) -> None:
    read = ADAPTER.read_reply(ACCOUNT, answer)
    assert (read.result, read.error_class, read.code) == (Result.UNKNOWN, error_class, code)


@pytest.mark.parametrize(
    ("answer", "error_class", "code"),
    [
        (reply(400, b"<html>"), ErrorClass.UNKNOWN, "http_400"),
        (reply(401, b""), ErrorClass.CONFIG, "http_401"),
        (reply(404, b"nginx"), ErrorClass.CONFIG, "http_404"),
        (reply(422, error("new_rule")), ErrorClass.UNKNOWN, "new_rule"),
        (reply(302, b"", location="/"), ErrorClass.CONFIG, "http_302"),
        (reply(429, b"slow down"), ErrorClass.THROTTLE, "http_429"),
    ],
)
def test_a_no_without_a_known_code_is_a_refusal_all_the_same(answer, error_class, code) -> None:
    read = ADAPTER.read_reply(ACCOUNT, answer)
    assert (read.result, read.error_class, read.code) == (Result.REFUSED, error_class, code)


@pytest.mark.parametrize(
    ("headers", "wait_ms"),
    [
        ({"retry_after": "3"}, 3_000),
        ({"retry_after": "0"}, 0),
        ({"retry_after": "99999"}, MAX_RETRY_AFTER_MS),
        ({"retry_after": "9" * 5_000}, MAX_RETRY_AFTER_MS),
        ({"retry_after": "-3"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "\u0663"}, None),
        ({}, None),
        (
            {
                "retry_after": "Fri, 31 Dec 1999 23:59:59 GMT",
                "date": "Fri, 31 Dec 1999 23:59:39 GMT",
            },
            20_000,
        ),
        (
            {
                "retry_after": "Fri, 31 Dec 1999 23:59:19 GMT",
                "date": "Fri, 31 Dec 1999 23:59:39 GMT",
            },
            0,
        ),
        ({"retry_after": "Fri, 31 Dec 1999 23:59:59 GMT"}, None),
        ({"retry_after": "Fri, 31 Dec 1999 23:59:59 GMT", "date": "garbage"}, None),
    ],
)
def test_retry_after_is_read_in_both_forms_and_bounded(headers, wait_ms) -> None:
    read = ADAPTER.read_reply(ACCOUNT, reply(429, error("too_fast"), **headers))
    assert read.retry_after_ms == wait_ms


@given(
    status=st.integers(0, 999),
    body=st.binary(max_size=200),
    retry_after=st.text(max_size=30),
    date=st.text(max_size=30),
)
def test_no_answer_makes_it_raise(status: int, body: bytes, retry_after: str, date: str) -> None:
    answer = HttpReply(status, {"retry-after": retry_after, "date": date}, body)
    read = ADAPTER.read_reply(ACCOUNT, answer)
    assert read.result in Result
    assert (read.result is Result.ACCEPTED) == (read.provider_message_id is not None)


def signed(body: bytes, secret: str = SECRET, at: datetime | None = None) -> dict[str, str]:
    at = at or datetime.fromtimestamp(NOW // 1000, UTC)
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", at, body.decode()),
    }


def test_a_signature_of_the_reference_library_verifies() -> None:
    body = json.dumps({"text": "größer"}, ensure_ascii=False).encode()
    assert ADAPTER.verify(ACCOUNT, callback(body, signed(body)), NOW)


def test_a_changed_byte_id_or_time_does_not_verify() -> None:
    body = b'{"a": 1}'
    headers = signed(body)
    assert not ADAPTER.verify(ACCOUNT, callback(body + b" ", headers), NOW)
    assert not ADAPTER.verify(ACCOUNT, callback(body, {**headers, "webhook-id": "msg_2"}), NOW)
    stamp = str(int(headers["webhook-timestamp"]) + 1)
    assert not ADAPTER.verify(ACCOUNT, callback(body, {**headers, "webhook-timestamp": stamp}), NOW)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_does_not_verify(name: str) -> None:
    headers = signed(b"{}")
    del headers[name]
    assert not ADAPTER.verify(ACCOUNT, callback(b"{}", headers), NOW)


def test_two_secrets_both_count_while_one_is_replaced() -> None:
    both = Account(**{**_fields(ACCOUNT), "callback_secrets": (SECRET, OLD_SECRET)})
    assert ADAPTER.verify(both, callback(b"{}", signed(b"{}", OLD_SECRET)), NOW)
    assert not ADAPTER.verify(ACCOUNT, callback(b"{}", signed(b"{}", OLD_SECRET)), NOW)
    headers = signed(b"{}")
    headers["webhook-signature"] = (
        signed(b"{}", OLD_SECRET)["webhook-signature"] + " " + headers["webhook-signature"]
    )
    assert ADAPTER.verify(ACCOUNT, callback(b"{}", headers), NOW)


@pytest.mark.parametrize(
    ("late_ms", "fine"),
    [(0, True), (299_000, True), (302_000, False), (-59_000, True), (-62_000, False)],
)
def test_a_callback_is_taken_for_five_minutes_and_one_ahead(late_ms: int, fine: bool) -> None:
    assert ADAPTER.verify(ACCOUNT, callback(b"{}", signed(b"{}")), NOW + late_ms) is fine


@pytest.mark.parametrize(
    "signature",
    ["", "v1,", "v1,####", "v1", "v2,abcd", "v1a,abcd", "v1,\u00e4", ",", " " * 50, "v1,YWJj"],
)
def test_a_signature_that_is_none_does_not_verify(signature: str) -> None:
    headers = {**signed(b"{}"), "webhook-signature": signature}
    assert not ADAPTER.verify(ACCOUNT, callback(b"{}", headers), NOW)


def test_without_a_usable_secret_nothing_verifies() -> None:
    for secrets in [(), ("",), ("whsec_",), ("whsec_####",)]:
        account = Account(**{**_fields(ACCOUNT), "callback_secrets": secrets})
        assert not ADAPTER.verify(account, callback(b"{}", signed(b"{}")), NOW)


def test_a_callback_with_one_event_is_one_report() -> None:
    event = {
        "id": "e-1",
        "type": "failed",
        "occurred_at": 1_700_000_000_123,
        "message_id": "m-1",
        "reference": "ref-1",
        "code": "number_gone",
        "country": "DE",
    }
    [report] = ADAPTER.read_callback(ACCOUNT, callback(event))
    assert report.kind == "failed"
    assert report.provider_event_id == "e-1"
    assert report.occurred_at == 1_700_000_000_123
    assert (report.reference, report.provider_message_id) == ("ref-1", "m-1")
    assert (report.error_class, report.code, report.country) == (
        ErrorClass.RECIPIENT,
        "number_gone",
        "DE",
    )


def test_a_batch_keeps_its_good_entries_beside_bad_ones() -> None:
    body = [
        {"id": "e-1", "type": "delivered", "message_id": "m-1"},
        7,
        {"id": "e-2", "type": "teleported", "message_id": "m-2"},
        {"type": "read", "message_id": "m-3", "occurred_at": "noon"},
        {"id": "e-5", "type": ["read"]},
        {"id": "e-6", "type": "failed", "code": "brand_new"},
    ]
    reports = ADAPTER.read_callback(ACCOUNT, callback(body))
    assert [report.kind for report in reports] == [
        "delivered",
        "unknown",
        "unknown",
        "read",
        "unknown",
        "failed",
    ]
    assert reports[2].code == "teleported"
    assert reports[2].provider_message_id == "m-2"
    assert reports[3].occurred_at == NOW
    assert len(reports[3].provider_event_id) == 24
    assert (reports[5].error_class, reports[5].code) == (ErrorClass.UNKNOWN, "brand_new")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"delivered",
        b'"delivered"',
        b"7",
        b"null",
        b"\xff\xfe",
        b'{"id": NaN}',
        b'{"id": 1e999}',
        b'{"id": 1, "id": 2}',
        b"[" * 200_000,
        b'{"a":' * 40 + b"1" + b"}" * 40,
        json.dumps([{}] * 1_001).encode(),
        b'"' + b"x" * (1 << 20) + b'"',
    ],
    ids=range(13),
)
def test_a_body_that_is_no_callback_is_unreadable_with_a_reason(body: bytes) -> None:
    with pytest.raises(Unreadable, match="body: "):
        ADAPTER.read_callback(ACCOUNT, callback(body))


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["id", "type", "occurred_at", "message_id", "reference", "code", "x"]),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@given(value=_json)
def test_any_json_becomes_reports_that_can_be_written_or_is_unreadable(value: object) -> None:
    try:
        reports = ADAPTER.read_callback(ACCOUNT, callback(value))
    except Unreadable:
        return
    assert reports or value == []
    for report in reports:
        assert report.kind in {"accepted", "delivered", "read", "failed", "unknown"}
        assert report.provider_event_id
        assert isinstance(report.occurred_at, int)
        for text in (report.reference, report.provider_message_id, report.code, report.country):
            assert text is None or text.encode() is not None


def _fields(account: Account) -> dict[str, object]:
    return {name: getattr(account, name) for name in Account.__slots__}
