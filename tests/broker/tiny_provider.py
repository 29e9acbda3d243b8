"""A provider of a few lines that counts: by key, by reference, in order of arrival.

It answers the generic API. What it does is decided by the address: for those that begin with `ODD`
the last three digits name a behaviour in `BEHAVIOURS`; everything else is accepted. As a process of its own it prints its port
and appends one JSON line per request to a file.
"""

import asyncio
import json
import sys
import threading
from pathlib import Path
from typing import Any

ODD = "+49152"
BEHAVIOURS = {
    "901": "refuse_transient",
    "902": "throttle",
    "903": "bad_address",
    "904": "reset_first",
    "905": "reset_always",
    "906": "hang",
    "907": "slow",
}


class TinyProvider:
    """Serves on 127.0.0.1; `port` is known once `start` returned."""

    def __init__(self, ledger: Path | None = None, delay_s: float = 0.0) -> None:
        self.requests: list[dict[str, Any]] = []
        self.port = 0
        self.running = self.most_running = 0
        self._delay_s = delay_s
        self._file = ledger.open("a", buffering=1) if ledger else None
        self._seen: dict[str, int] = {}
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> "TinyProvider":
        self._thread.start()
        assert self._up.wait(5)
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        if self._file:
            self._file.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._up.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                headers = dict(
                    line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line
                )
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                path = head.split(" ")[1]
                if not await self._answer(path, headers, body, reader, writer):
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    async def _answer(
        self,
        path: str,
        headers: dict[str, str],
        body: dict[str, Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        key = headers["idempotency-key"]
        seen = self._seen[key] = self._seen.get(key, 0) + 1
        line = {
            "account": path.split("/")[1],
            "key": key,
            "reference": body["reference"],
            "to": body["to"],
            "text": body["text"],
            "n": seen,
        }
        self.requests.append(line)
        if self._file:
            self._file.write(json.dumps(line) + "\n")
        odd = body["to"].startswith(ODD)
        does = BEHAVIOURS.get(body["to"][-3:], "accept") if odd else "accept"
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            if does == "hang":
                await reader.read(1)  # until the client gives up
                return False
            if does == "slow":
                await asyncio.sleep(1.0)
        finally:
            self.running -= 1
        if does == "reset_always" or (does == "reset_first" and seen == 1):
            writer.transport.abort()
            return False
        status, answer = {
            "refuse_transient": (503, {"error": {"code": "busy"}}),
            "throttle": (429, {"error": {"code": "too_fast"}}),
            "bad_address": (400, {"error": {"code": "invalid_address"}}),
        }.get(does, (202, {"id": f"id-{key}"}))
        raw = json.dumps(answer).encode()
        extra = "retry-after: 7\r\n" if status == 429 else ""
        writer.write(
            f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{extra}"
            f"content-length: {len(raw)}\r\n\r\n".encode()
            + raw
        )
        await writer.drain()
        return True


def main() -> None:
    provider = TinyProvider(Path(sys.argv[1]), float(sys.argv[2])).start()
    print(provider.port, flush=True)
    sys.stdin.read()  # ends with whoever started it
    provider.stop()


if __name__ == "__main__":
    main()
