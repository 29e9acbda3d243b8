"""The simulated provider's process: `POST /<account>/v1/<channel>/messages` and `GET /stats`.

`/stats` answers `{"requests": n, "pending_receipts": n}`, so that a caller knows when the provider
owes nothing any more.
"""

import asyncio
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson
from aiohttp import web

from pipeline.simulators.behaviour import Answer
from pipeline.simulators.callbacks import Callbacks
from pipeline.simulators.provider import Decision, Provider
from pipeline.simulators.script import Script
from pipeline.simulators.writer import LedgerWriter

_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: close sends RST
_MAX_BODY: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Options:
    """How one simulator runs. `port` 0 takes a free one; `secret` is `whsec_<base64>`."""

    ledger: Path
    secret: str
    seed: int = 1
    host: str = "127.0.0.1"
    port: int = 0
    script: Script = field(default_factory=Script)


def now_ms() -> int:
    """The simulator's own clock, milliseconds since the epoch."""
    return int(time.time() * 1000)


class Simulator:
    """One running provider in one event loop."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._ledger = LedgerWriter(options.ledger)
        self._provider = Provider(options.seed, options.script, self._ledger, now_ms())
        self._callbacks = Callbacks(options.script, options.secret, self._ledger, now_ms)
        self._runner: web.ServerRunner | None = None
        self.port = options.port

    async def start(self) -> None:
        """Listens; receipts that a former run still owes are scheduled.

        Raises:
            OSError: the port is taken.
        """
        self._ledger.flush()
        for receipt in self._provider.resume(self._options.ledger):
            self._callbacks.schedule(receipt)
        server = web.Server(self._handle, access_log=None, handler_cancellation=True)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._options.host, self._options.port, backlog=512)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Stops; the ledger is complete afterwards."""
        if self._runner is not None:
            await self._runner.cleanup()
        await self._callbacks.close()
        self._ledger.close()

    def stats(self) -> dict[str, int]:
        """What `/stats` answers."""
        return {
            "requests": self._provider.requests,
            "pending_receipts": self._callbacks.pending,
        }

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET" and request.path == "/stats":
            return _json(200, orjson.dumps(self.stats()))
        parts = request.path.split("/")
        if len(parts) != 5 or parts[2] != "v1" or parts[4] != "messages":
            return _json(404, b'{"error":{"code":"no_such_path","message":"see the API"}}')
        if request.method != "POST":
            return _json(405, b'{"error":{"code":"no_such_method","message":"POST only"}}')
        length = request.content_length
        if length is not None and length > _MAX_BODY:
            return _json(413, b'{"error":{"code":"content_too_long","message":"4 MB at most"}}')
        body = await request.read()
        decision = self._provider.request(
            parts[1],
            parts[3],
            request.headers.get("Idempotency-Key", ""),
            request.headers.get("Authorization", ""),
            body,
            now_ms(),
        )
        for receipt in decision.receipts:
            self._callbacks.schedule(receipt)
        if decision.delay_ms:
            await asyncio.sleep(decision.delay_ms / 1000)
        return await self._answer(request, parts[1], decision)

    async def _answer(
        self, request: web.BaseRequest, account: str, decision: Decision
    ) -> web.StreamResponse:
        if decision.answer is Answer.RESET:
            reset(request.transport)
        elif decision.answer is Answer.NONE:
            try:
                await asyncio.sleep(self._options.script.hang_s)
            except asyncio.CancelledError:
                key = request.headers.get("Idempotency-Key", "")
                self._ledger.write(
                    {"what": "hung_up", "at": now_ms(), "account": account, "key": key}
                )
                raise
            reset(request.transport)
        return web.Response(
            body=decision.body, status=decision.status or 500, headers=decision.headers
        )


def reset(transport: asyncio.Transport | None) -> None:
    """Drops a connection so that the other side sees a reset, not an end."""
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


def run(options: Options, ready: Callable[[str], None]) -> None:
    """Runs until SIGTERM or SIGINT; `ready` gets the base address once it listens."""

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        simulator = Simulator(options)
        try:
            await simulator.start()
            ready(f"http://{options.host}:{simulator.port}")
            await stop.wait()
        finally:
            await simulator.close()

    asyncio.run(main())


def _json(status: int, body: bytes) -> web.Response:
    return web.Response(body=body, status=status, headers={"Content-Type": "application/json"})
