"""What every part of the gateway's server needs: bounded bodies, plain headers, requests in hand."""

import asyncio
import contextlib
from collections.abc import Iterator

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from pipeline.domain.webhooks import Refusal

RETRY_AFTER_S = 5


class InHand:
    """How many requests are being answered."""

    def __init__(self) -> None:
        self.count = 0
        self._less = asyncio.Event()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Counts one request while it lasts."""
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1
            self._less.set()

    async def none(self) -> None:
        """Returns when nothing is in hand."""
        while self.count:
            self._less.clear()
            await self._less.wait()


async def read_body(request: web.Request, limit: int, timeout_s: float) -> bytes | Refusal:
    """The whole body, or the answer to one that is too long or too slow. The length that the
    sender claims only serves to refuse early."""
    if (request.content_length or 0) > limit:
        return Refusal(413, "body_too_large")
    parts = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for part in request.content.iter_any():
                parts += part
                if len(parts) > limit:
                    return Refusal(413, "body_too_large")
    except TimeoutError:
        return Refusal(408, "body_too_slow")
    except (ConnectionError, web.RequestPayloadError, HttpProcessingError):
        return Refusal(400, "body_cut_off")
    return bytes(parts)


def headers_of(request: web.Request) -> dict[str, str]:
    """Names in lower case; a name that comes twice has both values, so that neither hides."""
    found: dict[str, str] = {}
    for name, value in request.headers.items():
        lower = name.lower()
        found[lower] = f"{found[lower]}, {value}" if lower in found else value
    return found
