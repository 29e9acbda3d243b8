"""Jars are locked: what is in the cache is right, complete, and enough without a network."""

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from pipeline.local import cache
from pipeline.local.cache import Jar, Unavailable, kafka_jars, locked_jars

CONTENT = {"one": b"first jar" * 1000, "two": b"second jar" * 500}


class Repository(BaseHTTPRequestHandler):
    """A Maven repository with two jars; `broken` names what it sends cut or wrong, and how often."""

    broken: ClassVar[dict[str, int]] = {}
    served: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1].removesuffix("-1.0.jar")
        if name not in CONTENT:
            self.send_error(404)
            return
        type(self).served.append(name)
        body = CONTENT[name]
        if self.broken.get(name, 0) > 0:
            self.broken[name] -= 1
            body = body[: len(body) // 2] + b"?" * (len(body) - len(body) // 2)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing to say."""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Repository]]:
    from jgo.maven import _core

    server = ThreadingHTTPServer(("127.0.0.1", 0), Repository)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(_core, "DEFAULT_REMOTE_REPOS", {"here": address})
    jars = [
        Jar("org.example", name, "1.0", hashlib.sha256(body).hexdigest(), len(body))
        for name, body in CONTENT.items()
    ]
    monkeypatch.setattr(cache, "locked_jars", lambda _lock_file: jars)
    Repository.broken, Repository.served = {}, []
    yield Repository
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_first_call_shows_progress_and_the_second_needs_no_network(
    repository: type[Repository], tmp_path: Path
) -> None:
    lines: list[str] = []
    folder = kafka_jars(lines.append, tmp_path)
    assert (folder / "one-1.0.jar").read_bytes() == CONTENT["one"]
    assert any("100 %" in line for line in lines)
    repository.served.clear()
    lines.clear()
    assert kafka_jars(lines.append, tmp_path) == folder
    assert repository.served == []
    assert lines == []


def test_an_interrupted_download_is_repeated(repository: type[Repository], tmp_path: Path) -> None:
    folder = kafka_jars(lambda _: None, tmp_path)
    (folder / "one-1.0.jar").write_bytes(CONTENT["one"][:100])
    repository.served.clear()
    kafka_jars(lambda _: None, tmp_path)
    assert (folder / "one-1.0.jar").read_bytes() == CONTENT["one"]
    assert repository.served == ["one"]


def test_wrong_bytes_are_never_used(repository: type[Repository], tmp_path: Path) -> None:
    repository.broken["two"] = 1
    folder = kafka_jars(lambda _: None, tmp_path)
    assert (folder / "two-1.0.jar").read_bytes() == CONTENT["two"]
    repository.broken["two"] = 99
    (folder / "two-1.0.jar").unlink()
    with pytest.raises(Unavailable, match="two-1.0.jar could not be fetched: its SHA-256"):
        kafka_jars(lambda _: None, tmp_path)
    assert not (folder / "two-1.0.jar").exists()
    assert not list(folder.glob(".fetch-*"))


def test_the_real_list_names_kafka_and_every_hash() -> None:
    jars = locked_jars()
    assert ("kafka_2.13", "4.3.1") in {(jar.artifact, jar.version) for jar in jars}
    assert all(len(jar.sha256) == 64 and jar.size > 0 for jar in jars)
    assert len({jar.name for jar in jars}) == len(jars)
