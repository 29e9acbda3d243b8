"""Accept: requests become messages, profile updates become profiles, and everything else becomes
one rejection that says which field and why.

Stateless and pure. It decides by the record's own append time, so the same record always gives
the same answer: a record that is read again after a crash gives the same ids, and fallback knows
them. Duplicates are not its business; they are found by whoever owns the message's life.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, cast

import orjson
import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberFormat

from pipeline.channels import CHANNELS
from pipeline.domain import ids, tenancy
from pipeline.domain.drafts import NO_TENANT, blank_event, blank_letter, source_of
from pipeline.domain.errors import BadInput, Undecodable
from pipeline.domain.outcomes import Answer, Emit, Inbound
from pipeline.domain.policy import Policy
from pipeline.domain.recipients import Phone
from pipeline.domain.records import RECORD_VERSION, Message, Profile
from pipeline.domain.requests import (
    MAX_REQUEST_BYTES,
    World,
    read_key,
    read_request,
    read_update,
)
from pipeline.domain.switches import NONE, Switches
from pipeline.domain.tracing import begun, carried

STAGE: Final = "accept"
READS: Final = ("intake", "intake.bulk", "recipients")
WRITES: Final = (
    "accepted.urgent",
    "accepted.normal",
    "accepted.bulk",
    "profiles",
    "rejected",
    "dead-letter",
)

KEY_HEADERS: Final = ("id", "ce_id")
"""Headers that name a request when its body does not: Debezium's outbox, then CloudEvents."""

PHONES_REMEMBERED: Final = 65_536
"""Numbers whose reading is kept; reading one takes longer than the rest of accept together."""

_AVRO: Final = (0xC3, 0x00)  # first byte of single-object encoding and of a registry's framing
_NOTHING: Final = {"null_value", "empty_value"}
_DEFAULT_PRIORITY: Final = MappingProxyType({"intake.bulk": "bulk"})
COUNTRIES: Final = frozenset(phonenumbers.SUPPORTED_REGIONS)
"""Country codes that a recipient may have."""

Decode = Callable[[bytes], tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class AcceptConfig:
    """What accept knows besides the record.

    `cluster` is the id of the Kafka cluster, part of the names of messages without a key. `decode`
    reads Avro in either framing and raises Undecodable; what else it raises (a registry that does
    not answer) passes through, for the runtime to try again. `tenants` binds topics to tenants.
    `trace_ratio` is the share of messages without a caller's trace that get one (0 to 1).
    `random_id` serves a fault that only tests plant.
    """

    policy: Policy
    pepper: bytes
    cluster: str
    decode: Decode
    tenants: Mapping[str, str] = field(default_factory=dict)
    channels: Collection[str] = tuple(CHANNELS)
    switches: Switches = NONE
    random_id: Callable[[], str] | None = None
    trace_ratio: float = 0.0
    world: World = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "world", world_of(self.policy, self.channels))


def world_of(policy: Policy, channels: Collection[str] = tuple(CHANNELS)) -> World:
    """What requests are judged against, here and wherever they come in."""
    return World(policy, read_phone, channels, COUNTRIES)


def accept(record: Inbound, config: AcceptConfig) -> list[Answer]:
    """The record's message or profile, or its rejection (with a dead letter where the bytes could
    not be read). Raises only what `config.decode` raises besides Undecodable."""
    tenant = config.tenants.get(record.topic, NO_TENANT)
    try:
        tenant = tenant_of(record, config)
        if record.topic == "recipients":
            return [_profile(record, _read(record, "ProfileUpdate", config), tenant, config)]
        return [_message(record, _read(record, "SendRequest", config), tenant, config)]
    except BadInput as error:
        return [_rejection(record, tenant, error, config)]
    except Undecodable as error:
        bad = BadInput("body", *_unreadable(error), code=error.code)
        answers: list[Answer] = [_rejection(record, tenant, bad, config)]
        if error.code not in _NOTHING:
            answers.append(_letter(record, tenant, error, config))
        return answers


def tenant_of(record: Inbound, config: AcceptConfig) -> str:
    """Whose request it is: the gateway says so in a sealed header, else the topic's binding does.

    Raises:
        BadInput: there is such a header, and the gateway did not write it.
    """
    seals = [value for name, value in record.headers if name == tenancy.HEADER]
    if not seals:
        return config.tenants.get(record.topic, NO_TENANT)
    # Of two headers neither is believed: one of them is not the gateway's.
    sealed = seals[0] if len(seals) == 1 else b""
    return tenancy.unseal(
        config.pepper, sealed, record.topic, record.timestamp, record.value or b""
    )


@lru_cache(maxsize=PHONES_REMEMBERED)
def read_phone(text: str, country: str | None) -> Phone | None:
    """A number that exists, as E.164 with its country; None for any other text."""
    try:
        number = phonenumbers.parse(text, country)
    except NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    region = phonenumbers.region_code_for_number(number)
    return Phone(
        phonenumbers.format_number(number, PhoneNumberFormat.E164),
        region if region in COUNTRIES else "",
    )


