"""The client of clients/python and the curl examples of the document, against a real gateway."""

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from clients.python.delivery_client import Away, DeliveryClient, Refused
from pipeline.runtime.kafka import Cluster
from tests.broker.api_world import (
    GOOD,
    SHOP,
    Caller,
    accepted,
    serving,
    store_of,
    stored,
    topics,
    written,
)

ROOT = Path(__file__).resolve().parents[2]
NOW = 1_800_000_000_000


class Place:
    """A gateway with its store, and a client of it."""

    def __init__(self, cluster: Cluster, url: str, caller: Caller) -> None:
        self.cluster, self.url, self.caller = cluster, url, caller
        self.client = DeliveryClient(f"http://127.0.0.1:{caller.port}/", SHOP.text)

    def ends(self, message_id: str) -> None:
        """The message gets its outcome."""
        outcome = {
            "tenant": "shop", "message_id": message_id, "event_id": f"o-{message_id}",
            "status": "delivered", "channel": "sms", "occurred_at": NOW,
        }  # fmt: skip
        stored(self.url, ("outcomes", "Outcome", outcome))


@pytest.fixture(scope="module")
def place(kafka: str, clickhouse_url: str) -> Iterator[Place]:
    cluster = Cluster(kafka, "client.")
    with topics(cluster), store_of(clickhouse_url) as url, serving(cluster, url) as caller:
        yield Place(cluster, url, caller)


def test_what_is_sent_is_taken_once_and_found_again(place: Place):
    one = place.client.send({**GOOD, "idempotency_key": "c-1"})
    many = place.client.send_all([{**GOOD, "idempotency_key": "c-1"}, GOOD, GOOD])
    assert one == many[0]
    assert len({sent.message_id for sent in many}) == 3
    kafka_has = {message["message_id"] for message in accepted(written(place.cluster, "intake"))}
    assert {sent.message_id for sent in many} <= kafka_has
    assert place.client.status(one.message_id) is None
    with pytest.raises(TimeoutError, match="not known"):
        place.client.wait(one.message_id, timeout_s=0.0)
    place.ends(one.message_id)
    assert place.client.wait(one.message_id, timeout_s=5)["status"] == "delivered"
    found = place.client.find("c-1", to="+4915112345678")
    assert found is not None
    assert found["message_id"] == one.message_id
    assert place.client.find("c-2", to="+4915112345678") is None


def test_mistakes_come_back_as_they_were_told(place: Place):
    with pytest.raises(Refused, match=r"message 1: to\.phone: .+; .+") as refused:
        place.client.send_all([GOOD, {**GOOD, "to": {"phone": "12"}}])
    assert (refused.value.status, refused.value.mistakes[0]["index"]) == (400, 1)
    with pytest.raises(Refused) as refused:
        DeliveryClient(place.client.url, "no-key").send(GOOD)
    assert (refused.value.status, refused.value.code) == (401, "no_key")


def test_an_answer_that_is_lost_is_asked_for_again_under_the_same_key():
    """The first two tries end in a cut connection and a 503."""
    with Flaky() as server:
        client = DeliveryClient(server.url, "k")
        assert client.send(GOOD).message_id == "m"
        keys = [body["messages"][0]["idempotency_key"] for body in server.bodies]
        assert len(keys) == 3
        assert len(set(keys)) == 1
        with pytest.raises(Away) as away:
            DeliveryClient(server.url, "k", tries=2).send(GOOD)
        assert away.value.messages[0]["idempotency_key"]
        with pytest.raises(Refused, match="302"):
            client.status("elsewhere")
        assert server.seen_elsewhere == 0


class Flaky:
    """Cuts off, says not now, takes it; then cuts off for good. Redirects every GET."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.seen_elsewhere = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                """Silent."""

            def do_POST(self) -> None:
                outer.bodies.append(
                    json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                )
                count = len(outer.bodies)
                if count == 2:
                    self.send_response(503)
                    self.send_header("Retry-After", "0")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                elif count == 3:
                    key = outer.bodies[-1]["messages"][0]["idempotency_key"]
                    told = {"messages": [{"message_id": "m", "idempotency_key": key}]}
                    raw = json.dumps(told).encode()
                    self.send_response(202)
                    self.send_header("Content-Length", str(len(raw)))
                    self.end_headers()
                    self.wfile.write(raw)
                self.close_connection = True

            def do_GET(self) -> None:
                if self.path == "/stolen":
                    outer.seen_elsewhere += 1
                self.send_response(302)
                self.send_header("Location", "/stolen")
                self.send_header("Content-Length", "0")
                self.end_headers()

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _examples() -> list[str]:
    text = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")
    return [block for block in re.findall(r"```\n(.*?)```", text, re.DOTALL) if "curl" in block]


def _path_with_curl(folder: Path) -> str:
    if not shutil.which("curl"):
        little = Path(__file__).with_name("little_curl.py")
        (folder / "curl").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{little}" "$@"\n')
        (folder / "curl").chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_the_curl_examples_of_the_document_work(place: Place, tmp_path: Path):
    """Each is run as it stands; the second half asks for what the first half sent."""
    answers = []
    for example in _examples():
        ids = [one["message_id"] for one in answers if "message_id" in one]
        found = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", example],
            env={
                **os.environ,
                "PATH": _path_with_curl(tmp_path),
                "URL": place.client.url.rstrip("/"),
                "KEY": SHOP.text,
                "ID": ids[0] if ids else "",
            },
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        answers.append(json.loads(found.stdout))
        if len(answers) == 1:
            place.ends(answers[0]["message_id"])
    one, batch, status, by_key = answers
    assert one["idempotency_key"] == "login-42"
    assert len(batch["messages"]) == 2
    assert status["message_id"] == by_key["message_id"] == one["message_id"]
    assert status["status"] == "delivered"


def test_the_python_example_of_the_document_runs(place: Place):
    text = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    given: dict[str, Any] = {"URL": place.client.url, "KEY": SHOP.text, "print": lambda *_: None}
    sending, _, asking = example.partition("print(")
    exec(sending, given)
    place.ends(given["sent"].message_id)
    exec(f"told = ({asking}", given)
    assert given["told"] == "delivered"
