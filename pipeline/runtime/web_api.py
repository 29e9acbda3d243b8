"""The HTTP API of the gateway: messages in, an answer when Kafka has them."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from pipeline.domain.api import Mistake, Problem, Taken
from pipeline.domain.errors import BadInput
from pipeline.domain.openapi import PROBLEM, document
from pipeline.domain.ports_api import API_BODY_LIMIT, MessageApi, Prepared
from pipeline.domain.shares import Shares
from pipeline.domain.tracing import TRACEPARENT, TRACESTATE, Headers, carried
from pipeline.domain.webhooks import Refusal
from pipeline.runtime.clock import Clock
from pipeline.runtime.publish import NotWritten, Publisher
from pipeline.runtime.web_parts import RETRY_AFTER_S, InHand, read_body

log = logging.getLogger(__name__)

BELOW: Final = "/v1/"
MESSAGES: Final = "/v1/messages"
MISTAKES_TOLD: Final = 100
BUSY_RETRY_AFTER_S: Final = 1

_AT_ONCE: Final = 32
"""Messages that are judged before other requests have their turn."""

_WORDS: Final = {
    "body_too_large": f"the body has over {API_BODY_LIMIT} bytes; send fewer messages at once",
    "body_too_slow": "the body did not come in time; send it again",
    "body_cut_off": "the body broke off; send it again",
    "no_key": "give an API key of this pipeline: Authorization: Bearer KEY",
    "busy": "too many requests of this API key's tenant wait for an answer; wait for some of them",
    "media_type": "send JSON: Content-Type: application/json, not compressed",
    "kafka_away": "Kafka has not confirmed the messages; some may have been taken all the same, so"
    " repeat them under the same idempotency keys",
}


class ApiRoutes:
    """The routes below /v1. One for each event loop; `publisher` is started and closed by its
    owner."""

    def __init__(
        self,
        api: MessageApi,
        publisher: Publisher,
        real: Callable[[str], str],
        clock: Clock,
        *,
        in_flight: int,
        body_timeout_s: float,
    ) -> None:
        self.publisher = publisher
        self.in_hand = InHand()
        self._api = api
        self._real = real
        self._clock = clock
        self._shares = Shares(in_flight)
        self._body_timeout_s = body_timeout_s
        self._counts: Counter[str] = Counter({"taken": 0})

    def add_to(self, app: web.Application) -> None:
        """Adds the routes."""
        described = orjson.dumps(document())

        async def openapi(_request: web.Request) -> web.Response:
            return web.Response(body=described, content_type="application/json")

        app.middlewares.append(_problems_below)
        app.router.add_post(MESSAGES, self._post)
        app.router.add_get(f"{BELOW}openapi.json", openapi)

    def metrics(self) -> list[str]:
        """Lines of the Prometheus text format."""
        return [
            "# HELP delivery_gateway_api_messages_total Messages taken; requests refused, by why.",
            "# TYPE delivery_gateway_api_messages_total counter",
            *(
                f'delivery_gateway_api_messages_total{{result="{result}"}} {count}'
                for result, count in sorted(self._counts.items())
            ),
        ]

    async def _post(self, request: web.Request) -> web.Response:
        # Who it is comes first: a stranger's body is not even read.
        tenant = self._api.tenant_of(request.headers.get("Authorization", ""))
        if tenant is None:
            return self._no(401, "no_key", {"WWW-Authenticate": "Bearer"})
        if not self._shares.take(tenant):
            return self._no(429, "busy", {"Retry-After": str(BUSY_RETRY_AFTER_S)})
        try:
            with self.in_hand.one():
                return await self._take(request, tenant)
        finally:
            self._shares.give_back(tenant)

    async def _take(self, request: web.Request, tenant: str) -> web.Response:
        packed = request.headers.get("Content-Encoding", "identity").lower()
        if request.content_type != "application/json" or packed not in {"", "identity"}:
            return self._no(415, "media_type")
        body = await read_body(request, API_BODY_LIMIT, self._body_timeout_s)
        if isinstance(body, Refusal):
            answer = self._no(body.status, body.reason)
            answer.force_close()
            return answer
        try:
            batch = self._api.read(body)
        except BadInput as error:
            return self._bad([_mistake(0, error)])
        trace = _trace(request)
        prepared: list[Prepared] = []
        mistakes: list[Mistake] = []
        for index, item in enumerate(batch.items):
            try:
                prepared.append(self._api.prepare(item, tenant, trace, self._clock.now()))
            except BadInput as error:
                mistakes.append(_mistake(index, error))
            if index % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
        if mistakes:
            return self._bad(mistakes, len(batch.items))
        taken: list[Taken] = [
            {"message_id": one.message_id, "idempotency_key": one.idempotency_key}
            for one in prepared
        ]
        try:
            await self._write(prepared)
        except NotWritten as error:
            log.warning("%d messages were not acknowledged by Kafka: %s", len(prepared), error)
            away = {"Retry-After": str(RETRY_AFTER_S)}
            return self._no(503, "kafka_away", away, messages=taken)
        self._counts["taken"] += len(taken)
        return _json(202, {"messages": taken} if batch.listed else taken[0])

    async def _write(self, prepared: list[Prepared]) -> None:
        """Returns when the brokers have all of them. Raises NotWritten."""
        begun: list[asyncio.Future[None]] = []
        failed: BaseException | None = None
        for number, one in enumerate(prepared):
            try:
                begun.append(
                    self.publisher.begin(
                        self._real(one.topic), one.value, one.key.encode(), one.headers
                    )
                )
            except NotWritten as error:
                failed = error
                break
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
        for ended in await asyncio.gather(*begun, return_exceptions=True):
            failed = failed or ended
        if failed is not None:
            raise failed

    def _bad(self, mistakes: list[Mistake], of: int = 1) -> web.Response:
        """Nothing of a request with a mistake is written: the caller mends it and sends it again."""
        self._counts["bad_request"] += 1
        told = mistakes[:MISTAKES_TOLD]
        more = f" (the first {MISTAKES_TOLD} are listed)" if len(mistakes) > len(told) else ""
        detail = f"{len(mistakes)} of {of} cannot be taken{more}; nothing was written"
        return _problem(400, "bad_request", detail, mistakes=told)

    def _no(
        self,
        status: int,
        code: str,
        headers: dict[str, str] | None = None,
        messages: list[Taken] | None = None,
    ) -> web.Response:
        self._counts[code] += 1
        return _problem(status, code, _WORDS[code], headers, messages=messages)


@web.middleware
async def _problems_below(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What the server answers by itself is a problem like the others."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if not request.path.startswith(BELOW) or error.status < 400:
            raise
        kept = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        code = "no_such_method" if error.status == 405 else "no_such_path"
        return _problem(error.status, code, "docs/http-api.md names what there is", kept)


def _mistake(index: int, error: BadInput) -> Mistake:
    return {
        "index": index,
        "field": error.field,
        "code": error.code,
        "cause": error.cause,
        "cure": error.cure,
    }


def _trace(request: web.Request) -> Headers:
    found = tuple(
        (name, request.headers[name].encode(errors="replace"))
        for name in (TRACEPARENT, TRACESTATE)
        if name in request.headers
    )
    return carried(found)


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
    return _json(status, problem, headers, PROBLEM)


def _json(
    status: int,
    value: object,
    headers: dict[str, str] | None = None,
    content_type: str = "application/json",
) -> web.Response:
    return web.Response(
        status=status, body=orjson.dumps(value), content_type=content_type, headers=headers
    )
