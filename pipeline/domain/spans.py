"""Spans, made from what a stage has committed: the record says everything, and nobody keeps a span
open. A trace reads like this:

    process intake                    accept took the request
    |- send send.whatsapp.urgent      fallback wrote the step's command
    |  |- process send.whatsapp.urgent  dispatch finished it
    |  |  `- POST                     each hand-over to a provider
    |  |- process callbacks           what the provider reported of the step
    |  `- window whatsapp             the silence that ended it
    |- send send.sms.urgent           the next step, and so on
    `- message                        from arrival to outcome

Hours may lie between a span and its children. Attributes are ids and bounded words: no content, no
address, nothing that a caller wrote.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pipeline.domain import ids
from pipeline.domain.outcomes import Emit
from pipeline.domain.tracing import Context, context, span_of

Kind = Literal["internal", "client", "producer", "consumer"]
Attributes = Mapping[str, str | int | float | bool]

MOST_LINKS: Final = 128
"""Of one span; OpenTelemetry's own limit."""


@dataclass(frozen=True, slots=True)
class Span:
    """One finished span. Ids are hexadecimal, times milliseconds since the epoch; `parent_id` empty:
    the first of its trace. `error` is a bounded word, empty when nothing went wrong."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: Kind
    start: int
    end: int
    attributes: Attributes
    error: str = ""
    links: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Scene:
    """What a span is made from: the record, its trace, and the transaction that it went with."""

    topic: str
    value: Mapping[str, Any]
    trace: Context
    began: int
    ended: int

    def span(
        self,
        span_id: str,
        parent_id: str,
        name: str,
        kind: Kind,
        more: Attributes,
        error: str | None = "",
        times: tuple[int, int] | None = None,
    ) -> Span:
        start, end = times or (self.began, self.ended)
        return Span(
            trace_id=self.trace.trace_id,
            span_id=span_id,
            parent_id=parent_id,
            name=name,
            kind=kind,
            start=start,
            end=max(start, end),
            attributes=_filled({**_about(self.value), **more}),
            error=error or "",
        )


def spans(emits: Sequence[Emit], stage: str, began: int, ended: int) -> list[Span]:
    """The spans of one committed transaction of `stage` (`began` and `ended` in milliseconds), and
    one for the transaction itself, in a trace of its own, with a link to each of them."""
    found: list[Span] = []
    for emit in emits:
        if not emit.headers or emit.value is None:
            continue
        trace = context(emit.headers)
        if trace is not None and trace.sampled:
            found += _of(_Scene(emit.topic, emit.value, trace, began, ended))
    if found:
        found.append(_commit(found, stage, len(emits), began, ended))
    return found


def _of(scene: _Scene) -> list[Span]:
    family = scene.topic.partition(".")[0]
    if family == "accepted":
        return [_accepted(scene)]
    if family == "send":
        return [_command(scene)]
    if scene.topic in {"dispatched", "failed"} and scene.value["origin"] == "dispatch":
        return _dispatched(scene)
    if scene.topic in {"dispatched", "failed", "delivered", "read"}:
        return [_received(scene)]
    make = {
        "timed-out": _timed_out,
        "late-receipts": _late,
        "rejected": _rejected,
        "outcomes": _outcome,
        "dead-letter": _letter,
    }.get(scene.topic)
    return [make(scene)] if make else []


def _accepted(scene: _Scene) -> Span:
    value, source = scene.value, scene.value["source"]
    own = span_of(value["message_id"])
    parent = scene.trace.span_id
    more = {
        **_messaging("process", source["topic"]),
        "messaging.destination.partition.id": str(source["partition"]),
        "messaging.kafka.offset": source["offset"],
    }
    return scene.span(
        own,
        "" if parent == own else parent,
        f"process {source['topic']}",
        "consumer",
        more,
        times=(value["accepted_at"], scene.ended),
    )


def _command(scene: _Scene) -> Span:
    value = scene.value
    return scene.span(
        span_of(value["command_id"]),
        span_of(value["message_id"]),
        f"send {scene.topic}",
        "producer",
        _messaging("send", scene.topic),
    )


def _dispatched(scene: _Scene) -> list[Span]:
    """The command's span, and one for each hand-over."""
    value, attempts = scene.value, scene.value["attempts"]
    own = span_of(value["event_id"])
    topic = f"send.{value['channel']}.{value['priority']}"
    begun = min((attempt["started_at"] for attempt in attempts), default=scene.began)
    wrong = value["error_class"] if scene.topic == "failed" else ""
    found = [
        scene.span(
            own,
            span_of(value["command_id"]),
            f"process {topic}",
            "consumer",
            _messaging("process", topic),
            wrong,
            (begun, scene.ended),
        )
    ]
    for attempt in attempts:
        more = {
            "http.request.method": "POST",
            "delivery.provider": attempt["provider"],
            "delivery.result": attempt["result"],
            "delivery.code": attempt["code"] or "",
            "delivery.in_doubt": attempt["in_doubt"],
            "delivery.resent": attempt["resent"],
            "http.request.resend_count": max(0, attempt["requests"] - 1),
        }
        times = attempt["started_at"], attempt["started_at"] + attempt["latency_ms"]
        span_id = span_of(attempt["attempt_id"])
        found.append(
            scene.span(span_id, own, "POST", "client", more, attempt["error_class"], times)
        )
    return found


