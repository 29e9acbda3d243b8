"""A schema registry with Confluent's interface, small, in memory, over real HTTP."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class RegistryServer(ThreadingHTTPServer):
    """`subjects` by name, `schemas` by id, `requests` as they came; `failing` is the status that
    every request gets instead of an answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.subjects: dict[str, list[int]] = {}
        self.schemas: dict[int, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.failing: tuple[int, bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, schema: str, kind: str = "AVRO") -> int:
        for found, held in self.schemas.items():
            if held["schema"] == schema:
                return found
        number = 1_000 + len(self.schemas)
        self.schemas[number] = {"schema": schema, "schemaType": kind}
        return number


class _Handler(BaseHTTPRequestHandler):
    server: RegistryServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one write for head and body, so that no acknowledgement is waited for

    def log_message(self, *args: object) -> None:
        """Silence: the tests look at `requests`."""

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _begin(self) -> bytes | None:
        """The request's body, or None when it was answered already."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append(f"{self.command} {self.path}")
        if self.server.failing is not None:
            self._answer(*self.server.failing)
            return None
        return body

    def do_POST(self) -> None:
        body = self._begin()
        if body is None:
            return
        subject = self.path.removeprefix("/subjects/").removesuffix("/versions")
        number = self.server.add(json.loads(body)["schema"])
        self.server.subjects.setdefault(subject, []).append(number)
        self._answer(200, json.dumps({"id": number}).encode())

    def do_GET(self) -> None:
        if self._begin() is None:
            return
        if self.path == "/config":
            self._answer(200, b'{"compatibilityLevel": "BACKWARD"}')
            return
        held = self.server.schemas.get(int(self.path.rpartition("/")[2]))
        if held is None:
            self._answer(404, b'{"error_code": 40403, "message": "Schema not found"}')
        else:
            shown = {k: v for k, v in held.items() if (k, v) != ("schemaType", "AVRO")}
            self._answer(200, json.dumps(shown).encode())


@contextmanager
def serving() -> Iterator[RegistryServer]:
    server = RegistryServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
