"""Signatures of Standard Webhooks (symmetric, `v1`), over the raw bytes of a body.

Headers: `webhook-id`, `webhook-timestamp` (seconds since the epoch) and `webhook-signature`, a list
of `v1,<base64>` separated by spaces, so that a sender can sign with an old and a new secret.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Final

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"

PAST_MS: Final = 5 * 60_000  # an older callback may be a recorded one
FUTURE_MS: Final = 60_000  # clocks differ by seconds, not by minutes
_MAX_SIGNATURES: Final = 16


def decode_secret(secret: str) -> bytes | None:
    """The key of `whsec_<base64>` (the prefix may be missing), or None when it is no key."""
    body = secret.removeprefix("whsec_")
    return _decoded(body + "=" * (-len(body) % 4)) or None


def sign(key: bytes, message_id: str, timestamp_s: int, body: bytes) -> str:
    """The value of `webhook-signature` under one key (see `decode_secret`)."""
    return "v1," + base64.b64encode(_mac(key, message_id, str(timestamp_s), body)).decode()


def verify(secrets: Iterable[str], headers: Mapping[str, str], body: bytes, now: int) -> bool:
    """Whether one of `secrets` signed this body, at most five minutes before `now` (milliseconds)
    and at most one minute after. Header names in lower case; never raises."""
    message_id, stamp = headers.get(ID, ""), headers.get(TIMESTAMP, "")
    given = [
        signature
        for version, _, signature in (
            part.partition(",") for part in headers.get(SIGNATURE, "").split(" ")[:_MAX_SIGNATURES]
        )
        if version == "v1"
    ]
    if not message_id or not given or not (stamp.isascii() and stamp.isdigit() and len(stamp) < 15):
        return False
    if not now - PAST_MS <= int(stamp) * 1000 <= now + FUTURE_MS:
        return False
    candidates = [raw for signature in given if (raw := _decoded(signature)) is not None]
    found = False
    for secret in secrets:
        key = decode_secret(secret)
        if key is None:
            continue
        expected = _mac(key, message_id, stamp, body)
        for candidate in candidates:  # no early way out: the time says nothing of which matched
            found |= hmac.compare_digest(expected, candidate)
    return found


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _mac(key: bytes, message_id: str, stamp: str, body: bytes) -> bytes:
    signed = b"%s.%s." % (message_id.encode(errors="replace"), stamp.encode())
    return hmac.new(key, signed + body, hashlib.sha256).digest()
