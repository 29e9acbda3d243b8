"""The HTTP API against a real broker: 202 means that Kafka has it, and nothing else is 202."""

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.domain.ports_api import API_BODY_LIMIT, MAX_BATCH
from pipeline.runtime.kafka import Cluster
from tests.broker.api_world import (
    BANK,
    GOOD,
    SHOP,
    Caller,
    accepted,
    serving,
    together,
    topics,
    written,
)
from tests.waiting import until

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def cluster(kafka: str, prefix: str) -> Iterator[Cluster]:
    found = Cluster(kafka, prefix)
    with topics(found):
        yield found


def test_a_message_is_in_kafka_when_it_is_taken_and_has_the_id_that_was_told(cluster: Cluster):
    with serving(cluster) as shop:
        answer = shop.post({**GOOD, "idempotency_key": "order-1"}, {"traceparent": TRACE})
        assert (answer.status, answer.headers["content-type"]) == (202, "application/json")
        (record,) = written(cluster, "intake")
        again = shop.post({**GOOD, "idempotency_key": "order-1"})
        other = Caller(shop.port, BANK.text).post({**GOOD, "idempotency_key": "order-1"})
    (message,) = accepted([record])
    assert answer.json == {"message_id": message["message_id"], "idempotency_key": "order-1"}
    assert message["tenant"] == "shop"
    assert record.key == message["recipient_key"].encode()
    assert dict(record.headers)["traceparent"] == TRACE.encode()
    assert again.json == answer.json
    assert other.json["message_id"] != answer.json["message_id"]
    assert [one["tenant"] for one in accepted(written(cluster, "intake"))] == [
        "shop", "shop", "bank",
    ]  # fmt: skip


def test_a_batch_is_taken_in_order_and_bulk_goes_its_own_way(cluster: Cluster):
    batch = [{**GOOD, "priority": "bulk" if n % 2 else "urgent"} for n in range(MAX_BATCH)]
    with serving(cluster) as shop:
        answer = shop.post({"messages": batch})
    assert answer.status == 202
    told = answer.json["messages"]
    assert [one["idempotency_key"] for one in told] == [f"made-{n}" for n in range(MAX_BATCH)]
    urgent, bulk = accepted(written(cluster, "intake")), accepted(written(cluster, "intake.bulk"))
    assert [one["message_id"] for one in urgent] == [one["message_id"] for one in told[::2]]
    assert [one["message_id"] for one in bulk] == [one["message_id"] for one in told[1::2]]
    assert {one["priority"] for one in bulk} == {"bulk"}


def test_nothing_of_a_batch_with_a_mistake_is_written_and_each_is_named(cluster: Cluster):
    batch: list[Any] = [GOOD] * 200
    batch[1] = {**GOOD, "to": {"phone": "12"}}
    batch[3] = "text"
    batch[150:] = [{**GOOD, "txt": "x"}] * 50
    with serving(cluster) as shop:
        answer = shop.post({"messages": batch})
        many = shop.post({"messages": ["text"] * MAX_BATCH})
    assert answer.status == 400
    assert answer.headers["content-type"].startswith("application/problem+json")
    problem = answer.json
    assert problem["code"] == "bad_request"
    assert problem["detail"] == "52 of 200 cannot be taken; nothing was written"
    assert [(one["index"], one["field"]) for one in problem["mistakes"]][:3] == [
        (1, "to.phone"), (3, "body"), (150, "txt"),
    ]  # fmt: skip
    assert len(problem["mistakes"]) == 52
    assert all(one["cause"] and one["cure"] and one["code"] for one in problem["mistakes"])
    assert len(many.json["mistakes"]) == 100
    assert "1000 of 1000 cannot be taken (the first 100 are listed)" in many.json["detail"]
    assert written(cluster, "intake") == written(cluster, "intake.bulk") == []


