"""HTTP as the gateway sees it: what came in, and what it says to that besides "taken"."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.domain.outcomes import Emit

BODY_LIMIT: Final = 256 * 1024
"""Bytes of a webhook; the documents of Standard Webhooks speak of 20 kB, batches are larger."""

MAX_HEADERS: Final = 100
MAX_HEADER_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class WebRequest:
    """A webhook as it came: header names in lower case, the body byte for byte."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is not "taken". `reason` is bounded (it is counted by) and quotes nothing."""

    status: int
    reason: str


Receiver = Callable[[str, WebRequest, int], Emit | Refusal]
"""Provider's name, request and time (ms) to the record to write, or the refusal."""
