"""The shapes between the gateway's HTTP server and the stage that knows what a request is."""

from typing import Final, NamedTuple, Protocol

from pipeline.domain.tracing import Headers

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
