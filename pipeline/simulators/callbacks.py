"""Sends receipts: signed by Standard Webhooks, over kept connections, a bounded number at once, and
again with growing pauses until the answer is 2xx."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import orjson
from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

from pipeline.domain import standard_webhooks
from pipeline.simulators.provider import DueReceipt
from pipeline.simulators.script import Script
from pipeline.simulators.writer import LedgerWriter

MAX_IN_FLIGHT: Final = 64
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 10.0
GIVE_UP_S: Final = 120.0
_ANSWER_S: Final = 10.0  # how long one answer may take
_GATHER_S: Final = 0.02  # how long receipts wait for others in the same callback


class Callbacks:
    """Owned by one event loop. `schedule` never waits; `close` drops what is not sent, which a
    restart on the same ledger takes up again."""

    def __init__(
        self, script: Script, secret: str, ledger: LedgerWriter, now: Callable[[], int]
    ) -> None:
        key = standard_webhooks.decode_secret(secret)
        if key is None:
            raise ValueError("secret: not base64; give whsec_ and base64 of 24 to 64 bytes")
        self._key = key
        self._script = script
        self._ledger = ledger
        self._now = now
        self._client: ClientSession | None = None
        self._free = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._gathered: dict[tuple[str, str], list[DueReceipt]] = {}
        self._timers: set[asyncio.TimerHandle] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = 0
        self.pending = 0  # receipts that were scheduled and are neither acknowledged nor given up

    def schedule(self, receipt: DueReceipt) -> None:
        """Sends `receipt` when it is due, or now when that is over."""
        self.pending += 1
        wait_s = (receipt.due - self._now()) / 1000
        if wait_s <= 0:
            self._gather(receipt)
            return
        loop = asyncio.get_running_loop()

        def fire() -> None:
            self._timers.discard(handle)
            self._gather(receipt)

        handle = loop.call_later(wait_s, fire)
        self._timers.add(handle)

    async def close(self) -> None:
        """Stops at once."""
        for timer in self._timers:
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.close()

    def _gather(self, receipt: DueReceipt) -> None:
        batch = self._script.account(receipt.account).callback_batch
        if batch <= 1:
            self._start([receipt])
            return
        name = (receipt.account, receipt.url)
        gathered = self._gathered.setdefault(name, [])
        gathered.append(receipt)
        if len(gathered) >= batch:
            self._start(self._gathered.pop(name))
        elif len(gathered) == 1:
            loop = asyncio.get_running_loop()

            def fire() -> None:
                self._timers.discard(handle)
                if self._gathered.get(name) is gathered:
                    self._start(self._gathered.pop(name))

            handle = loop.call_later(_GATHER_S, fire)
            self._timers.add(handle)

    def _start(self, receipts: list[DueReceipt]) -> None:
        task = asyncio.get_running_loop().create_task(self._send(receipts))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, receipts: list[DueReceipt]) -> None:
        async with self._free:
            self._number += 1
            now = self._now()
            callback = f"cb-{now}-{self._number}"
            for receipt in receipts:
                self._ledger.write(
                    {
                        "what": "receipt",
                        "at": now,
                        "callback": callback,
                        "event": receipt.event,
                        "kind": receipt.kind,
                        "id": receipt.id,
                        "reference": receipt.reference,
                    }
                )
            events = [self._event(receipt, now) for receipt in receipts]
            body = orjson.dumps(events[0] if len(events) == 1 else events)
        started, pause, tries, status = time.monotonic(), FIRST_PAUSE_S, 0, 0
        while True:
            async with self._free:
                tries += 1
                status = await self._post(receipts[0].url, callback, body)
            if 200 <= status < 300:
                what = "ack"
                break
            if time.monotonic() - started + pause > GIVE_UP_S:
                what = "gave_up"
                break
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)
        self.pending -= len(receipts)
        self._ledger.write(
            {
                "what": what,
                "at": self._now(),
                "callback": callback,
                "status": status,
                "tries": tries,
            }
        )

    def _event(self, receipt: DueReceipt, now: int) -> dict[str, object]:
        echoes = self._script.account(receipt.account).echoes_reference
        return {
            "id": receipt.event,
            "type": receipt.kind,
            "occurred_at": now,
            "message_id": receipt.id,
            "reference": receipt.reference if echoes else None,
            "code": receipt.code,
            "country": receipt.country,
        }

    async def _post(self, url: str, callback: str, body: bytes) -> int:
        """The answer's status, 0 when there was none."""
        if self._client is None:
            self._client = ClientSession(
                connector=TCPConnector(limit=MAX_IN_FLIGHT),
                timeout=ClientTimeout(total=_ANSWER_S),
                cookie_jar=DummyCookieJar(),
            )
        stamp = self._now() // 1000
        headers = {
            "content-type": "application/json",
            standard_webhooks.ID: callback,
            standard_webhooks.TIMESTAMP: str(stamp),
            standard_webhooks.SIGNATURE: standard_webhooks.sign(self._key, callback, stamp, body),
        }
        try:
            async with self._client.post(
                url, data=body, headers=headers, allow_redirects=False
            ) as response:
                return response.status
        except (ClientError, TimeoutError, ValueError):
            return 0
