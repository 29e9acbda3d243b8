"""What travels in Kafka headers: the caller's trace context, and nothing else by itself.

`traceparent` and `tracestate` (W3C Trace Context) of a request are copied to every record that is
made from it, unchanged. A header that is not what the standard says is dropped: it must not become
a way around the rule that event topics hold no content.
"""

import re
from collections.abc import Iterable
from typing import Final

Headers = tuple[tuple[str, bytes], ...]
"""Names and values in the order of the record; a name may come twice."""

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

_PARENT: Final = re.compile(rb"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_STATE: Final = re.compile(
    rb"[a-z0-9][a-z0-9_*/@-]{0,255}=[\x21-\x2b\x2d-\x3c\x3e-\x7e]{1,256}"
    rb"(?:,[a-z0-9][a-z0-9_*/@-]{0,255}=[\x21-\x2b\x2d-\x3c\x3e-\x7e]{1,256})*"
)
_STATE_MAX: Final = 512


def received(raw: Iterable[tuple[str, bytes | str | None]] | None) -> Headers:
    """A record's headers as the client library gives them (None for none), values as bytes."""
    return tuple(
        (name, value.encode() if isinstance(value, str) else value or b"")
        for name, value in raw or ()
    )


def find(headers: Headers, name: str) -> bytes | None:
    """The last value under `name`, or None."""
    for found, value in reversed(headers):
        if found == name:
            return value
    return None


def trace(headers: Headers) -> Headers:
    """The trace context in `headers`, ready for every record that is made from this one; empty
    when there is none or it is not valid."""
    parent = find(headers, TRACEPARENT)
    if parent is None or _PARENT.fullmatch(parent) is None or parent.startswith(b"ff"):
        return ()
    state = find(headers, TRACESTATE)
    if state is None or len(state) > _STATE_MAX or _STATE.fullmatch(state) is None:
        return ((TRACEPARENT, parent),)
    return ((TRACEPARENT, parent), (TRACESTATE, state))