def test_every_other_answer_says_why(cluster: Cluster):
    with serving(cluster) as shop:
        stranger = Caller(shop.port, SHOP.text[:-1] + "x")
        found = {
            "no_key": stranger.post(GOOD),
            "no_key ": shop.post(GOOD, {"Authorization": ""}),
            "media_type": shop.post(GOOD, {"Content-Type": "text/plain"}),
            "media_type ": shop.post(GOOD, {"Content-Encoding": "gzip"}),
            "media_type  ": shop.post(GOOD, {"Content-Type": ""}),
            "body_too_large": shop.post(b"x" * (API_BODY_LIMIT + 1)),
            "bad_request": shop.post(b"{"),
        }
        utf8 = shop.post(GOOD, {"Content-Type": "application/json; charset=utf-8"})
        metrics = shop.ask("GET", "/metrics").body.decode()
        assert shop.ask("DELETE", "/v1/messages").status == 405
    assert utf8.status == 202
    statuses = {name.strip(): answer.status for name, answer in found.items()}
    assert statuses == {
        "no_key": 401, "media_type": 415, "body_too_large": 413, "bad_request": 400,
    }  # fmt: skip
    for name, answer in found.items():
        assert answer.json["code"] == name.strip()
        assert answer.json["status"] == answer.status
        assert answer.json["title"]
        assert answer.json["detail"]
    assert found["no_key"].headers["www-authenticate"] == "Bearer"
    assert found["bad_request"].json["mistakes"][0]["code"] == "not_json"
    counts = dict(re.findall(r'api_messages_total\{result="(\w+)"\} (\d+)', metrics))
    assert counts == {
        "taken": "1", "no_key": "2", "media_type": "3", "body_too_large": "1", "bad_request": "1",
    }  # fmt: skip
    assert len(written(cluster, "intake")) == 1


def test_a_tenant_that_holds_many_requests_open_leaves_room_for_others(cluster: Cluster):
    head = (
        f"POST /v1/messages HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {SHOP.text}\r\n"
        "Content-Type: application/json\r\nContent-Length: 9\r\n\r\n1"
    )
    with serving(cluster, api_in_flight=4) as shop:
        held = [socket.create_connection(("127.0.0.1", shop.port), 10) for _ in range(2)]
        for link in held:
            link.sendall(head.encode())
        busy = until(lambda: (answer := shop.post(GOOD)).status == 429 and answer)
        assert busy
        assert busy.json["code"] == "busy"
        assert int(busy.headers["retry-after"]) >= 1
        assert Caller(shop.port, BANK.text).post(GOOD).status == 202
        for link in held:
            link.close()
        until(lambda: shop.post(GOOD).status == 202)


def test_without_kafka_the_answer_is_later_and_names_the_keys_to_repeat(
    caplog: pytest.LogCaptureFixture,
):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = Cluster(f"127.0.0.1:{closed.getsockname()[1]}", "x.")
        with serving(nobody, acknowledge_ms=500) as shop:
            answer = shop.post({"messages": [GOOD, {**GOOD, "idempotency_key": "mine"}]})
            assert answer.status == 503
            assert answer.json["code"] == "kafka_away"
            keys = [one["idempotency_key"] for one in answer.json["messages"]]
            assert keys == ["made-0", "mine"]
            assert int(answer.headers["retry-after"]) >= 1
            assert shop.ask("GET", "/healthz").status == 200
    assert GOOD["content"]["text"] not in caplog.text  # type: ignore[index]


def test_a_caller_who_goes_away_loses_nothing_and_ten_thousand_wrong_requests_are_borne(
    cluster: Cluster,
):
    body = json.dumps({**GOOD, "idempotency_key": "gone"}).encode()
    head = (
        f"POST /v1/messages HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {SHOP.text}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with serving(cluster) as shop:
        link = socket.create_connection(("127.0.0.1", shop.port), 10)
        link.sendall(head.encode() + body)
        link.close()
        until(lambda: len(written(cluster, "intake")) == 1)
        wrong = b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        with socket.create_connection(("127.0.0.1", shop.port), 10) as link:
            answers = 0
            for _ in range(50):
                link.sendall(wrong * 200)
                seen = b""
                while seen.count(b"HTTP/1.1 401") < 200:
                    part = link.recv(1 << 20)
                    assert part
                    seen += part
                answers += seen.count(b"HTTP/1.1 401")
        assert answers == 10_000
        good = together(*[lambda: shop.post(GOOD)] * 4)
    assert [answer.status for answer in good] == [202] * 4
    assert len(written(cluster, "intake")) == 5
