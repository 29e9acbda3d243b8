"""A TCP proxy before one broker that can hold a single EndTxn and let it go in the next transaction.

That is the one fault which transactions through librdkafka do not survive by themselves: the late
frame commits what the next transaction has written so far. The proxy stands between all clients
and the broker (it puts its own port into the broker's answers), watches whose transaction a frame
belongs to, and so knows when the next one is under way.

Modes of a hold:
  silent  the frame and all that follows on its connection are swallowed; nobody hangs up
  reset   the client's connection is reset at once, the frame is kept
  replay  the frame goes through; a copy is delivered in the next transaction
  spoil   no frame is held: the answer to a transaction's offsets says that the generation is old,
          as after a rebalance, so that the transaction has to be aborted

As a program it takes orders as JSON lines on stdin ({"do": "hold", "mode": ..., "match": ...},
{"do": "cut"}, {"do": "delay", "ms": ...}, {"do": "black_hole", "on": ...}) and tells what happened
as JSON lines on stdout.
"""

import argparse
import asyncio
import contextlib
import json
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.faults import frames

Tell = Callable[[dict[str, object]], None]


@dataclass(slots=True)
class Hold:
    """One EndTxn that is, or will be, held."""

    mode: str
    match: str
    transactional_id: str = ""
    request: frames.Request | None = None
    frame: bytes = b""
    upstream: asyncio.StreamWriter | None = None
    held_at: float = 0.0
    moved_on: bool = False  # the client has finished or abandoned that transaction
    answer: asyncio.Future[bytes] | None = None
    released: bool = False


@dataclass(slots=True, eq=False)
class Link:
    """One client's connection and its own connection to the broker."""

    client: asyncio.StreamWriter
    upstream: asyncio.StreamWriter
    waiting: dict[int, frames.Request] = field(default_factory=dict)
    swallowed: bool = False


