"""Whose request it is, when the gateway knows better than the topic.

The gateway writes requests of every tenant to the same intake topics, and any client of those topics
may write there too. So it puts the tenant in a record header under a MAC of the pepper, which
clients do not have. The MAC covers the record's bytes, so a header that was copied from somebody's
record only fits a repeat of that record, and the time, so that such a repeat comes while the message
is still known by its idempotency key (docs/decisions/ says more).
"""

import base64
import hmac
import re
from typing import Final

from pipeline.domain.errors import BadInput

HEADER: Final = "delivery-tenant"

VALID_MS: Final = 3_600_000
"""Between the gateway's clock and the broker's append time: far more than a record waits or clocks
differ, far less than a message is remembered."""

_SEAL: Final = re.compile(rb"1 ([a-z0-9][a-z0-9_-]{0,23}) ([0-9]{1,15}) ([A-Za-z0-9_-]{22})")
_SEPARATOR: Final = b"\x1f"


def seal(pepper: bytes, tenant: str, topic: str, at: int, value: bytes) -> tuple[str, bytes]:
    """The header that says whose record `value` in `topic` (the catalogue's name) is, made at `at`
    (ms)."""
    stamp = str(at).encode()
    mac = _mac(pepper, tenant.encode(), topic, stamp, value)
    return HEADER, b"1 %s %s %s" % (tenant.encode(), stamp, mac)


def unseal(pepper: bytes, sealed: bytes, topic: str, appended_at: int, value: bytes) -> str:
    """The tenant that a header names, for a record that was appended at `appended_at` (ms).

    Raises:
        BadInput: the gateway did not write this header for this record.
    """
    found = _SEAL.fullmatch(sealed)
    if found is None:
        raise _forged()
    tenant, stamp, mac = found[1], found[2], found[3]
    if not hmac.compare_digest(mac, _mac(pepper, tenant, topic, stamp, value)):
        raise _forged()
    if abs(appended_at - int(stamp)) > VALID_MS:
        raise _forged()
    return tenant.decode()


def _mac(pepper: bytes, tenant: bytes, topic: str, stamp: bytes, value: bytes) -> bytes:
    said = _SEPARATOR.join((b"tenant of a request", topic.encode(), tenant, stamp, value))
    return base64.urlsafe_b64encode(hmac.digest(pepper, said, "sha256")[:16]).rstrip(b"=")


def _forged() -> BadInput:
    return BadInput(
        f"header {HEADER}",
        "the gateway did not write it for this record, or not within the hour",
        "leave the header out; a topic's tenant is configured, and other tenants use the HTTP API",
        code="wrong_tenant",
    )
