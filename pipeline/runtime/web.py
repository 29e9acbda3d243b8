"""The gateway's HTTP server: bounded requests in, an answer when Kafka has the record.

Two workers may share one port (SO_REUSEPORT); the kernel spreads connections over them.
"""

import asyncio
import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from pipeline.domain import metrics
from pipeline.domain.ports_api import Api
from pipeline.domain.webhooks import BODY_LIMIT, Receiver, Refusal, WebRequest
from pipeline.runtime import observe
from pipeline.runtime.clock import Clock
from pipeline.runtime.codec import Codec
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.publish import ACKNOWLEDGE_MS, NotWritten, Publisher
from pipeline.runtime.web_api import ApiRoutes
from pipeline.runtime.web_parts import RETRY_AFTER_S, InHand, headers_of, read_body

log = logging.getLogger(__name__)

TOPIC: Final = "callbacks"
TAKEN: Final = "taken"

# The server's own log quotes what senders wrote, which may be content, as often as they like.
_SILENT: Final = logging.getLogger(f"{__name__}.server")
_SILENT.setLevel(logging.CRITICAL + 1)

_READY_S: Final = 2.0
_REPORT_EVERY_S: Final = 10.0


class GatewayFailed(RuntimeError):
    """The worker cannot go on; a new process can."""


