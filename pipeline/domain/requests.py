"""What a request has to be. Every rule that a caller can break is here, and each breach names the
field, the cause and the cure without repeating what the caller wrote: a rejection is an event, and
events carry no content and no address.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from pipeline.domain.errors import BadInput
from pipeline.domain.fields import (
    CONTROL,
    control_character,
    listed,
    name_of,
    object_of,
    one_of,
    too_long,
    too_many,
    unknown_value,
    wrong_type,
)
from pipeline.domain.policy import CHANNEL_ADDRESS, Policy
from pipeline.domain.recipients import PhoneReader, read_recipient
from pipeline.domain.records import (
    PRIORITIES,
    RECORD_VERSION,
    Content,
    ProfileUpdate,
    Recipient,
    RequestStep,
    SendRequest,
)

MAX_REQUEST_BYTES: Final = 512 * 1024
"""Half of what a broker takes, so that everything derived from a request fits too."""

MAX_TEXT: Final = 100_000  # characters of content.text
MAX_SUBJECT: Final = 998  # a header line of an e-mail (RFC 5322)
MAX_HTML: Final = 400_000
MAX_KEY: Final = 255  # idempotency keys
MAX_NAME: Final = 100  # campaign, sequence
MAX_LABELS: Final = 20
MAX_LABEL_NAME: Final = 64
MAX_LABEL_VALUE: Final = 256
MAX_STEPS: Final = 10
MAX_PREFERENCE: Final = 10

DEFAULT_CATEGORY: Final = "transactional"
SUCCESSES: Final = ("accepted", "delivered", "read")
ON_DOUBT: Final = ("resend", "wait")

_REQUEST: Final = frozenset(SendRequest.__annotations__)
_UPDATE: Final = frozenset(ProfileUpdate.__annotations__)
_CONTENT: Final = frozenset(Content.__annotations__)
_STEP: Final = frozenset(RequestStep.__annotations__)

_CATEGORY: Final = re.compile(r"[a-z][a-z0-9_.-]{0,39}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LOOKS_LIKE_SECONDS: Final = 100_000_000_000  # milliseconds passed this in 1973


@dataclass(frozen=True, slots=True)
class World:
    """What requests are judged against, besides the policy."""

    policy: Policy
    phone: PhoneReader
    channels: Collection[str]
    countries: Collection[str]


class Request(NamedTuple):
    """A request that keeps every rule, normalised. A tuple, because a frozen dataclass takes five
    times as long to make and this is made for every message."""

    idempotency_key: str | None
    to: Recipient
    country: str
    content: Content
    route: list[RequestStep] | None
    priority: str
    category: str
    campaign: str | None
    labels: dict[str, str]
    deadline: int
    sequence: str | None
    on_doubt: str


def read_request(
    value: object, at: int, tenant: str, default_priority: str, world: World
) -> Request:
    """The request in a decoded value that was appended at `at` (ms).

    Raises:
        BadInput: the first rule that it breaks.
    """
    found = object_of(value, "body", _REQUEST)
    _version(found)
    _same_tenant(found.get("tenant"), tenant)
    to, country = read_recipient(found.get("to"), world.phone, world.countries)
    content = _content(found.get("content"))
    priority = one_of(found.get("priority"), "priority", PRIORITIES) or default_priority
    rules = world.policy.priorities[priority]
    return Request(
        idempotency_key=read_key(found.get("idempotency_key"), "idempotency_key"),
        to=to,
        country=country,
        content=content,
        route=_route(found.get("route"), to, world),
        priority=priority,
        category=_category(found.get("category")),
        campaign=name_of(found.get("campaign"), "campaign", MAX_NAME),
        labels=_labels(found.get("labels")),
        deadline=_deadline(found.get("deadline"), at, rules.deadline_ms, world.policy),
        sequence=name_of(found.get("sequence"), "sequence", MAX_NAME),
        on_doubt=one_of(found.get("on_doubt"), "on_doubt", ON_DOUBT) or rules.on_doubt,
    )


def read_update(value: object, tenant: str, world: World) -> tuple[Recipient, str, list[str]]:
    """Recipient, country and preferred channels of a profile update.

    Raises:
        BadInput: the first rule that it breaks.
    """
    found = object_of(value, "body", _UPDATE)
    _version(found)
    _same_tenant(found.get("tenant"), tenant)
    to, country = read_recipient(found.get("to"), world.phone, world.countries)
    preference = found.get("preference")
    if preference is None:
        return to, country, []
    if type(preference) is not list:
        raise wrong_type("preference", "a list of channels", preference)
    if len(preference) > MAX_PREFERENCE:
        raise too_many("preference", len(preference), MAX_PREFERENCE, "channels")
    channels = [
        _channel(item, f"preference[{index}]", world.channels)
        for index, item in enumerate(preference)
    ]
    if len(set(channels)) != len(channels):
        raise BadInput(
            "preference", "it names a channel twice", "name each once", code="unknown_value"
        )
    return to, country, channels


def read_key(value: object, field: str) -> str | None:
    """An idempotency key, or None when the caller gave none.

    Raises:
        BadInput: it is not a short text.
    """
    return name_of(value, field, MAX_KEY)


def _version(found: Mapping[str, Any]) -> None:
    version = found.get("record_version", RECORD_VERSION)
    if type(version) is not int:
        raise wrong_type("record_version", "a whole number", version)
    if not 1 <= version <= RECORD_VERSION:
        raise BadInput(
            "record_version",
            "this pipeline does not know that version",
            f"write version {RECORD_VERSION}, or leave it out",
            code="unknown_value",
        )


def _same_tenant(value: object, tenant: str) -> None:
    if value is None or value == tenant:
        return
    if type(value) is not str:
        raise wrong_type("tenant", "text", value)
    raise BadInput(
        "tenant",
        "it is not the tenant that this request comes from",
        "leave it out; the API key or the topic says whose request it is",
        code="wrong_tenant",
    )


def _content(value: object) -> Content:
    if value is None:
        raise _no_content()
    found = object_of(value, "content", _CONTENT)
    content: Content = {
        "text": _said(found.get("text"), "content.text", MAX_TEXT),
        "subject": _said(found.get("subject"), "content.subject", MAX_SUBJECT),
        "html": _said(found.get("html"), "content.html", MAX_HTML),
    }
    if not any(content.values()):
        raise _no_content()
    return content


def _said(value: object, field: str, limit: int) -> str | None:
    """A part of the content as it is; blank counts as not there."""
    if value is None:
        return None
    if type(value) is not str:
        raise wrong_type(field, "text", value)
    if len(value) > limit:
        raise too_long(field, len(value), limit)
    return value if value and not value.isspace() else None


def _route(value: object, to: Recipient, world: World) -> list[RequestStep] | None:
    if value is None:
        return None
    if type(value) is not list:
        raise wrong_type("route", "a list of steps", value)
    if not value:
        raise BadInput(
            "route",
            "it has no step",
            "name at least one channel, or leave route out to get the configured one",
            code="empty",
        )
    if len(value) > MAX_STEPS:
        raise too_many("route", len(value), MAX_STEPS, "steps")
    steps = [_step(item, f"route[{index}]", world) for index, item in enumerate(value)]
    if to["id"] is None and not any(_reaches(step["channel"], to) for step in steps):
        raise BadInput(
            "route",
            "no step has an address to go to",
            "give the address that its channels use, or name other channels",
            code="missing",
        )
    return steps


def _reaches(channel: str, to: Recipient) -> bool:
    """Whether the request itself says where the channel goes; with an id, a profile may say it."""
    return bool(to.get(CHANNEL_ADDRESS.get(channel, channel)))


def _step(value: object, field: str, world: World) -> RequestStep:
    found = object_of(value, field, _STEP)
    if found.get("channel") is None:
        raise BadInput(
            f"{field}.channel", "it is missing", f"name {listed(world.channels)}", code="missing"
        )
    return {
        "channel": _channel(found["channel"], f"{field}.channel", world.channels),
        "window_s": _window(found.get("window_s"), f"{field}.window_s", world.policy),
        "success": one_of(found.get("success"), f"{field}.success", SUCCESSES),
    }


def _channel(value: object, field: str, channels: Collection[str]) -> str:
    if type(value) is not str:
        raise wrong_type(field, "the name of a channel", value)
    if value not in channels:
        raise unknown_value(field, value, channels, "there is no such channel")
    return value


def _window(value: object, field: str, policy: Policy) -> float | None:
    if value is None:
        return None
    if type(value) is not float and type(value) is not int:
        raise wrong_type(field, "a number of seconds", value)
    # Written so that NaN fails as well.
    if not policy.min_window_ms <= value * 1000 <= policy.max_window_ms:
        raise BadInput(
            field,
            "it is out of bounds",
            f"write {policy.min_window_ms / 1000:g} to {policy.max_window_ms / 1000:g} seconds",
            code="out_of_bounds",
        )
    return float(value)


def _deadline(value: object, at: int, default_ms: int, policy: Policy) -> int:
    if value is None:
        return at + default_ms
    if type(value) is int:
        deadline = value
    elif type(value) is str:
        deadline = _moment(value)
    else:
        raise wrong_type("deadline", "milliseconds since 1970 or an ISO 8601 time", value)
    if deadline <= at:
        seconds = 0 < deadline < _LOOKS_LIKE_SECONDS
        raise BadInput(
            "deadline",
            "it was over when the request came in",
            "write milliseconds since 1970; this looks like seconds"
            if seconds
            else "write a moment in the future",
            code="in_the_past",
        )
    if deadline > at + policy.max_deadline_ms:
        raise BadInput(
            "deadline",
            "it is too far away",
            f"write a moment within {policy.max_deadline_ms // 86_400_000} days",
            code="out_of_bounds",
        )
    return deadline


def _moment(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(
            "deadline",
            "it is not a time",
            "write milliseconds since 1970, or ISO 8601 such as 2030-01-31T12:00:00Z",
            code="wrong_type",
        ) from None
    if moment.tzinfo is None:
        raise BadInput(
            "deadline",
            "it has no time zone",
            "end it with Z, or with an offset such as +01:00",
            code="wrong_type",
        )
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _category(value: object) -> str:
    if value is None or value == "":
        return DEFAULT_CATEGORY
    if type(value) is not str:
        raise wrong_type("category", "text", value)
    if not _CATEGORY.fullmatch(value):
        raise BadInput(
            "category",
            "it is not a plain word",
            "write a to z, 0 to 9, `_`, `.` and `-`, at most 40, a letter first",
            code="unknown_value",
        )
    return value


def _labels(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if type(value) is not dict:
        raise wrong_type("labels", "an object of texts", value)
    if len(value) > MAX_LABELS:
        raise too_many("labels", len(value), MAX_LABELS, "labels")
    for name, text in value.items():
        if type(name) is not str or type(text) is not str:
            raise wrong_type("labels", "texts only", text)
        if not name or len(name) > MAX_LABEL_NAME or len(text) > MAX_LABEL_VALUE:
            raise BadInput(
                "labels",
                "a label is too long or has no name",
                f"names have 1 to {MAX_LABEL_NAME} characters, values at most {MAX_LABEL_VALUE}",
                code="too_long",
            )
        if CONTROL.search(name) or CONTROL.search(text):
            raise control_character("labels")
    return value


def _no_content() -> BadInput:
    return BadInput(
        "content",
        "it says nothing",
        "give at least one of content.text, content.subject and content.html",
        code="missing",
    )
