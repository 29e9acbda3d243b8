"""The HTTP API of the gateway: messages in, an answer when Kafka has them; and what became of them."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import orjson
from aiohttp import web

from pipeline.domain.api import Mistake, Taken
from pipeline.domain.errors import BadInput
from pipeline.domain.message_status import status_of
from pipeline.domain.openapi import document
from pipeline.domain.ports_api import API_BODY_LIMIT, Api, Prepared, StoreAway
from pipeline.domain.tracing import TRACEPARENT, TRACESTATE, Headers, carried
from pipeline.domain.webhooks import Refusal
from pipeline.runtime.clock import Clock
from pipeline.runtime.publish import NotWritten, Publisher
from pipeline.runtime.web_door import (
    BELOW,
    MISTAKES_TOLD,
    RETRY_AFTER,
    Door,
    json_answer,
    mistake,
    problems_below,
)
from pipeline.runtime.web_parts import RETRY_AFTER_S, read_body

log = logging.getLogger(__name__)

MESSAGES: Final = f"{BELOW}messages"
LOOKUPS_AT_ONCE: Final = 32
"""Questions to the store in hand, shared by tenants; sending does not wait behind them."""

_AT_ONCE: Final = 32
"""Messages that are judged before other requests have their turn."""


class ApiRoutes:
    """The routes below /v1. One for each event loop; `publisher` is started and closed by its
    owner."""

    def __init__(
        self,
        api: Api,
        publisher: Publisher,
        real: Callable[[str], str],
        clock: Clock,
        *,
        in_flight: int,
        body_timeout_s: float,
    ) -> None:
        self.publisher = publisher
        self._stage = api.stage
        self._lookup = api.lookup
        self._real = real
        self._clock = clock
        self._in = Door(api.stage.tenant_of, in_flight)
        self._out = Door(api.stage.tenant_of, LOOKUPS_AT_ONCE)
        self._body_timeout_s = body_timeout_s
        self._in.counts["taken"] = self._out.counts["found"] = 0

    def add_to(self, app: web.Application) -> None:
        """Adds the routes."""
        described = orjson.dumps(document())

        async def openapi(_request: web.Request) -> web.Response:
            return web.Response(body=described, content_type="application/json")

        async def post(request: web.Request) -> web.Response:
            return await self._in.admit(request, self._take)

        async def by_id(request: web.Request) -> web.Response:
            return await self._out.admit(request, self._by_id)

        async def by_key(request: web.Request) -> web.Response:
            return await self._out.admit(request, self._by_key)

        app.middlewares.append(problems_below)
        app.router.add_post(MESSAGES, post)
        app.router.add_get(MESSAGES, by_key)
        app.router.add_get(f"{MESSAGES}/{{message_id}}", by_id)
        app.router.add_get(f"{BELOW}openapi.json", openapi)

    async def drained(self) -> None:
        """Returns when no request is in hand."""
        await self._in.in_hand.none()
        await self._out.in_hand.none()

    def metrics(self) -> list[str]:
        """Lines of the Prometheus text format."""
        lines = []
        for name, meaning, door in (
            ("messages", "Messages taken; requests refused, by why.", self._in),
            ("lookups", "Questions for a message's status, by answer.", self._out),
        ):
            metric = f"delivery_gateway_api_{name}_total"
            lines += [f"# HELP {metric} {meaning}", f"# TYPE {metric} counter"]
            lines += [
                f'{metric}{{result="{result}"}} {count}'
                for result, count in sorted(door.counts.items())
            ]
        return lines

    async def _take(self, request: web.Request, tenant: str) -> web.Response:
        packed = request.headers.get("Content-Encoding", "identity").lower()
        if request.content_type != "application/json" or packed not in {"", "identity"}:
            return self._in.no(415, "media_type")
        body = await read_body(request, API_BODY_LIMIT, self._body_timeout_s)
        if isinstance(body, Refusal):
            answer = self._in.no(body.status, body.reason)
            answer.force_close()
            return answer
        try:
            batch = self._stage.read(body)
        except BadInput as error:
            return self._bad([mistake(0, error)])
        trace = _trace(request)
        prepared: list[Prepared] = []
        mistakes: list[Mistake] = []
        for index, item in enumerate(batch.items):
            try:
                prepared.append(self._stage.prepare(item, tenant, trace, self._clock.now()))
            except BadInput as error:
                mistakes.append(mistake(index, error))
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
            return self._in.no(503, "kafka_away", {RETRY_AFTER: str(RETRY_AFTER_S)}, taken)
        self._in.counts["taken"] += len(taken)
        return json_answer(202, {"messages": taken} if batch.listed else taken[0])

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
        more = f" (the first {MISTAKES_TOLD} are listed)" if len(mistakes) > MISTAKES_TOLD else ""
        detail = f"{len(mistakes)} of {of} cannot be taken{more}; nothing was written"
        return self._in.bad(mistakes, detail)

    async def _by_id(self, request: web.Request, tenant: str) -> web.Response:
        return await self._tell(tenant, request.match_info["message_id"])

    async def _by_key(self, request: web.Request, tenant: str) -> web.Response:
        asked = request.query
        try:
            message_id = self._stage.message_id(
                tenant, asked.get("idempotency_key"), asked.get("to"), asked.get("to_id")
            )
        except BadInput as error:
            return self._out.bad([mistake(0, error)], "the question cannot be understood")
        return await self._tell(tenant, message_id)

    async def _tell(self, tenant: str, message_id: str) -> web.Response:
        try:
            seen = await self._lookup(tenant, message_id)
        except StoreAway as error:
            log.warning("a message's status could not be read: %s", error)
            return self._out.no(503, "store_away", {RETRY_AFTER: str(RETRY_AFTER_S)})
        status = status_of(message_id, seen)
        if status is None:
            return self._out.no(404, "not_found")
        self._out.counts["found"] += 1
        return json_answer(200, status)


def _trace(request: web.Request) -> Headers:
    found = tuple(
        (name, request.headers[name].encode(errors="replace"))
        for name in (TRACEPARENT, TRACESTATE)
        if name in request.headers
    )
    return carried(found)
