"""A message's trace: one tree from the caller's span over every hop, hand-over, receipt and
fallback, as a collector gets it."""

import json
from collections.abc import Iterable, Sequence

from pipeline.domain.outcomes import Emit
from pipeline.domain.spans import MOST_LINKS, Span, spans
from pipeline.domain.tracing import span_of
from pipeline.runtime.otlp import Collector, spans_to
from pipeline.testing import Advance, Input
from tests.flows.life import HOUR, PHONE, Life, message_id, request
from tests.flows.outside import no_answer, refused, taken
from tests.otlp_receiver import Told, receiving

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def traced(name: str = "m", flags: str = "01", **fields: object) -> Input:
    plain = request(name, **fields)
    header = ("traceparent", f"00-{TRACE}-{CALLER}-{flags}".encode())
    return Input(plain.topic, plain.key, plain.value, (header,))


def made(life: Life) -> list[Span]:
    """The spans of everything that was committed, one transaction a record."""
    found: list[Span] = []
    for record in life.log.records():
        emit = Emit(record.topic, None, record.value, record.headers)
        found += spans([emit], "some", record.timestamp, record.timestamp + 5)
    return found


def exported(found: Sequence[Span]) -> list[Told]:
    with receiving() as receiver:
        outlet = spans_to(Collector(receiver.url, "", {"service.name": "delivery-pipeline"}))
        outlet.put(found)
        outlet.stop()
        outlet.join(20)
        return [span for span in receiver.spans if not span.name.startswith("commit")]


def tree(found: Iterable[Told], root: str) -> list[str]:
    """Names with dots for their depth, children in the order of their beginning. Every span hangs
    on another or on `root`, or this fails."""
    by_parent: dict[str, list[Told]] = {}
    for span in found:
        by_parent.setdefault(span.parent_id, []).append(span)
    lines: list[str] = []

    def walk(parent: str, depth: int) -> None:
        for span in sorted(by_parent.pop(parent, []), key=lambda one: (one.start_ns, one.name)):
            lines.append(f"{'. ' * depth}{span.name}")
            walk(span.span_id, depth + 1)

    walk(root, 0)
    assert not by_parent, f"spans that hang on nothing: {by_parent}"
    return lines


def test_one_tree_from_the_caller_to_the_receipt_through_a_fallback() -> None:
    life = Life(
        {"wa": [taken()], "sms": [refused("no_credit")], "sms2": [taken((900, "delivered"))]}
    )
    life.play(traced(), Advance(HOUR))
    assert life.outcome()["status"] == "delivered"
    found = exported(made(life))
    assert {span.trace_id for span in found} == {TRACE}
    assert len({span.span_id for span in found}) == len(found)
    assert tree(found, CALLER) == [
        "process intake",
        ". message",
        ". send send.whatsapp.normal",
        ". . process send.whatsapp.normal",
        ". . . POST",
        ". . window whatsapp",
        ". send send.sms.normal",
        ". . process send.sms.normal",
        ". . . POST",
        ". . . POST",
        ". . process callbacks",
    ]
    by_name = {span.name: span for span in found}
    message = by_name["message"]
    outcome = life.outcome()
    assert message.end_ns - message.start_ns == outcome["latency_ms"] * 1_000_000
    assert message.attributes["delivery.status"] == "delivered"
    assert message.attributes["messaging.message.id"] == outcome["message_id"]
    window = by_name["window whatsapp"]
    assert window.end_ns - window.start_ns == life.policy.priorities["normal"].window_ms * 1_000_000
    refusal, success = sorted(
        (s for s in found if s.name == "POST" and s.attributes["delivery.channel"] == "sms"),
        key=lambda one: one.wrong, reverse=True,
    )  # fmt: skip
    assert (refusal.attributes["delivery.provider"], refusal.wrong) == ("sms", True)
    assert refusal.attributes["error.type"] == "provider"
    assert (success.attributes["delivery.provider"], success.wrong) == ("sms2", False)
    assert all(span.end_ns >= span.start_ns > 0 for span in found)


def test_the_provider_gets_the_trace_and_its_own_span_as_parent() -> None:
    life = Life({"wa": [taken((50, "delivered"))]}).play(traced(), Advance(HOUR))
    (asked,) = life.outside.requests
    (post,) = [span for span in made(life) if span.name == "POST"]
    assert asked.traceparent == f"00-{TRACE}-{post.span_id}-01"


