"""The shapes between the gateway's HTTP server and the stage that knows what a request is."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from pipeline.domain.tracing import Headers

if TYPE_CHECKING:
    from pipeline.domain.message_status import Seen

MAX_BATCH: Final = 1_000
"""Messages in one request."""

API_BODY_LIMIT: Final = 4 * 1024 * 1024
"""Bytes of one request, however many messages it has."""


class Batch(NamedTuple):
    """What a body asks for: values that are not judged yet, and whether they came as a list."""

    items: list[object]
    listed: bool


class Prepared(NamedTuple):
    """One request as it goes to Kafka. `topic` is the catalogue's name."""

    topic: str
    key: str
    value: bytes
    headers: Headers
    message_id: str
    idempotency_key: str


class MessageApi(Protocol):
    """What the server asks for each request. Every function is pure but for the keys it draws."""

    def tenant_of(self, authorization: str) -> str | None:
        """The tenant of the API key in an `Authorization` header, or None; any text is safe."""
        ...

    def read(self, body: bytes) -> Batch:
        """The messages in a body.

        Raises:
            BadInput: it is not JSON, or holds no message, or too many.
        """
        ...

    def prepare(self, item: object, tenant: str, trace: Headers, now: int) -> Prepared:
        """The record of one message of `tenant` at `now` (ms); `trace` is the caller's context.

        Raises:
            BadInput: the first rule that the message breaks.
        """
        ...

    def message_id(
        self, tenant: str, idempotency_key: str | None, to: str | None, to_id: str | None
    ) -> str:
        """The id of the message that has this key and goes to this person: an address, or the
        caller's own id.

        Raises:
            BadInput: something is missing, or is no address.
        """
        ...


class StoreAway(RuntimeError):
    """The store of events does not answer; ask later."""


Lookup = Callable[[str, str], Awaitable[list["Seen"]]]
"""Tenant and message id to the message's events, by time. Raises StoreAway."""


class Api(NamedTuple):
    """What the server needs for the HTTP API."""

    stage: MessageApi
    lookup: Lookup
