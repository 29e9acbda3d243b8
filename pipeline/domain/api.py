"""What the HTTP API says, as typed dictionaries; the OpenAPI document is made from these."""

from typing import NotRequired, TypedDict


class Taken(TypedDict):
    """A message that Kafka has."""

    message_id: str
    idempotency_key: str


class TakenBatch(TypedDict):
    """The messages of a batch, in its order."""

    messages: list[Taken]


class Mistake(TypedDict):
    """One thing to mend in a request: which message (from 0), which field, why, and how."""

    index: int
    field: str
    code: str
    cause: str
    cure: str


class Problem(TypedDict):
    """Why a request was not answered (application/problem+json, RFC 9457)."""

    status: int
    title: str
    code: str
    detail: str
    mistakes: NotRequired[list[Mistake]]
    messages: NotRequired[list[Taken]]