@dataclass(frozen=True, slots=True)
class WebOptions:
    """Where the server listens and what it bears. Port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = 8080
    body_timeout_s: float = 10.0  # from the first header to the last byte of the body
    idle_timeout_s: float = 15.0  # of a connection without a whole request
    in_flight: int = 512  # webhooks that wait for Kafka; more get 503 at once
    api_in_flight: int = 128  # requests of the API that wait for Kafka, shared by tenants
    acknowledge_ms: int = ACKNOWLEDGE_MS
    shutdown_s: float = 7.0  # for requests in flight, within the 10 s that a worker has to stop


def run_gateway(
    cluster: Cluster,
    codec: Codec,
    receive: Receiver,
    clock: Clock,
    stop: threading.Event,
    options: WebOptions | None = None,
    ready: Callable[[int], None] | None = None,
    api: Api | None = None,
    observed: observe.Unobserved = observe.NONE,
) -> None:
    """Serves until `stop` is set, then finishes the requests in flight. Blocks.

    `receive` is the stage's function with its configuration, `api` what the HTTP API needs (none:
    there is no such API). `ready` is called with the port once requests are taken.

    Raises:
        GatewayFailed: the producer cannot go on.
        OSError: the port is taken by somebody who does not share it.
    """
    server = _Server(cluster, codec, receive, clock, options or WebOptions(), api, observed)
    asyncio.run(server.run(stop, ready or (lambda _port: None)))


class _Server:
    def __init__(
        self,
        cluster: Cluster,
        codec: Codec,
        receive: Receiver,
        clock: Clock,
        options: WebOptions,
        api: Api | None,
        observed: observe.Unobserved,
    ) -> None:
        self._topic = cluster.real(TOPIC)
        self._codec = codec
        self._receive = receive
        self._clock = clock
        self._options = options
        self._publisher = Publisher(cluster, clock, options.acknowledge_ms)
        self._counts: Counter[str] = Counter({TAKEN: 0, "wrong_signature": 0})
        self._in_hand = InHand()
        self._stopping = False
        self._api = None
        if api is not None:
            # A producer of its own: a full queue of the API's is no concern of the webhooks.
            self._api = ApiRoutes(
                api,
                Publisher(cluster, clock, options.acknowledge_ms),
                cluster.real,
                clock,
                in_flight=options.api_in_flight,
                body_timeout_s=options.body_timeout_s,
            )
        self._listens = False
        self._observed = observed
        observed.watch(
            standing=lambda: observe.Standing(self._listens, 0, held=self._in_hand.count),
            numbers={metrics.CALLBACKS: lambda: {(r,): n for r, n in self._counts.copy().items()}},
        )

    @property
    def _publishers(self) -> list[Publisher]:
        return [self._publisher] if self._api is None else [self._publisher, self._api.publisher]

    async def run(self, stop: threading.Event, ready: Callable[[int], None]) -> None:
        app = web.Application(middlewares=[self._answered])
        app.router.add_post("/callbacks/{provider}", self._callback)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        if self._api is not None:
            self._api.add_to(app)
        runner = web.AppRunner(
            app,
            access_log=None,
            logger=_SILENT,
            # A compressed body is refused; nobody gets to unpack one on the way to that answer.
            auto_decompress=False,
            keepalive_timeout=self._options.idle_timeout_s,
            # A refused body is read to its end for so long: closing on bytes that nobody has read
            # resets the connection, and the sender might never see why it was refused.
            lingering_time=5.0,
            shutdown_timeout=1.0,  # what is left after our own wait is not worth more
        )
        await runner.setup()
        for publisher in self._publishers:
            publisher.start()
        try:
            site = web.TCPSite(
                runner, self._options.host, self._options.port, reuse_port=True, backlog=1024
            )
            await site.start()
            port = runner.addresses[0][1]
            log.info("gateway listens on %s:%d", self._options.host, port)
            self._listens = True
            ready(port)
            await self._until(stop)
            self._stopping = True
            await site.stop()
            await self._drain()
        finally:
            self._stopping = True
            await runner.cleanup()
            for publisher in self._publishers:
                await asyncio.to_thread(publisher.close, 1.0)
            self._report()
        if any(publisher.fatal.is_set() for publisher in self._publishers):
            raise GatewayFailed("the producer met a fatal error; a new process has to take over")

    async def _until(self, stop: threading.Event) -> None:
        """Until the worker is told to stop, or the producer cannot go on."""
        told = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wait() -> None:
            stop.wait()
            if not loop.is_closed():
                loop.call_soon_threadsafe(told.set)

        threading.Thread(target=wait, name="stop", daemon=True).start()
        waits = {
            asyncio.create_task(told.wait()),
            *(asyncio.create_task(publisher.fatal.wait()) for publisher in self._publishers),
        }
        seen = self._counts.copy()
        try:
            while not any(task.done() for task in waits):
                self._observed.turn()
                await asyncio.wait(
                    waits, timeout=_REPORT_EVERY_S, return_when=asyncio.FIRST_COMPLETED
                )
                if self._counts != seen:
                    seen = self._counts.copy()
                    self._report()
        finally:
            for task in waits:
                task.cancel()

    async def _drain(self) -> None:
        """Until the requests in flight are answered. The library's own shutdown comes after it:
        that one stops reading at once, and half a body would never become a whole one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.shutdown_s):
                await self._in_hand.none()
                if self._api is not None:
                    await self._api.drained()

    async def _callback(self, request: web.Request) -> web.Response:
        if self._in_hand.count >= self._options.in_flight:
            return self._away("overloaded")
        with self._in_hand.one():
            body = await read_body(request, BODY_LIMIT, self._options.body_timeout_s)
            if isinstance(body, Refusal):
                return self._refused(body.status, body.reason)
            return await self._take(request, body)

    async def _take(self, request: web.Request, body: bytes) -> web.Response:
        answer = self._receive(
            request.match_info["provider"],
            WebRequest(
                request.method,
                request.path,
                request.query_string,
                headers_of(request),
                body,
            ),
            self._clock.now(),
        )
        if isinstance(answer, Refusal):
            return self._refused(answer.status, answer.reason)
        assert answer.value is not None
        try:
            await self._publisher.publish(self._topic, self._codec.encode("Callback", answer.value))
        except NotWritten as error:
            log.warning("a callback was not acknowledged by Kafka: %s", error)
            return self._away("kafka_away")
        self._counts[TAKEN] += 1
        return web.Response(status=200, text="ok\n")

    def _refused(self, status: int, reason: str) -> web.Response:
        self._counts[reason] += 1
        response = web.Response(status=status, text=f"{reason}\n")
        if status in {400, 408, 413}:
            response.force_close()
        return response

    def _away(self, reason: str) -> web.Response:
        response = self._refused(503, reason)
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
        return response

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        if self._stopping:
            return web.Response(status=503, text="stopping\n")
        if not await asyncio.to_thread(self._publisher.reachable, self._topic, _READY_S):
            return web.Response(status=503, text="kafka_away\n")
        return web.Response(text="ready\n")

    async def _metrics(self, _request: web.Request) -> web.Response:
        lines = [
            "# HELP delivery_gateway_callbacks_total Webhooks by what became of them.",
            "# TYPE delivery_gateway_callbacks_total counter",
            *(
                f'delivery_gateway_callbacks_total{{result="{result}"}} {count}'
                for result, count in sorted(self._counts.items())
            ),
            *(self._api.metrics() if self._api is not None else ()),
        ]
        return web.Response(text="\n".join(lines) + "\n")

    @web.middleware
    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """A fault of ours is logged by us; the sender hears nothing of it and comes again."""
        try:
            answer = await handler(request)
        except web.HTTPException:
            raise
        except Exception:
            log.exception("a request could not be handled")
            answer = web.Response(status=500, text="internal\n")
        if self._stopping:
            answer.force_close()
        return answer

    def _report(self) -> None:
        log.info("gateway: %s", " ".join(f"{k}={v}" for k, v in sorted(self._counts.items())))
