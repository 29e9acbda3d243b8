"""The shapes that providers fit. An adapter is pure: it builds requests and reads answers; it
never opens a socket, loops, sleeps or looks at a clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.domain.errors import ErrorClass, Result
from pipeline.domain.records import Callback


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an adapter's API can do; what is not known counts as not there."""

    honours_keys: bool = False  # a repeated idempotency key is not sent twice
    echoes_reference: bool = True  # receipts carry our reference, not only the provider's id
    receipts: bool = True  # the provider reports delivery at all


@dataclass(frozen=True, slots=True)
class Account:
    """One configured provider: an account at an outside API that serves one channel."""

    name: str
    adapter: str
    channel: str
    base_url: str
    capabilities: Capabilities = field(default_factory=Capabilities)
    countries: tuple[str, ...] = ()  # empty: all
    credential: str = ""
    callback_secrets: tuple[str, ...] = ()
    callback_url: str = ""  # where the provider shall send receipts
    sender: str = ""
    cost: float = 0.0  # per accepted request, in `currency`
    currency: str = "EUR"
    timeout_ms: int = 4_000  # total, for one request
    trace: bool = True  # it gets our trace context, and gives it back with receipts


@dataclass(frozen=True, slots=True)
class Delivery:
    """One hand-over as an adapter needs it: address and content in, plus the names that make it
    recognisable at the provider."""

    address: str
    text: str
    subject: str
    html: str
    reference: str
    idempotency_key: str
    valid_for_ms: int  # after this the message is worthless to us


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What goes to a provider, complete."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A provider's answer: header names in lower case, the body capped by the sender."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """What an answer means."""

    result: Result
    error_class: ErrorClass | None = None
    code: str | None = None  # the provider's own code or `http_<status>`
    provider_message_id: str | None = None
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """One receipt inside a callback."""

    kind: str  # accepted, delivered, read, failed or unknown
    provider_event_id: str
    occurred_at: int
    reference: str | None = None
    provider_message_id: str | None = None
    error_class: ErrorClass | None = None
    code: str | None = None
    country: str = ""


class Unreadable(ValueError):
    """A callback that is not what the provider's documents say; the text says where."""


class Adapter(Protocol):
    """The contract of `providers/<name>.py`; the contract suite runs every row of the table."""

    def build(self, account: Account, delivery: Delivery) -> HttpRequest:
        """The request for one hand-over; the same bytes for the same arguments."""
        ...

    def read_reply(self, account: Account, reply: HttpReply) -> Reply:
        """Never raises: what it cannot read is an unknown result."""
        ...

    def verify(self, account: Account, callback: Callback, now: int) -> bool:
        """Whether a callback is the provider's own, over the raw bytes. Needs the signature
        headers, so the gateway calls it before it drops them."""
        ...

    def read_callback(self, account: Account, callback: Callback) -> list[Report]:
        """The receipts in a verified callback.

        Raises:
            Unreadable: the body is not what the documents say.
        """
        ...
