"""What the HTTP API hears and says, as typed dictionaries. They are the one source of the OpenAPI
document (`domain/openapi.py`): an annotation holds what JSON Schema knows beside the type.

A request's schema says less than its rules (domain/requests.py): whether a phone number exists is no
matter of form. It never says more, so what it refuses is refused.
"""

from typing import Annotated, Literal, NotRequired, TypedDict

from pipeline.domain.policy import CHANNEL_ADDRESS
from pipeline.domain.ports_api import MAX_BATCH
from pipeline.domain.recipients import MAX_ID
from pipeline.domain.requests import (
    MAX_HTML,
    MAX_KEY,
    MAX_LABEL_NAME,
    MAX_LABEL_VALUE,
    MAX_LABELS,
    MAX_NAME,
    MAX_STEPS,
    MAX_SUBJECT,
    MAX_TEXT,
)

_Name = Annotated[str | None, {"minLength": 1, "maxLength": MAX_NAME}]
_MessageId = Annotated[str, {"format": "uuid"}]


class ToPerson(TypedDict, total=False):
    """Who it is for: at least one of id, phone and email."""

    id: Annotated[
        str | None,
        {"minLength": 1, "maxLength": MAX_ID, "description": "Your own id of the person."},
    ]
    phone: Annotated[
        str | None,
        {
            "description": "International form; national form only with `country`.",
            "examples": ["+4915112345678"],
        },
    ]
    email: Annotated[str | None, {"format": "email", "examples": ["ada@example.com"]}]
    country: Annotated[
        str | None,
        {
            "pattern": "^[A-Za-z]{2}$",
            "description": "ISO 3166, where the address does not say it.",
        },
    ]


class Said(TypedDict, total=False):
    """What it says, the same for every channel: at least one of the three, and not blank."""

    text: Annotated[str | None, {"maxLength": MAX_TEXT, "examples": ["Your code is 123456"]}]
    subject: Annotated[str | None, {"maxLength": MAX_SUBJECT, "description": "Of an e-mail."}]
    html: Annotated[str | None, {"maxLength": MAX_HTML, "description": "Of an e-mail."}]


class RouteStep(TypedDict):
    """One step of a route of your own."""

    channel: Annotated[str, {"enum": list(CHANNEL_ADDRESS)}]
    window_s: NotRequired[
        Annotated[
            float | None,
            {
                "exclusiveMinimum": 0,
                "description": "Seconds of silence before the next step; the priority's by default."
                " The configuration bounds it.",
            },
        ]
    ]
    success: NotRequired[
        Annotated[
            Literal["accepted", "delivered", "read", ""] | None,
            {"description": "What ends the message well here; `delivered` by default."},
        ]
    ]


class NewMessage(TypedDict):
    """A message to one person. Null, and an empty word where words are listed, mean: not given."""

    to: Annotated[ToPerson, {"anyOf": [{"required": [name]} for name in ("id", "phone", "email")]}]
    content: Annotated[
        Said, {"anyOf": [{"required": [name]} for name in ("text", "subject", "html")]}
    ]
    idempotency_key: NotRequired[
        Annotated[
            str | None,
            {
                "minLength": 1,
                "maxLength": MAX_KEY,
                "description": "A repeat with the same key to the same person is the same message."
                " Without one the gateway makes one.",
            },
        ]
    ]
    route: NotRequired[
        Annotated[
            list[RouteStep] | None,
            {
                "minItems": 1,
                "maxItems": MAX_STEPS,
                "description": "Steps in order; the configuration's by default.",
            },
        ]
    ]
    priority: NotRequired[
        Annotated[
            Literal["urgent", "normal", "bulk", ""] | None, {"description": "`normal` by default."}
        ]
    ]
    category: NotRequired[
        Annotated[
            str | None,
            {
                "pattern": "^([a-z][a-z0-9_.-]{0,39})?$",
                "description": "What it is about, for routes and opt-outs; `transactional` by"
                " default.",
            },
        ]
    ]
    campaign: NotRequired[_Name]
    labels: NotRequired[
        Annotated[
            dict[str, Annotated[str, {"maxLength": MAX_LABEL_VALUE}]] | None,
            {
                "maxProperties": MAX_LABELS,
                "propertyNames": {"minLength": 1, "maxLength": MAX_LABEL_NAME},
                "description": "Yours, on every event; no personal data.",
            },
        ]
    ]
    deadline: NotRequired[
        Annotated[
            int | str | None,
            {
                "description": "After this it is worthless and nothing is sent: milliseconds since"
                " 1970 or ISO 8601 with a zone, at least 10 s away. The priority's by default.",
                "examples": ["2030-01-31T12:00:00Z"],
            },
        ]
    ]
    sequence: NotRequired[
        Annotated[
            _Name,
            {"description": "Messages to one person with the same sequence wait for each other."},
        ]
    ]
    on_doubt: NotRequired[
        Annotated[
            Literal["resend", "wait", ""] | None,
            {
                "description": "When a provider's answer is lost: send again, or wait and see. The"
                " priority's by default."
            },
        ]
    ]


class NewMessages(TypedDict):
    """A batch: all of it is taken, or nothing."""

    messages: Annotated[list[NewMessage], {"minItems": 1, "maxItems": MAX_BATCH}]


class Taken(TypedDict):
    """A message that Kafka has."""

    message_id: _MessageId
    idempotency_key: str


class TakenBatch(TypedDict):
    """The messages of a batch, in its order."""

    messages: list[Taken]


class Mistake(TypedDict):
    """One thing to mend in a request."""

    index: Annotated[int, {"minimum": 0, "description": "Which message, counted from 0."}]
    field: str
    code: str
    cause: str
    cure: str


class Problem(TypedDict):
    """Why a request was not answered (RFC 9457)."""

    status: int
    title: str
    code: Annotated[str, {"description": "Which problem it is, for programs."}]
    detail: str
    mistakes: NotRequired[Annotated[list[Mistake], {"description": "With `bad_request`."}]]
    messages: NotRequired[
        Annotated[
            list[Taken],
            {"description": "With `kafka_away`: the keys to repeat the messages under."},
        ]
    ]


StatusWord = Literal["accepted", "dispatched", "delivered", "failed", "rejected"]
WaitsFor = Literal["turn", "receipt", "retry", "next_step", "outcome"]

_Time = Annotated[str, {"format": "date-time"}]
_MaybeTime = Annotated[str | None, {"format": "date-time"}]


class StoryLine(TypedDict):
    """One event of a message; what it does not say is left out."""

    at: _Time
    event: str
    step: NotRequired[Annotated[int, {"minimum": 0}]]
    channel: NotRequired[str]
    provider: NotRequired[str]
    status: NotRequired[str]
    result: NotRequired[str]
    error_class: NotRequired[str]
    code: NotRequired[str]
    reason: NotRequired[str]


class MessageStatus(TypedDict):
    """What became of a message so far, as the store of events knows it: seconds behind Kafka."""

    message_id: _MessageId
    status: StatusWord
    final: Annotated[bool, {"description": "Whether this will never change."}]
    reason: Annotated[str | None, {"description": "Why it ended like this."}]
    channel: str | None
    provider: str | None
    waits_for: Annotated[
        WaitsFor | None,
        {"description": "Of a message that is not final, as far as its events tell."},
    ]
    waits_until: Annotated[
        str | None, {"format": "date-time", "description": "Where that is known."}
    ]
    accepted_at: _MaybeTime
    settled_at: _MaybeTime
    deadline: _MaybeTime
    cost: float | None
    currency: str | None
    events: Annotated[list[StoryLine], {"description": "By time, the last 200."}]
