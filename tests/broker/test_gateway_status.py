"""A message's status by HTTP: from the store, for its own tenant, and never in the way of the rest."""

import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from pipeline.domain import ids
from pipeline.runtime.kafka import Cluster
from tests.broker.api_world import (
    BANK,
    GOOD,
    PEPPER,
    Caller,
    serving,
    store_of,
    stored,
    topics,
)

AT = 1_800_000_000_000
KEY = ids.key_of(PEPPER, "shop", {"id": None, "phone": "+4915112345678", "email": None,
                                  "country": None})  # fmt: skip
MESSAGE = ids.message_id("shop", KEY, "order-1")
PATH = f"/v1/messages/{MESSAGE}"


def event(kind: str, at: int, **said: Any) -> tuple[str, str, dict[str, Any]]:
    value = {"tenant": "shop", "message_id": MESSAGE, "recipient_key": KEY, "event_id": kind}
    return kind, "Event", {**value, "kind": kind, "occurred_at": AT + at, **said}


@pytest.fixture
def cluster(kafka: str, prefix: str) -> Iterator[Cluster]:
    found = Cluster(kafka, prefix)
    with topics(found):
        yield found


def test_a_messages_status_and_story_are_told_to_its_tenant_alone(
    cluster: Cluster, clickhouse_url: str
):
    with store_of(clickhouse_url) as url, serving(cluster, url) as shop:
        unknown = shop.ask("GET", PATH)
        stored(url, event("dispatched", 100, channel="sms", provider="a", result="accepted"))
        waiting = shop.ask("GET", PATH)
        outcome = {
            "tenant": "shop", "message_id": MESSAGE, "event_id": "o", "status": "delivered",
            "channel": "sms", "provider": "a", "occurred_at": AT + 300, "cost": 0.05,
            "currency": "EUR", "reason": "delivered",
        }  # fmt: skip
        stored(url, event("delivered", 200, channel="sms"), ("outcomes", "Outcome", outcome))
        done = shop.ask("GET", PATH)
        query = f"?idempotency_key=order-1&to={quote('+4915112345678')}"
        by_key = shop.ask("GET", f"/v1/messages{query}")
        theirs = Caller(shop.port, BANK.text).ask("GET", PATH)
        badly = shop.ask("GET", "/v1/messages?idempotency_key=order-1")
        no_key = shop.ask("GET", PATH, headers={"Authorization": ""})
        odd = shop.ask("GET", "/v1/messages/%27%20OR%201=1")
        metrics = shop.ask("GET", "/metrics").body.decode()
    assert (unknown.status, unknown.json["code"]) == (404, "not_found")
    assert (waiting.status, waiting.json["status"], waiting.json["waits_for"]) == (
        200, "dispatched", "receipt",
    )  # fmt: skip
    assert done.status == 200
    assert (done.json["status"], done.json["final"], done.json["cost"]) == ("delivered", True, 0.05)
    assert [line["event"] for line in done.json["events"]] == [
        "dispatched", "delivered", "outcomes",
    ]  # fmt: skip
    assert by_key.json == done.json
    assert theirs.status == odd.status == 404
    assert (badly.status, badly.json["mistakes"][0]["field"]) == (400, "to")
    assert no_key.status == 401
    assert 'lookups_total{result="found"} 3' in metrics


def test_clickhouse_away_is_said_and_nothing_else_stops(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://user:hunter2@127.0.0.1:{closed.getsockname()[1]}/d"
        with serving(cluster, url) as shop:
            answer = shop.ask("GET", PATH)
            assert (answer.status, answer.json["code"]) == (503, "store_away")
            assert int(answer.headers["retry-after"]) >= 1
            assert shop.post(GOOD).status == 202
        with serving(cluster, "") as shop:
            assert shop.ask("GET", PATH).status == 503
    assert "hunter2" not in caplog.text


def test_a_store_that_hangs_holds_up_nobody_who_sends(cluster: Cluster):
    """It takes connections and never answers; the question is given up after its time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/d"
        with serving(cluster, url) as shop:
            held = Asking(shop)
            assert shop.post(GOOD).status == 202
            assert held.answer().status == 503


class Asking:
    """A question that is asked on a thread of its own."""

    def __init__(self, caller: Caller) -> None:
        import threading

        self._found: list[Any] = []
        self._thread = threading.Thread(target=lambda: self._found.append(caller.ask("GET", PATH)))
        self._thread.start()

    def answer(self) -> Any:
        self._thread.join(15)
        return self._found[0]
