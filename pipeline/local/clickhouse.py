"""The embedded ClickHouse: one process owns chDB, the ClickHouse engine as a library, and speaks
ClickHouse's HTTP interface for everybody else, on the loopback address.

It covers what clients use: `/ping`, queries in URL or body, settings and `param_` values as URL
parameters, inserts in any format with compressed or chunked bodies, error codes in headers. Each
request has an engine connection of its own (0.3 ms), so that no setting outlives it. There are no
users; a browser's request (one with `Origin`, or for another host) is refused.
"""

import argparse
import asyncio
import contextlib
import fcntl
import gzip
import importlib
import json
import logging
import re
import signal
import subprocess
import sys
import time
import urllib.request
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

from pipeline.local import tether
from pipeline.local.ports import HOST, claim

START_TIMEOUT_S: Final = 180.0  # seconds on an idle machine; the rest is for crowded ones
MAX_BODY: Final = 512 * 1024 * 1024
_THREADS: Final = 8  # requests inside the engine at once; the rest wait

# Parameters that mean something to the interface and nothing to the engine.
_NO_SETTINGS: Final = frozenset(
    {
        "query", "database", "user", "password", "session_id", "session_timeout", "session_check",
        "query_id", "quota_key", "default_format", "compress", "decompress", "buffer_size",
        "wait_end_of_query", "client_protocol_version", "role", "send_progress_in_http_headers",
        "http_headers_progress_interval_ms", "enable_http_compression", "close_session",
        "cancel_http_readonly_queries_on_client_close", "stacktrace",
    }
)  # fmt: skip
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INSERT: Final = re.compile(
    rb"\s*(INSERT\s+INTO\b[^;]*?)\s+FORMAT\s+(\w+)[ \t]*;?[ \t]*(?:\r?\n|\s|$)",
    re.IGNORECASE | re.DOTALL,
)
_CODE: Final = re.compile(r"Code: (\d+)\.")
_STATUS: Final[Mapping[int, int]] = {62: 400, 46: 404, 60: 404, 81: 404, 115: 404, 164: 403}
_STATUS_ELSE: Final = 500


class StartError(RuntimeError):
    """The engine did not come up; the text has the end of its log."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back for one request."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Engine:
    """The engine and the meaning of one request to it; any thread may call `run`."""

    def __init__(self, data: Path) -> None:
        self._path = str(data)
        self._held = _connect(self._path)  # keeps the engine open between requests

    def run(self, params: Mapping[str, str], body: bytes, *, read_only: bool) -> Answer:
        """One request; never raises."""
        started = time.monotonic()
        connection = _connect(self._path)
        try:
            self._prepare(connection, params, read_only=read_only)
            payload, counts = _execute(connection, params, body)
        except Exception as error:  # noqa: BLE001 - the engine raises many; each is an answer
            return _failure(error)
        finally:
            connection.close()
        counts["elapsed_ns"] = str(int((time.monotonic() - started) * 1e9))
        return Answer(200, payload, {"X-ClickHouse-Summary": json.dumps(counts)})

    def close(self) -> None:
        """Writes out and lets the data go."""
        self._held.close()

    @staticmethod
    def _prepare(connection: Any, params: Mapping[str, str], *, read_only: bool) -> None:
        if database := params.get("database"):
            connection.query(f"USE `{database.replace('`', '')}`")
        settings = {
            name: value
            for name, value in params.items()
            if name not in _NO_SETTINGS and not name.startswith("param_") and _NAME.fullmatch(name)
        }
        # `readonly` last, because it forbids the others.
        mode = settings.pop("readonly", "2" if read_only else "")
        if mode and mode != "0":
            settings["readonly"] = mode
        if settings:
            connection.query("SET " + ", ".join(f"{k} = {_quote(v)}" for k, v in settings.items()))


def _connect(path: str) -> Any:
    engine: Any = importlib.import_module("chdb")  # 0.5 s, and typed only half
    return engine.connect(path)


def _execute(
    connection: Any, params: Mapping[str, str], body: bytes
) -> tuple[bytes, dict[str, str]]:
    query = params.get("query", "").encode()
    text = query + b"\n" + body if query and body else query or body
    if not text.strip():
        raise ValueError("Code: 62. DB::Exception: Empty query. (SYNTAX_ERROR)")
    insert = _INSERT.match(text)
    if insert:
        stream = connection.send_insert(insert[1].decode(), format=insert[2].decode())
        try:
            stream.append(text[insert.end() :])
            done = stream.finish()
        except BaseException:
            with contextlib.suppress(Exception):
                stream.cancel()
            raise
        return b"", {
            "written_rows": str(done.rows_written), "written_bytes": str(done.bytes_written)
        }  # fmt: skip
    bound = {name[6:]: value for name, value in params.items() if name.startswith("param_")}
    result = connection.query(
        text.decode("utf-8", "surrogateescape"),
        params.get("default_format", "TabSeparated"),
        params=bound or None,
    )
    return result.bytes() or b"", {
        "read_rows": str(result.rows_read()), "read_bytes": str(result.bytes_read()),
        "written_rows": str(result.rows_written()), "written_bytes": str(result.bytes_written()),
    }  # fmt: skip


def _quote(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _failure(error: Exception) -> Answer:
    text = str(error)
    found = _CODE.search(text)
    text = text[found.start() :] if found else f"Code: 1002. DB::Exception: {text}"
    code = int(found[1]) if found else 1002
    return Answer(
        _STATUS.get(code, _STATUS_ELSE),
        text.strip().encode() + b"\n",
        {"X-ClickHouse-Exception-Code": str(code)},
    )


def _decompress(body: bytes, encoding: str) -> bytes:
    if encoding in {"", "identity"}:
        return body
    if encoding == "gzip":
        return gzip.decompress(body)
    if encoding == "deflate":
        return zlib.decompress(body)
    if encoding == "lz4":
        return _decompress_lz4(body)
    if encoding == "zstd":
        from backports import zstd

        return bytes(zstd.decompress(body))
    raise ValueError(f"content encoding {encoding!r} is not one of gzip, deflate, lz4, zstd")


def _decompress_lz4(body: bytes) -> bytes:
    """All frames of the body: clients write one per block, and the library reads only the first."""
    import lz4.frame

    parts = []
    while body:
        frame = lz4.frame.LZ4FrameDecompressor()
        parts.append(frame.decompress(body))
        if not frame.eof:
            raise ValueError("the lz4 frame is cut off")
        body = frame.unused_data or b""
    return b"".join(parts)


class Front:
    """The HTTP side."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="engine")

    def application(self) -> web.Application:
        """What aiohttp serves."""
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_get("/ping", self._ping)
        app.router.add_get("/replicas_status", self._ping)
        app.router.add_route("*", "/", self._request)
        return app

    async def _ping(self, _: web.Request) -> web.Response:
        return web.Response(text="Ok.\n")

    async def _request(self, request: web.Request) -> web.Response:
        host = request.host.rsplit(":", 1)[0]
        if "Origin" in request.headers or host not in {HOST, "localhost"}:
            return web.Response(status=403, text="Only programs on this machine are served.\n")
        params = dict(request.query)
        body = b""
        try:
            if request.content_type == "multipart/form-data":
                params |= {name: str(value) for name, value in (await request.post()).items()}
            else:
                encoding = request.headers.get("Content-Encoding", "").lower()
                body = _decompress(await request.read(), encoding)
        except web.HTTPException:
            raise  # too large
        except Exception as error:  # noqa: BLE001 - whatever the codec raises is the sender's doing
            return web.Response(status=400, text=f"The body cannot be read: {error}\n")
        if not body and "query" not in params:
            return web.Response(text="Ok.\n")
        answer = await asyncio.get_running_loop().run_in_executor(
            self._threads,
            lambda: self._engine.run(params, body, read_only=request.method in {"GET", "HEAD"}),
        )
        return web.Response(
            status=answer.status,
            body=answer.body,
            headers={
                "Content-Type": "application/octet-stream",
                "X-ClickHouse-Query-Id": params.get("query_id", ""),
                "X-ClickHouse-Timezone": "UTC",
                "X-ClickHouse-Server-Display-Name": "embedded",
                **answer.headers,
            },
        )


