"""The sender against real sockets: what certainly did not leave, and what may have."""

import asyncio
import contextlib
import socket
import ssl
import struct
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pipeline.domain.ports import HttpReply, HttpRequest
from pipeline.domain.ports_dispatch import Answered, NotSent, Unclear
from pipeline.runtime import sender as module
from pipeline.runtime.sender import HttpSender

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\nX-Own-Id: 7\r\n\r\n{}"


def ask(
    handler: Handler | None, *, times: int = 1, timeout_ms: int = 1_000, **parts: object
) -> list[Answered]:
    """What the sender says of a request to a server that behaves like `handler`."""
    return asyncio.run(_ask(handler, times, timeout_ms, parts))


async def _ask(
    handler: Handler | None, times: int, timeout_ms: int, parts: dict[str, object]
) -> list[Answered]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert handler is not None
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = (
        await asyncio.start_server(serve, "127.0.0.1", 0, ssl=parts.get("tls")) if handler else None
    )
    port = server.sockets[0].getsockname()[1] if server else parts.get("port")
    url = str(parts.get("url") or f"{parts.get('scheme', 'http')}://127.0.0.1:{port}/v1/messages")
    sender = HttpSender()
    body = bytes(parts.get("body") or b'{"to":"x"}')  # type: ignore[call-overload]
    request = HttpRequest("POST", url, {"content-type": "application/json"}, body)
    try:
        return [await sender.send(request, timeout_ms) for _ in range(times)]
    finally:
        await sender.close()
        if server:
            server.close()


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length")
    )
    return head, await reader.readexactly(length)


def answering(raw: bytes, *, then_close: bool = False) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(raw)
            await writer.drain()
            if then_close:
                return

    return handler


def reset(writer: asyncio.StreamWriter) -> None:
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def test_an_answer_comes_with_small_header_names_and_its_body() -> None:
    (reply,) = ask(answering(OK))
    assert isinstance(reply, HttpReply)
    assert (reply.status, reply.body, reply.truncated) == (202, b"{}", False)
    assert reply.headers["x-own-id"] == "7"


def test_connections_are_kept_alive() -> None:
    opened = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(1)
        await answering(OK)(reader, writer)

    assert len(ask(handler, times=5)) == 5
    assert len(opened) == 1


def test_the_request_goes_out_as_it_was_built() -> None:
    seen: list[tuple[bytes, bytes]] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(OK)

    ask(handler, body=b'{"to":"\xc3\xa4"}')
    ((head, body),) = seen
    assert head.startswith(b"POST /v1/messages HTTP/1.1\r\n")
    assert b"content-type: application/json" in head.lower()
    assert b"accept-encoding" not in head.lower(), "a compressed answer could be a bomb"
    assert body == b'{"to":"\xc3\xa4"}'


def test_redirects_are_not_followed() -> None:
    raw = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
    (reply,) = ask(answering(raw))
    assert isinstance(reply, HttpReply)
    assert reply.status == 302


# certainly not sent


def test_a_refused_connection_was_not_sent() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert ask(None, port=taken.getsockname()[1]) == [NotSent("connect_refused")]


def test_a_name_that_does_not_exist_was_not_sent() -> None:
    assert ask(None, url="http://no-such-host.invalid/") == [NotSent("dns")]


@pytest.mark.parametrize("url", ["no address", "http://", "ftp://127.0.0.1/x"])
def test_an_address_that_is_none_was_not_sent(url: str) -> None:
    (answer,) = ask(None, url=url)
    assert isinstance(answer, NotSent)


def test_a_server_that_does_not_accept_was_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 0.3)
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # fill the queue of connections that nobody accepts
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(full.getsockname())
        assert ask(None, port=full.getsockname()[1]) == [NotSent("connect_timeout")]


def test_a_failed_handshake_was_not_sent(tmp_path: Path) -> None:
    """Neither to a stranger's certificate nor to a server that speaks no TLS."""
    files = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [*command.split(" "), "-keyout", str(files[0]), "-out", str(files[1])],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files[1], files[0])
    assert ask(answering(OK), tls=context, scheme="https") == [NotSent("tls")]

    async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    (answer,) = ask(hangs_up, scheme="https")
    assert isinstance(answer, NotSent)


# may have been sent


def test_a_reset_after_the_body_is_unclear() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        reset(writer)

    assert ask(handler) == [Unclear("connection_reset")]


def test_a_reset_in_the_middle_of_the_body_is_unclear() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        reset(writer)

    (answer,) = ask(handler, body=b"x" * 3_000_000)
    assert isinstance(answer, Unclear)


def test_a_close_without_an_answer_is_unclear() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)

    assert ask(handler) == [Unclear("connection_closed")]


def test_a_server_that_never_answers_is_unclear_after_the_time() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await asyncio.sleep(30)

    assert ask(handler, timeout_ms=300) == [Unclear("timeout")]


def test_an_answer_in_drips_ends_with_the_time() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        for _ in range(1_000):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    assert ask(handler, timeout_ms=400) == [Unclear("timeout")]


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of it",
        b"\x00\x01\x02 no http\r\n\r\n",
        b"HTTP/1.1 2",
    ],
)
def test_a_broken_answer_is_unclear(raw: bytes) -> None:
    (answer,) = ask(answering(raw, then_close=True))
    assert isinstance(answer, Unclear)


# strange and whole


def test_html_is_an_answer() -> None:
    page = b"<html>Bad gateway</html>"
    raw = b"HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: 24\r\n\r\n"
    (reply,) = ask(answering(raw + page))
    assert isinstance(reply, HttpReply)
    assert (reply.status, reply.body) == (502, page)


def test_of_ten_megabytes_only_the_first_part_is_kept() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n")
        for _ in range(100):
            writer.write(b"x" * 100_000)
            await writer.drain()

    (reply,) = ask(handler, timeout_ms=3_000)
    assert isinstance(reply, HttpReply)
    assert reply.truncated
    assert len(reply.body) == module.MAX_ANSWER