def test_receipts_carry_the_trace_on_their_events() -> None:
    """So that ClickHouse finds every event of a trace, also where a provider returns only its own
    id (whatsapp here)."""
    life = Life({"wa": [taken((50, "delivered"), (70, "read"))]}).play(traced(), Advance(HOUR))
    topics = {
        record.topic
        for record in life.log.records()
        if any(name == "traceparent" and TRACE.encode() in text for name, text in record.headers)
    }
    assert topics >= {"accepted.normal", "send.whatsapp.normal", "dispatched", "delivered",
                      "read", "outcomes"}  # fmt: skip


def test_a_repeat_under_the_same_key_has_the_same_bytes() -> None:
    """A provider may refuse a key that comes again with another body; the trace is in the body."""
    life = Life({"wa": [no_answer(hears=False), taken((50, "delivered"))]}).play(
        traced(), Advance(HOUR)
    )
    first, second = life.outside.requests_of("wa")
    assert first.key == second.key
    assert first.traceparent == second.traceparent != ""


def test_a_caller_who_does_not_look_gets_no_spans_and_keeps_the_trace() -> None:
    life = Life({"wa": [taken((50, "delivered"))]}, trace_ratio=1.0).play(
        traced(flags="00"), Advance(HOUR)
    )
    assert made(life) == []
    (asked,) = life.outside.requests
    assert asked.traceparent.startswith(f"00-{TRACE}-")
    assert asked.traceparent.endswith("-00")


def test_without_a_caller_the_trace_is_named_by_the_message_and_begins_with_it() -> None:
    life = Life({"wa": [taken((50, "delivered"))]}, trace_ratio=1.0).play(request(), Advance(HOUR))
    found = exported(made(life))
    assert {span.trace_id for span in found} == {message_id().replace("-", "")}
    lines = tree(found, "")
    assert lines[0] == "process intake"
    assert len(lines) == 6
    assert sum(1 for line in lines if not line.startswith(".")) == 1


def test_nobody_is_traced_who_is_not_chosen() -> None:
    life = Life({"wa": [taken((50, "delivered"))]}).play(request(), Advance(HOUR))
    assert made(life) == []
    assert life.outside.requests[0].traceparent == ""


def test_a_rejected_request_and_a_repeat_hang_on_the_caller() -> None:
    life = Life({"wa": [taken((50, "delivered"))]})
    bad = Input("intake", PHONE, b'{"to": {}}', traced().headers)
    life.play(bad, traced("twice"), traced("twice"), Advance(HOUR))
    found = made(life)
    rejections = [span for span in found if span.error and "commit" not in span.name]
    assert {(span.name, span.parent_id) for span in rejections} == {
        ("process intake", CALLER),
        ("reject", span_of(message_id("twice"))),
    }


def test_no_span_says_what_was_sent_or_to_whom() -> None:
    life = Life(
        {
            "wa": [refused("invalid_address")],
            "sms": [refused("content_rejected")],
            "voice": [taken()],
        }
    )
    life.play(
        traced(content={"text": "CANARY-7"}, campaign="CANARY-8", labels={"a": "CANARY-9"}),
        Advance(HOUR),
    )
    found = made(life)
    assert {span.name for span in found} >= {"dead letter", "message"}
    shown = json.dumps([(span.name, dict(span.attributes), span.error) for span in found])
    for words in ("CANARY", PHONE, PHONE[1:], life.outcome()["recipient_key"]):
        assert words not in shown


def test_a_transaction_is_a_span_of_its_own_that_links_what_it_wrote() -> None:
    life = Life({"wa": [taken((50, "delivered"))]})
    life.play(*(traced(str(number)) for number in range(MOST_LINKS + 20)), Advance(HOUR))
    emits = [
        Emit(record.topic, None, record.value, record.headers)
        for record in life.log.records("accepted.normal")
    ]
    *own, commit = spans(emits, "accept", 1_000, 1_020)
    assert len(own) == MOST_LINKS + 20
    assert commit.name == "commit accept"
    assert (commit.start, commit.end) == (1_000, 1_020)
    assert commit.trace_id != TRACE
    assert len(commit.links) == MOST_LINKS
    assert set(commit.links) <= {(TRACE, span.span_id) for span in own}
    assert commit.attributes["messaging.batch.message_count"] == len(emits)
