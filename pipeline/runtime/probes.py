"""A worker's own small HTTP port: /metrics, /healthz and /readyz.

It runs in threads of its own and only reads, so whoever asks, or stays silent, disturbs no message.
Where it listens stands in `<data>/metrics/<stage>-<slot>.json`, as Prometheus's file discovery
reads it.
"""

import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from pipeline.runtime import exposition
from pipeline.runtime.observe import Observe

log = logging.getLogger(__name__)

FOLDER: Final = "metrics"
"""Under the data directory."""

_ANSWER_S: Final = 5.0
"""For one request; who is slower is dropped."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a request that hangs does not hold up the end of the process

    def handle_error(self, request: object, client_address: object) -> None:
        """A scraper that goes away is its own business."""
        log.debug("a request for metrics ended early")


class Probes:
    """The port of one worker; `port` is where it listens. Use `close`."""

    def __init__(
        self,
        observed: Observe,
        stage: str,
        slot: int,
        address: tuple[str, int],
        data_dir: Path,
        reachable: Callable[[], bool],
    ) -> None:
        """Port 0 takes a free one. `reachable` says whether the brokers answer; it may block for
        a few seconds, and is asked when somebody asks for readiness.

        Raises:
            OSError: somebody listens there.
        """
        self._observed, self._reachable = observed, reachable
        self._common = {"stage": stage, "slot": str(slot)}
        self._server = _Server(address, _handler(self))
        self.port = self._server.server_address[1]
        self._file = data_dir / FOLDER / f"{stage}-{slot}.json"
        self._write(address[0])
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="probes"
        )
        self._thread.daemon = True
        self._thread.start()

    def _write(self, host: str) -> None:
        shown = "127.0.0.1" if host in {"", "0.0.0.0", "::"} else host  # noqa: S104 - compared
        found = [{"targets": [f"{shown}:{self.port}"], "labels": {"job": "delivery"}}]
        self._file.parent.mkdir(parents=True, exist_ok=True)
        scratch = self._file.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps(found) + "\n", encoding="utf-8")
        scratch.replace(self._file)  # a reader never finds half of it

    def answer(self, path: str) -> tuple[int, str, str]:
        """Status, content type and text for a path."""
        if path == "/metrics":
            text = exposition.text(self._observed.meters, self._common)
            return 200, exposition.CONTENT_TYPE, text
        if path == "/healthz":
            return _verdict(self._observed.live(), "ok")
        if path == "/readyz":
            missing = self._observed.ready()
            if not missing and not self._reachable():
                missing = "Kafka does not answer"
            return _verdict(missing, "ready")
        return 404, "text/plain", "there are /metrics, /healthz and /readyz\n"

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_ANSWER_S)
        with contextlib.suppress(OSError):
            self._file.unlink()


def _verdict(wrong: str, right: str) -> tuple[int, str, str]:
    return (503 if wrong else 200), "text/plain", f"{wrong or right}\n"


def _handler(probes: Probes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _ANSWER_S

        def do_GET(self) -> None:
            """One answer, then the connection ends."""
            status, kind, text = probes.answer(self.path.partition("?")[0])
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_words: object) -> None:
            """Nobody wants a line for each scrape."""

    return Handler
