"""A message's trace context (W3C): the caller's, or one that accept began, carried unchanged from
the intake record to everything made from it.

Span ids are the last 16 digits of the ids that things have anyway (a message, a command, an
attempt, an event), so every stage knows its parent's span without being told, and a repeat of the
same work is the same span. The trace that accept begins is named by the message's id.
"""

import re
from typing import Final, NamedTuple

Headers = tuple[tuple[str, bytes], ...]
"""Names and values in the order of the record; a name may come twice."""

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

_PARENT: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_MEMBER: Final = rb"[a-z0-9][a-z0-9_*/@-]{0,255}=[\x21-\x2b\x2d-\x3c\x3e-\x7e]{1,256}"
_STATE: Final = re.compile(_MEMBER + rb"(?:," + _MEMBER + rb")*")
_STATE_MAX: Final = 512
_SAMPLED: Final = 1
_RANDOM: Final = 14  # digits at the end of a trace id that are random for everybody


class Context(NamedTuple):
    """What a traceparent says: 32 and 16 hexadecimal digits, and whether somebody looks."""

    trace_id: str
    span_id: str
    sampled: bool


def carried(headers: Headers) -> Headers:
    """The trace headers among `headers`, unchanged; none when they are not what W3C says: a header
    may hold anything, and these go into event topics, which hold no content."""
    if not headers:
        return ()
    parent = state = None
    for name, value in headers:
        if name == TRACEPARENT:
            parent = value
        elif name == TRACESTATE:
            state = value
    if parent is None or _PARENT.fullmatch(parent) is None:
        return ()
    if state is None or len(state) > _STATE_MAX or _STATE.fullmatch(state) is None:
        return ((TRACEPARENT, parent),)
    return ((TRACEPARENT, parent), (TRACESTATE, state))


def context(headers: Headers) -> Context | None:
    """What the trace headers of a record of ours say; None when there are none."""
    for name, value in carried(headers):
        if name == TRACEPARENT:
            _, trace_id, span_id, flags = value.decode().split("-")
            return Context(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))
    return None


def span_of(thing: str) -> str:
    """The span id of the thing that has this id (a UUID)."""
    return thing.replace("-", "")[16:]


def begun(message_id: str, ratio: float) -> Headers:
    """The headers of the trace that accept begins, for a share of the messages: the same message
    gives the same answer. Its first span is the message's own, so it has no parent."""
    trace_id = message_id.replace("-", "")
    if int(trace_id[-_RANDOM:], 16) >= ratio * 16**_RANDOM:
        return ()
    return ((TRACEPARENT, f"00-{trace_id}-{trace_id[16:]}-01".encode()),)


def at_attempt(headers: Headers, attempt_id: str) -> str:
    """The traceparent that a provider gets with an attempt; empty when there is no trace. The
    tracestate of the caller is between them and us."""
    found = context(headers)
    if found is None:
        return ""
    return f"00-{found.trace_id}-{span_of(attempt_id)}-{found.sampled:02x}"


def with_trace(url: str, headers: Headers) -> str:
    """An address that brings the trace back when it is called. It depends on nothing but the
    message, so that a repeat under the same idempotency key has the same bytes."""
    for name, value in carried(headers):
        if name == TRACEPARENT and url:
            return f"{url}{'&' if '?' in url else '?'}{TRACEPARENT}={value.decode()}"
    return url


def of_query(query: str) -> Headers:
    """The trace that such an address brought back."""
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name == TRACEPARENT:
            return carried(((TRACEPARENT, value.encode()),))
    return ()
