"""The reference that a provider gets and gives back: which message, recipient, step and tenant a
receipt belongs to, signed, so that receipts needs no look-up and nobody can invent one.

Layout before base64url: version and key id (1 byte), message (16), recipient key (16), step (1),
MAC (8), tenant (1 to 24, last). 66 to 78 characters for usual tenants, 88 at most, which fits the
shortest field of the providers that we know (100).
"""

import base64
import binascii
import hashlib
import hmac
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

TENANT: Final = re.compile(r"^[a-z0-9][a-z0-9_-]{0,23}$")
_VERSION: Final = 1
_MAC: Final = 8
_FIXED: Final = 1 + 16 + 16 + 1 + _MAC


@dataclass(frozen=True, slots=True)
class Named:
    """What a reference names."""

    tenant: str
    message_id: str
    recipient_key: str
    step: int


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.new(key, b"reference" + body, hashlib.sha256).digest()[:_MAC]


def make(named: Named, key_id: int, key: bytes) -> str:
    """The same text for the same message and step, whatever the try. `key_id` is 0 to 15."""
    if not 0 <= key_id <= 15 or not 0 <= named.step <= 255:
        raise ValueError("key id must be 0 to 15 and step 0 to 255")
    head = bytes([_VERSION << 4 | key_id]) + uuid.UUID(named.message_id).bytes
    head += base64.urlsafe_b64decode(named.recipient_key + "==") + bytes([named.step])
    tenant = named.tenant.encode()
    return base64.urlsafe_b64encode(head + _mac(key, head + tenant) + tenant).rstrip(b"=").decode()


def read(text: str, keys: Mapping[int, bytes]) -> Named | None:
    """What `text` names, or None when it is not a reference of ours (any text is safe)."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(raw) <= _FIXED or raw[0] >> 4 != _VERSION:
        return None
    key = keys.get(raw[0] & 15)
    head, mac, tenant = raw[: _FIXED - _MAC], raw[_FIXED - _MAC : _FIXED], raw[_FIXED:]
    if key is None or not hmac.compare_digest(mac, _mac(key, head + tenant)):
        return None
    return Named(
        tenant=tenant.decode(),
        message_id=str(uuid.UUID(bytes=raw[1:17])),
        recipient_key=base64.urlsafe_b64encode(raw[17:33]).rstrip(b"=").decode(),
        step=raw[33],
    )