def _read(record: Inbound, wanted: str, config: AcceptConfig) -> object:
    raw = record.value
    if raw is None:
        raise Undecodable("null_value", "the record has no value")
    if not raw:
        raise Undecodable("empty_value", "the record's value has no bytes")
    if len(raw) > MAX_REQUEST_BYTES:
        raise BadInput(
            "body",
            f"it has {len(raw)} bytes",
            f"write at most {MAX_REQUEST_BYTES}, and link to what is larger",
            code="too_large",
        )
    if raw[0] in _AVRO:
        name, value = config.decode(raw)
        if name != wanted:
            raise BadInput(
                "body",
                f"it is a record of another kind than {wanted}",
                f"write a {wanted} to this topic",
                code="wrong_record",
            )
        return value
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        # The place and no text: the text could quote the request.
        raise Undecodable(
            "not_json", f"it is not JSON at line {error.lineno}, column {error.colno}"
        ) from None


def _message(record: Inbound, value: object, tenant: str, config: AcceptConfig) -> Emit:
    request = read_request(
        value,
        record.timestamp,
        tenant,
        _DEFAULT_PRIORITY.get(record.topic, "normal"),
        config.world,
    )
    idempotency_key = request.idempotency_key or _key_of_headers(record.headers)
    recipient = ids.key_of(config.pepper, tenant, request.to)
    if idempotency_key is None:
        message_id = _id_of_record(record, config)
    else:
        message_id = ids.message_id(tenant, recipient, idempotency_key)
    if config.switches.random_message_id and config.random_id is not None:
        message_id = config.random_id()
    message: Message = {
        "record_version": RECORD_VERSION,
        "tenant": tenant,
        "message_id": message_id,
        "recipient_key": recipient,
        "idempotency_hash": None
        if idempotency_key is None
        else ids.idempotency_hash(config.pepper, tenant, idempotency_key),
        "source": source_of(record),
        "accepted_at": record.timestamp,
        "priority": request.priority,
        "category": request.category,
        "campaign": request.campaign,
        "labels": request.labels,
        "to": request.to,
        "country": request.country,
        "content": request.content,
        "route": request.route,
        "deadline": request.deadline,
        "sequence": request.sequence,
        "on_doubt": request.on_doubt,
        "replay_of": None,
    }
    return Emit(
        f"accepted.{request.priority}",
        recipient,
        cast("Mapping[str, Any]", message),
        carried(record.headers) or begun(message_id, config.trace_ratio),
    )


def _profile(record: Inbound, value: object, tenant: str, config: AcceptConfig) -> Emit:
    to, country, preference = read_update(value, tenant, config.world)
    recipient = ids.key_of(config.pepper, tenant, to)
    profile: Profile = {
        "record_version": RECORD_VERSION,
        "tenant": tenant,
        "recipient_key": recipient,
        "phone": to["phone"],
        "email": to["email"],
        "country": country,
        "preference": preference,
        "updated_at": record.timestamp,
    }
    return Emit("profiles", recipient, cast("Mapping[str, Any]", profile), carried(record.headers))


def _rejection(record: Inbound, tenant: str, error: BadInput, config: AcceptConfig) -> Emit:
    """Named by the record and not by the request: a repeat of a rejected request is judged anew,
    and each of the two has a rejection of its own."""
    message_id = _id_of_record(record, config)
    event = blank_event(
        ids.event_id(message_id, 0, 0, "", "rejected", error.code),
        "rejected",
        tenant,
        message_id,
        "",
    )
    event["occurred_at"] = record.timestamp
    event["code"] = error.code
    event["field"] = error.field
    event["reason"] = f"{error.cause}; {error.cure}"
    event["origin"] = STAGE
    event["source"] = source_of(record)
    return Emit("rejected", None, cast("Mapping[str, Any]", event), carried(record.headers))


def _letter(record: Inbound, tenant: str, error: Undecodable, config: AcceptConfig) -> Emit:
    letter = blank_letter(
        ids.unreadable_id(record.topic, record.partition, record.offset),
        STAGE,
        "unreadable",
        error.code,
    )
    letter["tenant"] = tenant
    letter["message_id"] = _id_of_record(record, config)
    letter["detail"] = error.detail
    letter["occurred_at"] = record.timestamp
    letter["source"] = source_of(record)
    letter["raw_key"] = record.key
    letter["raw_value"] = record.value
    return Emit("dead-letter", None, cast("Mapping[str, Any]", letter), carried(record.headers))


def _unreadable(error: Undecodable) -> tuple[str, str]:
    if error.code in _NOTHING:
        return error.detail, "write a request as JSON, or as Avro by the published schema"
    return (
        f"it cannot be read ({error.detail})",
        "write JSON in UTF-8, or Avro by the published schema",
    )


def _key_of_headers(headers: tuple[tuple[str, bytes], ...]) -> str | None:
    for wanted in KEY_HEADERS:
        for name, value in headers:
            if name == wanted and value:
                try:
                    return read_key(value.decode(), f"header {name}")
                except UnicodeDecodeError:
                    raise BadInput(
                        f"header {name}",
                        "it is not text in UTF-8",
                        "write the request's key as text, or leave the header out",
                        code="wrong_type",
                    ) from None
    return None


def _id_of_record(record: Inbound, config: AcceptConfig) -> str:
    return ids.message_id_of_record(config.cluster, record.topic, record.partition, record.offset)
