"""A simulator with somebody who takes its callbacks, over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientTimeout, web

from pipeline.simulators.ledger import Ledger
from pipeline.simulators.script import Script
from pipeline.simulators.server import Options, Simulator

SECRET = "whsec_" + "QUJD" * 8


class Bench:
    """One simulator, one caller and one taker of callbacks. `answers` are the statuses that the
    taker gives next; afterwards 204."""

    def __init__(self, ledger: Path) -> None:
        self.ledger_path = ledger
        self.callbacks: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        self.caller: ClientSession
        self.simulator: Simulator
        self.url = ""

    def events(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for _, body in self.callbacks:
            value = json.loads(body)
            found.extend(value if isinstance(value, list) else [value])
        return found

    def ledger(self) -> Ledger:
        return Ledger.load(self.ledger_path)

    def post(
        self,
        address: str = "+4915123000001",
        *,
        account: str = "a",
        channel: str = "sms",
        key: str = "k-1",
        reference: str = "r-1",
        **headers: str,
    ) -> Any:
        body = {"to": address, "text": "t", "reference": reference, "callback_url": self.url}
        return self.caller.post(
            f"http://127.0.0.1:{self.simulator.port}/{account}/v1/{channel}/messages",
            json=body,
            headers={"Idempotency-Key": key, **headers},
        )

    async def until(self, condition: Callable[[], bool], seconds: float = 5.0) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        while not condition():
            assert asyncio.get_running_loop().time() < deadline, "not in time"
            await asyncio.sleep(0.005)

    async def quiet(self) -> None:
        await self.until(lambda: self.simulator.stats()["pending_receipts"] == 0)


@asynccontextmanager
async def benched(ledger: Path, script: Script, seed: int = 1) -> AsyncIterator[Bench]:
    bench = Bench(ledger)

    async def take(request: web.BaseRequest) -> web.Response:
        body = await request.read()
        status = bench.answers.pop(0) if bench.answers else 204
        if status < 300:
            headers = {name.lower(): value for name, value in request.headers.items()}
            bench.callbacks.append((headers, body))
        return web.Response(status=status)

    runner = web.ServerRunner(web.Server(take, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    bench.url = f"http://127.0.0.1:{runner.addresses[0][1]}/callbacks/a"
    bench.simulator = Simulator(Options(ledger=ledger, secret=SECRET, seed=seed, script=script))
    await bench.simulator.start()
    try:
        async with ClientSession(timeout=ClientTimeout(total=2)) as caller:
            bench.caller = caller
            yield bench
    finally:
        await bench.simulator.close()
        await runner.cleanup()
