"""Who may come in to the HTTP API and how many at once, and how it says no."""

from collections import Counter
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from pipeline.domain.api import Mistake, Problem, Taken
from pipeline.domain.errors import BadInput
from pipeline.domain.openapi import PROBLEM
from pipeline.domain.ports_api import API_BODY_LIMIT
from pipeline.domain.shares import Shares
from pipeline.runtime.web_parts import InHand

BELOW: Final = "/v1/"
MISTAKES_TOLD: Final = 100
RETRY_AFTER: Final = "Retry-After"
BUSY_RETRY_AFTER_S: Final = 1

_WORDS: Final = {
    "body_too_large": f"the body has over {API_BODY_LIMIT} bytes; send fewer messages at once",
    "body_too_slow": "the body did not come in time; send it again",
    "body_cut_off": "the body broke off; send it again",
    "no_key": "give an API key of this pipeline: Authorization: Bearer KEY",
    "busy": "too many requests of this API key's tenant wait for an answer; wait for some of them",
    "media_type": "send JSON: Content-Type: application/json, not compressed",
    "kafka_away": "Kafka has not confirmed the messages; some may have been taken all the same, so"
    " repeat them under the same idempotency keys",
    "not_found": "no such message of this API key's tenant is known; one that was taken a moment"
    " ago shows within seconds",
    "store_away": "the store of events does not answer; ask again later. Messages are taken and"
    " delivered all the same",
}


class Door:
    """Lets callers with a key in, a bounded number at once, and counts what became of them."""

    def __init__(self, tenant_of: Callable[[str], str | None], at_once: int) -> None:
        self.in_hand = InHand()
        self.counts: Counter[str] = Counter()
        self._tenant_of = tenant_of
        self._shares = Shares(at_once)

    async def admit(
        self, request: web.Request, then: Callable[[web.Request, str], Awaitable[web.Response]]
    ) -> web.Response:
        """What `then` answers to the request of a tenant, or why it was not asked."""
        # Who it is comes first: a stranger's body is not even read.
        tenant = self._tenant_of(request.headers.get("Authorization", ""))
        if tenant is None:
            return self.no(401, "no_key", {"WWW-Authenticate": "Bearer"})
        if not self._shares.take(tenant):
            return self.no(429, "busy", {RETRY_AFTER: str(BUSY_RETRY_AFTER_S)})
        try:
            with self.in_hand.one():
                return await then(request, tenant)
        finally:
            self._shares.give_back(tenant)

    def bad(self, mistakes: list[Mistake], detail: str) -> web.Response:
        """400, with the mistakes; no more of them than anybody reads."""
        self.counts["bad_request"] += 1
        return _problem(400, "bad_request", detail, mistakes=mistakes[:MISTAKES_TOLD])

    def no(
        self,
        status: int,
        code: str,
        headers: dict[str, str] | None = None,
        messages: list[Taken] | None = None,
    ) -> web.Response:
        """An answer that is no."""
        self.counts[code] += 1
        return _problem(status, code, _WORDS[code], headers, messages=messages)


def mistake(index: int, error: BadInput) -> Mistake:
    """A breach of a rule, as the API tells it."""
    return {
        "index": index,
        "field": error.field,
        "code": error.code,
        "cause": error.cause,
        "cure": error.cure,
    }


def json_answer(
    status: int,
    value: object,
    headers: dict[str, str] | None = None,
    content_type: str = "application/json",
) -> web.Response:
    """An answer in JSON."""
    return web.Response(
        status=status, body=orjson.dumps(value), content_type=content_type, headers=headers
    )


@web.middleware
async def problems_below(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What the server answers by itself below /v1 is a problem like the others."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if not request.path.startswith(BELOW) or error.status < 400:
            raise
        kept = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        code = "no_such_method" if error.status == 405 else "no_such_path"
        return _problem(error.status, code, "docs/http-api.md names what there is", kept)


def _problem(
    status: int,
    code: str,
    detail: str,
    headers: dict[str, str] | None = None,
    *,
    mistakes: list[Mistake] | None = None,
    messages: list[Taken] | None = None,
) -> web.Response:
    problem: Problem = {
        "status": status,
        "title": HTTPStatus(status).phrase,
        "code": code,
        "detail": detail,
    }
    if mistakes is not None:
        problem["mistakes"] = mistakes
    if messages is not None:
        problem["messages"] = messages
    return json_answer(status, problem, headers, PROBLEM)
