"""Names of things. An id comes from what a thing is, never from where it was read, so that a
repeat of the same work gives the same id and readers can drop it."""

import base64
import hashlib
import hmac
import uuid
from typing import Final

from pipeline.domain.records import Recipient

_NAMESPACE: Final = uuid.UUID("6f1d0c0e-6d0b-5c39-9a57-0d6a3a2f4b11")
_SEPARATOR: Final = "\x1f"


def _named(*parts: str | int) -> str:
    """A UUIDv5, as `uuid.uuid5` makes it, in a third of its time: every record has several."""
    name = _SEPARATOR.join(map(str, parts)).encode()
    raw = bytearray(hashlib.sha1(_NAMESPACE.bytes + name, usedforsecurity=False).digest()[:16])
    raw[6] = raw[6] & 0x0F | 0x50
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _keyed(pepper: bytes, *parts: str) -> bytes:
    return hmac.digest(pepper, _SEPARATOR.join(parts).encode(), "sha256")[:16]


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def recipient_key(pepper: bytes, tenant: str, kind: str, value: str) -> str:
    """The Kafka key of everything about a recipient: 22 characters.

    `kind` is id, phone or email; `value` is the caller's id or the normalised address.
    """
    return _text(_keyed(pepper, "recipient", tenant, kind, value))


def key_of(pepper: bytes, tenant: str, to: Recipient) -> str:
    """The recipient key of a normalised recipient: by the caller's id, else phone, else e-mail."""
    for kind, value in (("id", to["id"]), ("phone", to["phone"]), ("email", to["email"])):
        if value is not None:
            return recipient_key(pepper, tenant, kind, value)
    raise AssertionError("read_recipient lets nobody through without an address")


def address_hash(pepper: bytes, tenant: str, address: str) -> str:
    """An address as suppressions name it: 22 characters."""
    return _text(_keyed(pepper, "address", tenant, address))


def idempotency_hash(pepper: bytes, tenant: str, key: str) -> str:
    """A caller's idempotency key as it may be stored and shown."""
    return _text(_keyed(pepper, "idempotency", tenant, key))


def message_id(tenant: str, recipient: str, idempotency_key: str) -> str:
    """The id of the logical message that an idempotency key names."""
    return _named("message", tenant, recipient, idempotency_key)


def message_id_of_record(cluster: str, topic: str, partition: int, offset: int) -> str:
    """The id of a message without an idempotency key: of the first record that asked for it."""
    return _named("record", cluster, topic, partition, offset)


def replay_id(dead_letter: str) -> str:
    """The id of the message that replays a dead letter."""
    return _named("replay", dead_letter)


def command_id(message: str, step: int, try_no: int) -> str:
    """The id of one step's try, as it is handed to dispatch."""
    return _named("command", message, step, try_no)


def attempt_id(command: str, provider: str) -> str:
    """The id of one hand-over of a command to one provider."""
    return _named("attempt", command, provider)


def idempotency_key(message: str, step: int, key_no: int) -> str:
    """What a provider gets as idempotency key: the same through every unknown answer; `key_no`
    rises after a definite failure, because some providers cache errors."""
    return _named("key", message, step, key_no)


def event_id(message: str, step: int, try_no: int, provider: str, kind: str, detail: str) -> str:
    """`detail` is the provider's own event id or code, or empty."""
    return _named("event", message, step, try_no, provider, kind, detail)


def dead_letter_id(stage: str, category: str, *names: str | int) -> str:
    """The id of a dead letter about something that has a name of its own (`names`)."""
    return _named("dead-letter", stage, category, *names)


def unreadable_id(topic: str, partition: int, offset: int) -> str:
    """Only what cannot be read is named by where it was read."""
    return _named("unreadable", topic, partition, offset)


def pepper_fingerprint(pepper: bytes) -> str:
    """Tells whether two programs key recipients alike, without giving the pepper away."""
    return _text(_keyed(pepper, "fingerprint"))


def callback_id(provider: str, name: str) -> str:
    """A webhook: `name` is the provider's id of it, or the hash of its body."""
    return _named("callback", provider, name)
