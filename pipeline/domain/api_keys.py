"""Keys of the HTTP API. A key is shown once, when it is made; what the configuration holds is its id,
its tenant and its SHA-256, which is enough for a secret that is 32 random bytes.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

SECRET_BYTES: Final = 32
ID_BYTES: Final = 5

_KEY: Final = re.compile(r"dp_([a-z2-7]{8})_[A-Za-z0-9_-]{43}")
_SCHEME: Final = re.compile(r"bearer +(\S+)", re.IGNORECASE)
_NOBODYS: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key: who may act for which tenant, never the key itself."""

    tenant: str
    sha256: bytes


class NewKey(NamedTuple):
    """A key that was just made: the text for its owner, and what the configuration holds."""

    text: str
    key_id: str
    sha256: str


def make(key_id: bytes, secret: bytes) -> NewKey:
    """A key of `ID_BYTES` and `SECRET_BYTES` random bytes. The prefix lets scanners of source code
    see that it is a secret."""
    name = base64.b32encode(key_id).decode().lower()
    text = f"dp_{name}_{base64.urlsafe_b64encode(secret).rstrip(b'=').decode()}"
    return NewKey(text, name, hashlib.sha256(text.encode()).hexdigest())


def tenant_of(authorization: str, keys: Mapping[str, ApiKey]) -> str | None:
    """The tenant for whom `Authorization: Bearer KEY` may act, or None; any text is safe."""
    scheme = _SCHEME.fullmatch(authorization.strip())
    found = _KEY.fullmatch(scheme[1]) if scheme else None
    if found is None:
        return None
    known = keys.get(found[1])
    digest = hashlib.sha256(found[0].encode()).digest()
    # The same work for an id that nobody has: the time says nothing of which ids there are.
    same = hmac.compare_digest(digest, known.sha256 if known else _NOBODYS)
    return known.tenant if known is not None and same else None
