"""A provider that takes everything at once, as cheaply as Python can serve it, so that what is
measured is the client: `python -m bench.provider PORT`."""

import asyncio
import sys
from typing import Final, Protocol

_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"
_KEY: Final = b"idempotency-key:"


class Wire(Protocol):
    """What takes the answers."""

    def write(self, data: bytes) -> object: ...


class Answering(asyncio.Protocol):
    """One connection, kept alive; answers 202 with an id for every request."""

    def __init__(self) -> None:
        self._buffer = b""
        self._wire: Wire | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.connect(transport)

    def connect(self, wire: Wire) -> None:
        """Where answers go."""
        self._wire = wire

    def data_received(self, data: bytes) -> None:
        assert self._wire is not None
        self._buffer += data
        while (end := self._buffer.find(_END)) >= 0:
            head = self._buffer[:end].lower()
            whole = end + len(_END) + int(_field(head, _LENGTH) or b"0")
            if len(self._buffer) < whole:
                return
            self._buffer = self._buffer[whole:]
            body = b'{"id":"id-' + _field(head, _KEY) + b'"}'
            self._wire.write(
                b"HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: "
                + str(len(body)).encode()
                + _END
                + body
            )


def _field(head: bytes, name: bytes) -> bytes:
    start = head.find(name)
    if start < 0:
        return b""
    end = head.find(b"\r\n", start)
    return head[start + len(name) : end if end >= 0 else len(head)].strip()


async def serve(port: int) -> None:
    """Serves on the loopback address until SIGTERM."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answering, "127.0.0.1", port, backlog=512)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
