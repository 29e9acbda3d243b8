"""Our own JSON-over-HTTP API, served by the simulator and by anybody who wants to be reached.

Request: `POST <base_url>/v1/<channel>/messages` with `Idempotency-Key` and, where the account has
a credential, `Authorization: Bearer`; the body is

    {to, text, subject, html, from, reference, callback_url, valid_for_s}

Answer: `202 {"id": "..."}`; else a status of 400 or more with `{"error": {"code", "message"}}`,
whose codes stand in `CODES`. 429 and 503 may carry `Retry-After`.

Callback: `POST <callback_url>`, signed by Standard Webhooks, with one event or a list of them:

    {"id", "type": accepted|delivered|read|failed, "occurred_at": ms, "message_id",
     "reference": text or null, "code": text or null, "country": text}
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

from pipeline.domain import standard_webhooks
from pipeline.domain.errors import ErrorClass, Result
from pipeline.domain.ports import (
    Account,
    Delivery,
    HttpReply,
    HttpRequest,
    Reply,
    Report,
    Unreadable,
)
from pipeline.domain.records import Callback
from pipeline.domain.strict_json import NotJson, parse, text

CODES_VERSION: Final = 1
MAX_RETRY_AFTER_MS: Final = 3_600_000  # a provider may not park us for longer by one header
MAX_EVENTS: Final = 1_000  # in one callback
_MAX_ID: Final = 200
_MAX_CODE: Final = 64
_MAX_TIME: Final = 1 << 53

KINDS: Final = frozenset({"accepted", "delivered", "read", "failed"})


@dataclass(frozen=True, slots=True)
class Code:
    """One error code of the API. `source` is the part of the API that uses it: `answer` (with its
    HTTP status), `receipt` or both."""

    code: str
    error_class: ErrorClass
    meaning: str
    source: str
    status: int | None = None


CODES: Final[tuple[Code, ...]] = (
    Code("bad_request", ErrorClass.CONFIG, "A field is missing or has a wrong type", "answer", 400),
    Code("invalid_address", ErrorClass.RECIPIENT, "No such number or mailbox", "answer", 400),
    Code("bad_credentials", ErrorClass.CONFIG, "The credential is wrong or expired", "answer", 401),
    Code("no_credit", ErrorClass.PROVIDER, "The account has run out of credit", "answer", 402),
    Code("account_suspended", ErrorClass.PROVIDER, "The account is suspended", "answer", 403),
    Code("sender_not_allowed", ErrorClass.CONFIG, "The sender is not ours", "answer", 403),
    Code("opted_out", ErrorClass.OPT_OUT, "The person said stop", "answer, receipt", 403),
    Code("not_on_channel", ErrorClass.CHANNEL, "Not a user of it", "answer, receipt", 404),
    Code("content_too_long", ErrorClass.CONTENT, "Longer than the channel takes", "answer", 413),
    Code("content_rejected", ErrorClass.CONTENT, "Against the channel's rules", "answer", 422),
    Code("country_not_served", ErrorClass.PROVIDER, "No route to this country", "answer", 422),
    Code("too_fast", ErrorClass.THROTTLE, "More requests than the account may make", "answer", 429),
    Code("busy", ErrorClass.TRANSIENT, "Not taken; the same works later", "answer", 503),
    Code("unreachable", ErrorClass.CHANNEL, "Switched off or full for too long", "receipt"),
    Code("number_gone", ErrorClass.RECIPIENT, "The number is no longer in use", "receipt"),
    Code("blocked_by_operator", ErrorClass.PROVIDER, "The operator refused it", "receipt"),
    Code("spam", ErrorClass.CONTENT, "Judged to be spam", "receipt"),
    Code("expired", ErrorClass.TRANSIENT, "Not delivered while it was valid", "receipt"),
)

_ANSWER_CODES: Final[Mapping[str, Code]] = {code.code: code for code in CODES if code.status}
_RECEIPT_CODES: Final[Mapping[str, Code]] = {
    code.code: code for code in CODES if "receipt" in code.source
}

# What a status means when its body does not say (a proxy answered, not the provider).
_STATUS_CLASSES: Final[Mapping[int, ErrorClass]] = {
    401: ErrorClass.CONFIG,
    402: ErrorClass.PROVIDER,
    403: ErrorClass.CONFIG,
    404: ErrorClass.CONFIG,
    405: ErrorClass.CONFIG,
    413: ErrorClass.CONTENT,
    429: ErrorClass.THROTTLE,
}
# 408: the request arrived in part or whole; 409: the same key is being worked on right now.
_DOUBTFUL_4XX: Final = frozenset({408, 409, 499})


class Generic:
    """The adapter; see `pipeline.domain.ports.Adapter` for what each method promises."""

    def build(self, account: Account, delivery: Delivery) -> HttpRequest:
        """The request for one hand-over; the same bytes for the same arguments."""
        headers = {
            "content-type": "application/json",
            "accept": "application/json",
            "idempotency-key": delivery.idempotency_key,
        }
        if account.credential:
            headers["authorization"] = f"Bearer {account.credential}"
        body = {
            "to": delivery.address,
            "text": delivery.text,
            "subject": delivery.subject,
            "html": delivery.html,
            "from": account.sender,
            "reference": delivery.reference,
            "callback_url": account.callback_url,
            "valid_for_s": delivery.valid_for_ms / 1000,
        }
        return HttpRequest(
            method="POST",
            url=f"{account.base_url.rstrip('/')}/v1/{account.channel}/messages",
            headers=headers,
            body=json.dumps(body, separators=(",", ":")).encode(),
        )

    def read_reply(self, account: Account, reply: HttpReply) -> Reply:
        """Never raises. Refused only where the status or a documented code says that nothing was
        taken; whatever else is not a clear yes may have been taken."""
        del account
        status = reply.status
        body = _body(reply)
        if 200 <= status < 300:
            taken = text(body.get("id"), _MAX_ID)
            if taken:
                return Reply(Result.ACCEPTED, provider_message_id=taken)
            return Reply(Result.UNKNOWN, ErrorClass.UNKNOWN, f"http_{status}")
        code = _error_code(body)
        known = _ANSWER_CODES.get(code or "")
        retry_after = _retry_after_ms(reply.headers)
        if 400 <= status < 500 and status not in _DOUBTFUL_4XX:
            if status == 429:
                # A full request counter says no before anything is looked at.
                return Reply(
                    Result.REFUSED,
                    ErrorClass.THROTTLE,
                    code or "http_429",
                    retry_after_ms=retry_after,
                )
            error_class = (
                known.error_class if known else _STATUS_CLASSES.get(status, ErrorClass.UNKNOWN)
            )
            return Reply(
                Result.REFUSED, error_class, code or f"http_{status}", retry_after_ms=retry_after
            )
        if status == 503 and known is not None and known.status == 503:
            return Reply(Result.REFUSED, known.error_class, code, retry_after_ms=retry_after)
        if 300 <= status < 400:
            # Redirects are not followed: the account's address is wrong.
            return Reply(Result.REFUSED, ErrorClass.CONFIG, f"http_{status}")
        return Reply(
            Result.UNKNOWN,
            ErrorClass.TRANSIENT if status >= 400 else ErrorClass.UNKNOWN,
            code or f"http_{status}",
            retry_after_ms=retry_after,
        )

    def verify(self, account: Account, callback: Callback, now: int) -> bool:
        """Whether one of the account's secrets signed the raw body; `now` in milliseconds."""
        return standard_webhooks.verify(
            account.callback_secrets, callback["headers"], callback["body"], now
        )

    def read_callback(self, account: Account, callback: Callback) -> list[Report]:
        """The receipts in a callback. An entry that cannot be read, or of a kind that we do not
        know, becomes a report of kind `unknown`, so that it does not take its neighbours along.

        Raises:
            Unreadable: the body is no JSON, neither an object nor a list, or too long a list.
        """
        del account
        try:
            body = parse(callback["body"])
        except NotJson as error:
            raise Unreadable(f"body: {error}") from None
        entries = body if isinstance(body, list) else [body]
        if not isinstance(body, list | dict):
            raise Unreadable("body: neither an event nor a list of events")
        if len(entries) > MAX_EVENTS:
            raise Unreadable(f"body: {len(entries)} events are more than {MAX_EVENTS}")
        return [_report(entry, callback["received_at"]) for entry in entries]


