"""What every adapter of the table promises, whatever its API looks like."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.errors import ErrorClass, Result
from pipeline.domain.ports import Account, Delivery, HttpReply, Unreadable
from pipeline.domain.records import Callback
from pipeline.providers import PROVIDERS

NAMES = sorted(PROVIDERS)
SECRET = "whsec_" + "QUJD" * 8


def account(name: str) -> Account:
    return Account(
        name=f"{name}-1",
        adapter=name,
        channel="sms",
        base_url="http://127.0.0.1:1",
        callback_secrets=(SECRET,),
        callback_url="http://127.0.0.1:2/callbacks",
    )


def callback(body: bytes, headers: dict[str, str]) -> Callback:
    return {
        "record_version": 1,
        "callback_id": "c",
        "provider": "p",
        "received_at": 1_700_000_000_000,
        "method": "POST",
        "path": "/",
        "query": "",
        "headers": headers,
        "body": body,
    }


@pytest.mark.parametrize("name", NAMES)
@given(
    text=st.text(st.characters(exclude_categories=("Cs",)), max_size=50),
    key=st.text("abc-123", min_size=1, max_size=40),
)
def test_building_is_a_function_of_its_arguments(name: str, text: str, key: str) -> None:
    delivery = Delivery("+4915123456789", text, "s", "<p>", "ref", key, 1_000)
    first, second = (PROVIDERS[name].build(account(name), delivery) for _ in range(2))
    assert first == second
    assert first.url.startswith("http://127.0.0.1:1")
    assert first.headers == {header.lower(): value for header, value in first.headers.items()}
    assert all("\n" not in value for value in first.headers.values())


@pytest.mark.parametrize("name", NAMES)
@given(
    status=st.integers(0, 999),
    body=st.binary(max_size=100) | st.sampled_from([b"{}", b"[]", b"null", b'{"id":"x"}']),
    truncated=st.booleans(),
)
def test_an_answer_always_has_a_meaning(
    name: str, status: int, body: bytes, truncated: bool
) -> None:
    read = PROVIDERS[name].read_reply(account(name), HttpReply(status, {}, body, truncated))
    assert (read.error_class is None) == (read.result is Result.ACCEPTED)
    if not 200 <= status < 300:
        assert read.result is not Result.ACCEPTED
    if status >= 500 and not body.startswith(b"{"):
        assert read.result is Result.UNKNOWN, "only the provider's own word makes it a refusal"
    if read.result is not Result.ACCEPTED:
        assert read.error_class in ErrorClass
        assert read.code


@pytest.mark.parametrize("name", NAMES)
@given(
    body=st.binary(max_size=200),
    headers=st.dictionaries(
        st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature", "x"]),
        st.text(max_size=40),
    ),
    now=st.integers(0, 1 << 45),
)
def test_a_callback_of_somebody_else_is_never_believed(
    name: str, body: bytes, headers: dict[str, str], now: int
) -> None:
    assert PROVIDERS[name].verify(account(name), callback(body, headers), now) is False


@pytest.mark.parametrize("name", NAMES)
@given(
    body=st.binary(max_size=200) | st.text(max_size=50).map(lambda text: json.dumps(text).encode())
)
def test_a_callback_is_read_or_unreadable(name: str, body: bytes) -> None:
    try:
        reports = PROVIDERS[name].read_callback(account(name), callback(body, {}))
    except Unreadable:
        return
    assert all(report.provider_event_id for report in reports)
