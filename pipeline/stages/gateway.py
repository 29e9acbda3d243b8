"""Gateway: a provider's webhook becomes one record of `callbacks`, raw, once its signature holds.

It reads nothing of the body: whether that can be understood is for receipts to say, with the
bytes at hand. What it drops are credentials, which must not reach a topic.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from pipeline.domain import ids
from pipeline.domain.outcomes import Emit
from pipeline.domain.ports import Account, Adapter
from pipeline.domain.records import RECORD_VERSION, Callback
from pipeline.domain.webhooks import (
    BODY_LIMIT,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    Refusal,
    WebRequest,
)

STAGE: Final = "gateway"
READS: Final = ()
WRITES: Final = ("callbacks", "intake", "intake.bulk")  # requests: stages/http_intake.py

ID_HEADER: Final = "webhook-id"
_MAX_ID: Final = 256

SECRET_WORDS: Final = re.compile(
    r"auth|cookie|credential|jwt|key|passw|secret|session|signature|token|(^|[-_])(hmac|sig)([-_]|$)",
    re.IGNORECASE,
)
"""A header or query field with such a name may be a credential."""

REDACTED: Final = "redacted"


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """The configured providers by name, and the provider table by adapter name."""

    accounts: Mapping[str, Account]
    adapters: Mapping[str, Adapter]


def receive(provider: str, request: WebRequest, now: int, config: GatewayConfig) -> Emit | Refusal:
    """The `callbacks` record of a webhook at `now` (ms), or why it is refused. Never raises for
    anything that a sender can write."""
    account = config.accounts.get(provider)
    adapter = config.adapters.get(account.adapter) if account else None
    if account is None or adapter is None:
        return Refusal(404, "unknown_provider")
    if request.headers.get("content-encoding", "identity").lower() not in {"", "identity"}:
        # A few bytes could become gigabytes, and no provider that we know compresses.
        return Refusal(415, "content_encoding")
    if len(request.headers) > MAX_HEADERS or _size(request.headers) > MAX_HEADER_BYTES:
        return Refusal(431, "headers_too_large")
    if len(request.body) > BODY_LIMIT:
        return Refusal(413, "body_too_large")
    callback: Callback = {
        "record_version": RECORD_VERSION,
        "tenant": "",  # an account may serve several; the reference in the body says which
        "callback_id": ids.callback_id(account.name, _name(request)),
        "provider": account.name,
        "received_at": now,
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": dict(request.headers),
        "body": request.body,
    }
    if not adapter.verify(account, callback, now):
        return Refusal(401, "wrong_signature")
    callback["headers"] = harmless(request.headers)
    callback["query"] = without_secrets(request.query)
    return Emit("callbacks", None, cast("Mapping[str, Any]", callback))


def harmless(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that are no credentials; the signature has been checked and goes as well."""
    return {name: value for name, value in headers.items() if not SECRET_WORDS.search(name)}


def without_secrets(query: str) -> str:
    """The query as it came, with the values of credentials taken out."""
    fields = []
    for part in query.split("&"):
        name, equals, _ = part.partition("=")
        fields.append(f"{name}={REDACTED}" if equals and SECRET_WORDS.search(name) else part)
    return "&".join(fields)


def _name(request: WebRequest) -> str:
    """The provider's own id of the webhook, so that a repeat of it has the same name."""
    given = request.headers.get(ID_HEADER, "")
    if 0 < len(given) <= _MAX_ID:
        return f"id:{given}"
    digest = hashlib.sha256(request.query.encode() + b"\n" + request.body)
    return f"body:{digest.hexdigest()}"


def _size(headers: Mapping[str, str]) -> int:
    return sum(len(name) + len(value) for name, value in headers.items())
