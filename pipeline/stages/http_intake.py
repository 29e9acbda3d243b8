"""Messages that come in by HTTP: judged here by the rules that accept has, so that the caller hears
of a mistake at once, and written to intake with the tenant of the caller's API key.

What if a request comes ...
- twice: the same idempotency key gives the same message id; fallback knows the second one.
- and Kafka's answer is lost: the caller repeats it under the same key, see above.
- with somebody else's tenant: the key decides, and the record says so under a seal.
- just before its deadline: refused here, because accept would refuse it after we had said yes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import orjson

from pipeline.domain import api_keys, ids, tenancy
from pipeline.domain.errors import BadInput
from pipeline.domain.fields import too_many, wrong_type
from pipeline.domain.ports_api import MAX_BATCH, Batch, Prepared
from pipeline.domain.recipients import read_recipient
from pipeline.domain.requests import MAX_REQUEST_BYTES, Request, World, read_key, read_request
from pipeline.domain.tracing import Headers

LISTED: Final = "messages"
LEEWAY_MS: Final = 10_000
"""The least time from here to a deadline: what Kafka may take, and what clocks may differ."""


@dataclass(frozen=True, slots=True)
class HttpIntake:
    """The stage with what it knows: the rules, the pepper, the API keys by id, and where new
    idempotency keys come from."""

    world: World
    pepper: bytes
    keys: Mapping[str, api_keys.ApiKey]
    new_key: Callable[[], str]

    def tenant_of(self, authorization: str) -> str | None:
        """The tenant of the API key in an `Authorization` header, or None; any text is safe."""
        return api_keys.tenant_of(authorization, self.keys)

    def read(self, body: bytes) -> Batch:
        """The messages in a body: an object, or `{"messages": [...]}`.

        Raises:
            BadInput: it is not JSON, or holds no message, or too many.
        """
        try:
            found = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            # The place and no text: the text could quote the request.
            raise BadInput(
                "body",
                f"it is not JSON at line {error.lineno}, column {error.colno}",
                "write JSON in UTF-8",
                code="not_json",
            ) from None
        if type(found) is not dict or LISTED not in found:
            return Batch([found], listed=False)
        items = found[LISTED]
        if len(found) > 1:
            raise BadInput(
                "body",
                f"it has fields beside {LISTED}",
                f"write one message, or {LISTED} alone",
                code="unknown_field",
            )
        if type(items) is not list:
            raise wrong_type(LISTED, "a list", items)
        if not items:
            raise BadInput(LISTED, "it is empty", "write at least one message", code="empty")
        if len(items) > MAX_BATCH:
            raise too_many(LISTED, len(items), MAX_BATCH, "messages")
        return Batch(items, listed=True)

    def prepare(self, item: object, tenant: str, trace: Headers, now: int) -> Prepared:
        """The record of one message of `tenant` at `now` (ms); `trace` is the caller's context.

        Raises:
            BadInput: the first rule that the message breaks.
        """
        request = read_request(item, now, tenant, "normal", self.world)
        given = cast("dict[str, Any]", item)
        _in_time(request, given, now)
        idempotency_key = request.idempotency_key or self.new_key()
        value = orjson.dumps({**given, "idempotency_key": idempotency_key})
        if len(value) > MAX_REQUEST_BYTES:
            raise BadInput(
                "body",
                f"the message has {len(value)} bytes",
                f"write at most {MAX_REQUEST_BYTES}, and link to what is larger",
                code="too_large",
            )
        topic = "intake.bulk" if request.priority == "bulk" else "intake"
        recipient = ids.key_of(self.pepper, tenant, request.to)
        return Prepared(
            topic,
            recipient,
            value,
            (tenancy.seal(self.pepper, tenant, topic, now, value), *trace),
            ids.message_id(tenant, recipient, idempotency_key),
            idempotency_key,
        )

    def message_id(
        self, tenant: str, idempotency_key: str | None, to: str | None, to_id: str | None
    ) -> str:
        """The id of the message that has this key and goes to this person: an address, or the
        caller's own id.

        Raises:
            BadInput: something is missing, or is no address.
        """
        key = read_key(idempotency_key, "idempotency_key")
        if key is None:
            raise BadInput(
                "idempotency_key", "it is missing", "give the key of the message", code="missing"
            )
        if (to is None) == (to_id is None):
            raise BadInput(
                "to",
                "it takes one of to and to_id to know who the message goes to",
                "give to_id when the message has to.id, else its phone or email as to",
                code="missing",
            )
        asked: dict[str, str] = {}
        if to_id is not None:
            asked = {"id": to_id}
        elif to is not None and "@" in to:
            asked = {"email": to}
        elif to is not None:
            # A plus sign in a query is a space unless it was escaped; many forget that.
            asked = {"phone": f"+{to[1:]}" if to.startswith(" ") else to}
        person, _ = read_recipient(asked, self.world.phone, self.world.countries)
        return ids.message_id(tenant, ids.key_of(self.pepper, tenant, person), key)


def _in_time(request: Request, given: Mapping[str, Any], now: int) -> None:
    if given.get("deadline") is not None and request.deadline <= now + LEEWAY_MS:
        raise BadInput(
            "deadline",
            "it is too near",
            f"write a moment at least {LEEWAY_MS // 1000} seconds away",
            code="in_the_past",
        )
