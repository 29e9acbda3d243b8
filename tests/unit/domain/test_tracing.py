"""Trace contexts: which are carried, which accept begins, what a provider gets."""

from urllib.parse import urlsplit

import pytest

from pipeline.domain import ids, tracing
from pipeline.domain.tracing import Context

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = (("traceparent", f"00-{TRACE}-{SPAN}-01".encode()),)
UNSAMPLED = (("traceparent", f"00-{TRACE}-{SPAN}-00".encode()),)
ATTEMPT = ids.attempt_id(ids.command_id("m", 0, 1), "one")


def test_a_context_is_read_as_it_stands() -> None:
    assert tracing.context(HEADERS) == Context(TRACE, SPAN, True)
    assert tracing.context(UNSAMPLED) == Context(TRACE, SPAN, False)
    flags = (("traceparent", f"00-{TRACE}-{SPAN}-02".encode()),)
    assert tracing.context(flags) == Context(TRACE, SPAN, False)


@pytest.mark.parametrize(
    "text",
    ["", "00", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"ff-{TRACE}-{SPAN}-01",
     f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01\n", "+4915112345678"],
)  # fmt: skip
def test_what_is_no_context_is_none(text: str) -> None:
    assert tracing.context((("traceparent", text.encode()),)) is None
    assert tracing.of_query(f"traceparent={text}") == ()


def test_accept_begins_traces_for_a_share_of_the_messages_and_decides_the_same_again() -> None:
    names = [ids.message_id("acme", "r", str(number)) for number in range(4_000)]
    begun = {name: tracing.begun(name, 0.1) for name in names}
    share = sum(1 for headers in begun.values() if headers) / len(names)
    assert 0.08 < share < 0.12
    assert begun == {name: tracing.begun(name, 0.1) for name in names}
    assert not any(tracing.begun(name, 0.0) for name in names)
    for name in names[:100]:
        (parent,) = [tracing.context(tracing.begun(name, 1.0))]
        assert parent == Context(name.replace("-", ""), tracing.span_of(name), True)


def test_a_provider_gets_the_attempt_as_its_parent_and_the_callers_decision() -> None:
    own = tracing.span_of(ATTEMPT)
    assert tracing.at_attempt(HEADERS, ATTEMPT) == f"00-{TRACE}-{own}-01"
    assert tracing.at_attempt(UNSAMPLED, ATTEMPT) == f"00-{TRACE}-{own}-00"
    assert tracing.at_attempt((), ATTEMPT) == ""


@pytest.mark.parametrize("url", ["http://a/callbacks/one", "http://a/callbacks/one?account=7"])
def test_an_address_brings_the_trace_back(url: str) -> None:
    made = tracing.with_trace(url, HEADERS)
    assert made.startswith(url)
    assert tracing.of_query(urlsplit(made).query) == HEADERS
    assert tracing.with_trace(url, ()) == url
    assert tracing.with_trace("", HEADERS) == ""
