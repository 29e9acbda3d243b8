"""HTTP clients with 64 requests in flight: `python -m bench.http_clients`.

The server answers at once from a process of its own; each client posts the body that an adapter
makes and reads the whole answer.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Final

import aiohttp
import httpx
from pyreqwest.client import ClientBuilder

from bench.figures import Figure, show
from bench.ground import wait_until
from pipeline.local.ports import free_port

IN_FLIGHT: Final = 64
SIZES: Final = {"aiohttp": 3_000, "pyreqwest": 3_000, "httpx": 600}
ROUNDS: Final = 3
BODY: Final = b'{"to":"+4915112345678","text":"Your parcel is on its way.","reference":"' + (
    b"x" * 60 + b'"}'
)
HEADERS: Final = {"content-type": "application/json", "idempotency-key": "key-1"}

Post = Callable[[], Awaitable[None]]


async def many(post: Post, amount: int) -> tuple[float, float]:
    """Requests a second, and processor microseconds a request."""
    left = iter(range(amount))

    async def worker() -> None:
        for _ in left:
            await post()

    started, used = time.monotonic(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    took = time.monotonic() - started
    return amount / took, (time.process_time() - used) / amount * 1e6


async def measure(url: str) -> dict[str, list[tuple[float, float]]]:
    """All clients in turn, several rounds."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in SIZES}
    limits = httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT)) as session,
        ClientBuilder().build() as fast,
        httpx.AsyncClient(limits=limits) as slow,
    ):

        async def with_aiohttp() -> None:
            async with session.post(url, data=BODY, headers=HEADERS) as answer:
                await answer.read()

        async def with_pyreqwest() -> None:
            answer = await fast.post(url).headers(HEADERS).body_bytes(BODY).build().send()
            await answer.bytes()

        async def with_httpx() -> None:
            await slow.post(url, content=BODY, headers=HEADERS)

        ways = {"aiohttp": with_aiohttp, "pyreqwest": with_pyreqwest, "httpx": with_httpx}
        for number in range(ROUNDS + 1):
            for name, post in ways.items():
                took = await many(post, SIZES[name])
                if number:  # the first round opens the connections
                    found[name].append(took)
    return found


def main() -> int:
    """Prints the table."""
    port = free_port()
    with subprocess.Popen([sys.executable, "-m", "bench.provider", str(port)]) as server:
        try:
            wait_until(lambda: _listens(port), "the server", 20)
            found = asyncio.run(measure(f"http://127.0.0.1:{port}/v1/sms/messages"))
        finally:
            server.terminate()
    figures = []
    for name, rounds in found.items():
        figures.append(Figure(name, median(speed for speed, _ in rounds), "requests/s"))
        figures.append(Figure(f"{name}: processor", median(c for _, c in rounds), "us/request"))
    show(figures, f"HTTP clients, {IN_FLIGHT} in flight")
    return 0


def _listens(port: int) -> bool:
    try:
        httpx.post(f"http://127.0.0.1:{port}/", content=BODY, timeout=1.0)
    except httpx.HTTPError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
