"""HTTP to providers: one request, one answer, and certainty about what did not leave.

What failed before a connection stood was certainly not sent. Everything after that may have been.
The client's exception classes do not tell the two apart (a black hole after the body is reported
as a connect timeout), but the chain of causes does: only the connecting step puts its own mark
there. Without the mark the request counts as possibly sent, which is the safe side.
"""

import asyncio
import logging
from datetime import timedelta
from functools import lru_cache
from typing import Final, Protocol

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import BuilderError, PyreqwestError

from pipeline.domain.ports import HttpReply, HttpRequest
from pipeline.domain.ports_dispatch import Answered, NotSent, Unclear

log = logging.getLogger(__name__)

MAX_ANSWER: Final = 256 * 1024
"""Bytes of an answer that are kept; no provider needs more, and a hostile one could send it all."""

CONNECT_TIMEOUT_S: Final = 2.0
IDLE_S: Final = 4.0
"""Kept-alive connections are dropped after this: some servers close them after 5 s, and a request
that meets the closing is an unknown answer."""

LET_GO_S: Final = 0.1

_CONNECTING: Final = "client error (Connect)"
_CODES: Final = (
    ("dns error", "dns"),
    ("certificate", "tls"),
    ("tls", "tls"),
    ("timed out", "connect_timeout"),
    ("deadline", "connect_timeout"),
    ("refused", "connect_refused"),
)


class Sender(Protocol):
    """What the loop needs of an HTTP client."""

    async def send(self, request: HttpRequest, timeout_ms: int) -> Answered:
        """One request without retries or redirects; never raises but for cancellation."""
        ...

    async def close(self) -> None:
        """Drops the connections."""
        ...


class HttpSender:
    """Keeps connections alive, per host. Belongs to one event loop."""

    def __init__(self, *, max_answer: int = MAX_ANSWER) -> None:
        self._max_answer = max_answer
        self._client: Client = (
            ClientBuilder()
            .follow_redirects(False)
            .no_proxy()
            .referer(False)
            .gzip(False)
            .brotli(False)
            .zstd(False)
            .deflate(False)
            .user_agent("delivery-pipeline")
            .connect_timeout(timedelta(seconds=CONNECT_TIMEOUT_S))
            .pool_idle_timeout(timedelta(seconds=IDLE_S))
            .build()
        )

    async def send(self, request: HttpRequest, timeout_ms: int) -> Answered:
        """See the port."""
        try:
            prepared = (
                self._client.request(request.method, request.url)
                .headers(dict(request.headers))
                .body_bytes(request.body)
                .timeout(_span(timeout_ms))
                .build_streamed()
            )
        except (PyreqwestError, ValueError, TypeError) as error:
            log.warning("request to %s cannot be built: %s", request.url, type(error).__name__)
            return NotSent("bad_request")
        try:
            async with prepared as response:
                body = await response.body_reader.read(self._max_answer + 1)
                kept = bytes(body) if body is not None else b""
                return HttpReply(
                    status=response.status,
                    headers=dict(response.headers.items()),
                    body=kept[: self._max_answer],
                    truncated=len(kept) > self._max_answer,
                )
        except PyreqwestError as error:
            return classify(error)

    async def close(self) -> None:
        """Drops the connections."""
        await self._client.close()
        # The client's own thread lets go of Python's objects a moment later; an interpreter that
        # is gone by then aborts the process.
        await asyncio.sleep(LET_GO_S)


@lru_cache(maxsize=64)
def _span(timeout_ms: int) -> timedelta:
    return timedelta(milliseconds=timeout_ms)


def classify(error: PyreqwestError) -> NotSent | Unclear:
    """Whether the request can have left."""
    details = getattr(error, "details", None) or {}
    causes = [str(cause["message"]) for cause in details.get("causes") or ()]
    text = " / ".join(causes).lower()
    if isinstance(error, BuilderError):
        return NotSent("bad_request")
    if _CONNECTING in causes:
        return NotSent(next((code for mark, code in _CODES if mark in text), "connect_failed"))
    if "timed out" in text:
        return Unclear("timeout")
    if "reset" in text or "broken pipe" in text:
        return Unclear("connection_reset")
    if "closed" in text or "end of file" in text or "eof" in text:
        return Unclear("connection_closed")
    return Unclear("bad_answer")
