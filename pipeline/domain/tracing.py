"""A caller's trace context (W3C), carried from the intake record to everything made from it."""

import re
from typing import Final

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