def _step(value: Mapping[str, Any]) -> str:
    """The first command of a step: a receipt names the step, not the try."""
    return span_of(ids.command_id(value["message_id"], value["step"], 1))


def _received(scene: _Scene) -> Span:
    value = scene.value
    return scene.span(
        span_of(value["event_id"]),
        _step(value),
        "process callbacks",
        "consumer",
        {**_messaging("process", "callbacks"), "delivery.kind": value["kind"]},
        value["error_class"],
    )


def _timed_out(scene: _Scene) -> Span:
    value = scene.value
    end = value["occurred_at"]
    return scene.span(
        span_of(value["event_id"]),
        span_of(value["command_id"]),
        f"window {value['channel']}",
        "internal",
        {"delivery.blind": value["blind"], "delivery.in_doubt": value["in_doubt"]},
        times=(end - value["latency_ms"], end),
    )


def _late(scene: _Scene) -> Span:
    value = scene.value
    more = {"delivery.reached_before": value["reached_before"], "delivery.kind": value["reason"]}
    return scene.span(span_of(value["event_id"]), _step(value), "late receipt", "internal", more)


def _rejected(scene: _Scene) -> Span:
    """Of accept it is the request's own span; of fallback it comes after that."""
    value, source = scene.value, scene.value["source"]
    by_accept = value["origin"] == "accept"
    topic = source["topic"] if source else ""
    return scene.span(
        span_of(value["event_id"]),
        scene.trace.span_id if by_accept else span_of(value["message_id"]),
        f"process {topic}" if by_accept else "reject",
        "consumer" if by_accept else "internal",
        _messaging("process", topic) if by_accept else {},
        value["code"] or "rejected",
    )


def _outcome(scene: _Scene) -> Span:
    value = scene.value
    more = {
        "delivery.status": value["status"],
        "delivery.steps_tried": value["steps_tried"],
        "delivery.attempts": value["attempts"],
        "delivery.in_doubt": value["in_doubt"],
        "delivery.resent": value["resent"],
    }
    return scene.span(
        span_of(value["event_id"]),
        span_of(value["message_id"]),
        "message",
        "internal",
        more,
        value["reason"] if value["status"] == "failed" else "",
        (value["accepted_at"], value["occurred_at"]),
    )


def _letter(scene: _Scene) -> Span:
    value = scene.value
    message = value["message_id"]
    return scene.span(
        span_of(value["dead_letter_id"]),
        span_of(message) if message else scene.trace.span_id,
        "dead letter",
        "internal",
        {"delivery.category": value["category"]},
        value["error_class"] or value["category"],
    )


def _commit(found: Sequence[Span], stage: str, records: int, began: int, ended: int) -> Span:
    first = found[0]
    name = ids.event_id(first.trace_id, began, ended, first.span_id, "commit", stage)
    return Span(
        trace_id=name.replace("-", ""),
        span_id=span_of(name),
        parent_id="",
        name=f"commit {stage}",
        kind="client",
        start=began,
        end=max(began, ended),
        attributes={
            "messaging.system": "kafka",
            "messaging.operation.name": "commit",
            "messaging.operation.type": "settle",
            "messaging.batch.message_count": records,
        },
        links=tuple((span.trace_id, span.span_id) for span in found[:MOST_LINKS]),
    )


def _messaging(operation: str, topic: str) -> dict[str, str | int | float | bool]:
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": topic,
    }


_SHOWN: Final = {
    "message_id": "messaging.message.id",
    "tenant": "delivery.tenant",
    "channel": "delivery.channel",
    "provider": "delivery.provider",
    "country": "delivery.country",
    "priority": "delivery.priority",
    "result": "delivery.result",
    "code": "delivery.code",
}
"""Fields that every span shows where its record has them."""


def _about(value: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    found = {shown: value.get(name) or "" for name, shown in _SHOWN.items()}
    if value.get("command_id"):
        found["delivery.step"], found["delivery.try"] = value["step"], value["try_no"]
    return found


def _filled(attributes: Attributes) -> Attributes:
    return {name: value for name, value in attributes.items() if value != ""}