def _body(reply: HttpReply) -> Mapping[str, Any]:
    """The answer's JSON object, or an empty one for anything else."""
    if reply.truncated:
        return {}
    try:
        value = parse(reply.body)
    except NotJson:
        return {}
    return value if isinstance(value, dict) else {}


def _error_code(body: Mapping[str, Any]) -> str | None:
    error = body.get("error")
    return (text(error.get("code"), _MAX_CODE) or None) if isinstance(error, dict) else None


def _retry_after_ms(headers: Mapping[str, str]) -> int | None:
    """Retry-After as milliseconds from now: seconds, or a date against the answer's own Date."""
    given = headers.get("retry-after", "").strip()
    if given.isascii() and given.isdigit():
        wait_ms = int(given) * 1000 if len(given) < 10 else MAX_RETRY_AFTER_MS
    else:
        try:
            until = parsedate_to_datetime(given)
            since = parsedate_to_datetime(headers.get("date", ""))
            wait_ms = int((until - since).total_seconds() * 1000)
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
    return max(0, min(wait_ms, MAX_RETRY_AFTER_MS))


def _report(entry: Any, received_at: int) -> Report:
    if not isinstance(entry, dict):
        return Report("unknown", _digest(entry), received_at, code="not_an_object")
    kind = text(entry.get("type"), _MAX_CODE)
    known = kind in KINDS
    occurred = entry.get("occurred_at")
    if not isinstance(occurred, int) or isinstance(occurred, bool) or not 0 < occurred < _MAX_TIME:
        occurred = received_at
    code = text(entry.get("code"), _MAX_CODE) or None
    error_class = None
    if kind == "failed":
        row = _RECEIPT_CODES.get(code or "")
        error_class = row.error_class if row else ErrorClass.UNKNOWN
    return Report(
        kind=kind if kind is not None and known else "unknown",
        provider_event_id=text(entry.get("id"), _MAX_ID) or _digest(entry),
        occurred_at=occurred,
        reference=text(entry.get("reference"), _MAX_ID) or None,
        provider_message_id=text(entry.get("message_id"), _MAX_ID) or None,
        error_class=error_class,
        code=code if known else kind,
        country=text(entry.get("country"), 2) or "",
    )


def _digest(entry: Any) -> str:
    """The event id of an entry that has none: the same entry again is the same event."""
    whole = json.dumps(entry, sort_keys=True).encode()
    return hashlib.blake2b(whole, digest_size=12).hexdigest()