async def serve(data: Path, port: int) -> None:
    """Serves until SIGTERM or SIGINT."""
    engine = Engine(data)
    runner = web.AppRunner(
        Front(engine).application(), access_log=None, auto_decompress=False, shutdown_timeout=10.0
    )
    await runner.setup()
    await web.TCPSite(runner, HOST, port, reuse_address=True).start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await runner.cleanup()
    engine.close()


class EmbeddedClickHouse:
    """The embedded engine as a process of ours. `stop`, `kill` and `start` again keep data and
    port; `url` is what CLICKHOUSE_URL would say."""

    def __init__(self, data: Path, port: int = 0) -> None:
        """Nothing happens yet. `port` 0 takes a free one.

        Raises:
            PortTaken: somebody listens on `port`.
        """
        self.data = data
        self.port = claim(port, "The embedded ClickHouse", "--clickhouse-port")
        self.url = f"http://{HOST}:{self.port}"
        self.log = data / "clickhouse.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            RuntimeError: it does not run.
        """
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError("the embedded ClickHouse does not run")
        return self._process.pid

    def start(self) -> None:
        """Starts it and waits until it answers a query.

        Raises:
            StartError: it ended, or did not answer in time.
        """
        self._process = tether.spawn(
            [sys.executable, "-m", __name__, "--port", str(self.port), "--data", str(self.data)],
            log=self.log,
        )
        until = time.monotonic() + START_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < until:
            if _answers(self.url):
                return
            time.sleep(0.05)
        self.kill()
        end = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
        raise StartError(f"The embedded ClickHouse did not come up. The end of {self.log}:\n{end}")

    def stop(self) -> None:
        """Ends it cleanly; does nothing when it is gone."""
        if self._process is not None:
            tether.stop(self._process)
            self._process = None

    def kill(self) -> None:
        """Ends it as kill -9 does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ping", timeout=2.0) as reply:  # noqa: S310 - our own
            return bool(reply.status == 200)
    except OSError:
        return False


def main() -> None:
    """`python -m pipeline.local.clickhouse --port N --data DIR`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    arguments.data.mkdir(parents=True, exist_ok=True)
    with (arguments.data / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"{arguments.data} is in use by another embedded ClickHouse")
        asyncio.run(serve(arguments.data / "engine", arguments.port))


if __name__ == "__main__":
    main()