class KafkaProxy:
    """Listens on a free loopback port; everything runs on one event loop."""

    def __init__(self, host: str, port: int, tell: Tell = lambda event: None) -> None:
        self.port = 0
        self.delay_s = 0.0
        self.black_hole = False
        self._upstream = (host, port)
        self._tell = tell
        self._armed: list[Hold] = []
        self._held: dict[str, Hold] = {}
        self._produced: set[str] = set()  # transactions that have written something
        self._links: set[Link] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, port: int = 0) -> int:
        """Begins to listen; returns the port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port, limit=2**26)
        self.port = self._server.sockets[0].getsockname()[1]
        return self.port

    async def stop(self) -> None:
        """Stops listening and cuts every connection."""
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hold(self, mode: str, match: str) -> None:
        """Holds the next EndTxn(commit) of a transaction with records whose transactional id
        contains `match`."""
        self._armed.append(Hold(mode, match))

    def cut(self) -> int:
        """Resets every connection, on both sides; returns how many there were."""
        links = list(self._links)
        for link in links:
            link.client.transport.abort()
            link.upstream.transport.abort()
        return len(links)

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            answers, upstream = await asyncio.open_connection(*self._upstream, limit=2**26)
        except OSError:
            client.transport.abort()
            return
        link = Link(client, upstream)
        self._links.add(link)
        back = asyncio.create_task(self._backward(answers, link))
        self._tasks.add(back)
        back.add_done_callback(self._tasks.discard)
        try:
            await self._forward(reader, link)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client hung up, or the proxy ends
        finally:
            client.close()
            if not any(hold.upstream is upstream for hold in self._held.values()):
                upstream.close()
            self._links.discard(link)

    async def _forward(self, reader: asyncio.StreamReader, link: Link) -> None:
        while True:
            (size,) = struct.unpack(">i", await reader.readexactly(4))
            body = await reader.readexactly(size)
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if link.swallowed or self.black_hole:
                continue
            request = frames.read_request(body)
            if request.api in frames.TELLS_ADDRESS or request.api in frames.TRANSACTIONAL:
                link.waiting[request.correlation] = request
            if request.api == frames.END_TXN:
                produced = request.transactional_id in self._produced
                self._produced.discard(request.transactional_id)
                if request.commit and produced:
                    match self._take(request, body, link):
                        case "silent":
                            continue
                        case "reset":
                            return
            link.upstream.write(frames.framed(body))
            await link.upstream.drain()

    def _take(self, request: frames.Request, body: bytes, link: Link) -> str:
        """The mode of the armed hold that wants this EndTxn; empty when none does."""
        name = request.transactional_id
        chosen = self._armed_for(name, "silent", "reset", "replay")
        if chosen is None or name in self._held:
            return ""
        self._armed.remove(chosen)
        chosen.transactional_id, chosen.frame, chosen.request = name, body, request
        chosen.held_at = time.monotonic()
        self._held[name] = chosen
        self._tell({"event": "held", "mode": chosen.mode, "id": name})
        if chosen.mode != "replay":
            chosen.upstream = link.upstream
        if chosen.mode == "reset":
            link.client.transport.abort()
        elif chosen.mode == "silent":
            link.swallowed = True
        return chosen.mode

    async def _backward(self, answers: asyncio.StreamReader, link: Link) -> None:
        try:
            while True:
                (size,) = struct.unpack(">i", await answers.readexactly(4))
                body = await answers.readexactly(size)
                (correlation,) = struct.unpack_from(">i", body)
                request = link.waiting.pop(correlation, None)
                if request is not None and request.api in frames.TRANSACTIONAL:
                    watched = await self._watch(request, body, link)
                    if watched is None:
                        continue
                    body = watched
                elif request is not None:
                    body = frames.with_port(body, self._upstream[0], self._upstream[1], self.port)
                if self.black_hole or link.swallowed or link.client.is_closing():
                    continue
                link.client.write(frames.framed(body))
                await link.client.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            if not link.swallowed:
                link.client.close()
            link.upstream.close()

    async def _watch(self, request: frames.Request, body: bytes, link: Link) -> bytes | None:
        """Follows transactions by their answers; what goes on to the client, if anything does."""
        name = request.transactional_id
        hold = self._held.get(name)
        if request.api == frames.TXN_OFFSET_COMMIT:
            return self._spoiled(request, body)
        if request.api == frames.PRODUCE:
            if name:
                self._produced.add(name)
            if hold is not None and hold.moved_on and not hold.released:
                await self._release(hold)
            return body
        if hold is None:
            return body
        if hold.answer is not None and link.upstream is hold.upstream and request == hold.request:
            hold.answer.set_result(body)
            return None
        if frames.error_code(request, body) == 0:
            hold.moved_on = True
        return body

    def _spoiled(self, request: frames.Request, body: bytes) -> bytes:
        name = request.transactional_id
        chosen = self._armed_for(name, "spoil")
        if chosen is None or name not in self._produced:
            return body
        self._armed.remove(chosen)
        for event in ("held", "released"):
            self._tell({"event": event, "mode": "spoil", "id": name, "error": None})
        return frames.with_offset_errors(request, body, frames.ILLEGAL_GENERATION)

    def _armed_for(self, name: str, *modes: str) -> Hold | None:
        return next((one for one in self._armed if one.match in name and one.mode in modes), None)

    async def _release(self, hold: Hold) -> None:
        """Delivers the held frame, and tells what the broker says of it."""
        hold.released = True
        assert hold.request is not None
        reply = b""
        with contextlib.suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(5):
                if hold.upstream is not None:
                    hold.answer = asyncio.get_running_loop().create_future()
                    hold.upstream.write(frames.framed(hold.frame))
                    reply = await hold.answer
                    hold.upstream.close()
                else:
                    reply = await self._deliver_apart(hold.frame)
        code = frames.error_code(hold.request, reply) if reply else None
        self._tell(
            {
                "event": "released",
                "mode": hold.mode,
                "id": hold.transactional_id,
                "error": code,
                "seconds": round(time.monotonic() - hold.held_at, 3),
            }
        )
        del self._held[hold.transactional_id]
        if hold.mode == "replay":
            # Whoever wants to strike in the middle of this transaction has the time to.
            await asyncio.sleep(0.5)

    async def _deliver_apart(self, frame: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*self._upstream)
        try:
            writer.write(frames.framed(frame))
            (size,) = struct.unpack(">i", await reader.readexactly(4))
            return await reader.readexactly(size)
        finally:
            writer.close()


async def _serve(host: str, upstream: int, port: int) -> None:
    def tell(event: dict[str, object]) -> None:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()

    proxy = KafkaProxy(host, upstream, tell)
    tell({"event": "listening", "port": await proxy.start(port)})
    orders = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        order = json.loads(line)
        match order["do"]:
            case "hold":
                proxy.hold(order["mode"], order["match"])
            case "cut":
                tell({"event": "cut", "links": proxy.cut()})
            case "delay":
                proxy.delay_s = order["ms"] / 1000
            case "black_hole":
                proxy.black_hole = order["on"]
    await proxy.stop()


def main() -> None:
    """Serves until stdin ends, so that the proxy never outlives its test."""
    parser = argparse.ArgumentParser(description="A fault proxy before one Kafka broker.")
    parser.add_argument("--upstream", required=True, help="host:port as the broker advertises it")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    host, _, port = options.upstream.rpartition(":")
    asyncio.run(_serve(host, int(port), options.port))


if __name__ == "__main__":
    main()
