"""The commands of whoever is on call, against a real broker, engine, fallback and sink."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.commands.trace import trace
from tests.broker.ops_world import TENANT, OpsWorld, ops_world
from tests.waiting import until

Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def pipeline(
    kafka: str, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OpsWorld]:
    with ops_world(kafka, clickhouse_url, Path(tmp_path_factory.mktemp("ops"))) as found:
        yield found


def told(capsys: Said) -> Any:
    said = capsys.readouterr()
    assert said.err == ""
    return json.loads(said.out)


def test_trace_tells_what_an_open_message_waits_for_and_until_when(
    pipeline: OpsWorld, capsys: Said
) -> None:
    message = pipeline.accept(1, key="login-42")
    name = message["message_id"]
    command = pipeline.command(name)
    pipeline.await_row(name, "accepted")
    assert trace(name, as_json=True) == 0
    before = told(capsys)
    assert (before["status"], before["waiting"]["for"], before["notes"]) == ("open", "answer", [])
    assert before["waiting"]["until"] == command["expires_at"]
    assert before["events"][0]["because"].startswith("its route: sms (delivered within 1m 0s)")

    handed_over = pipeline.now()
    pipeline.answer(command, "dispatched", result="accepted", occurred_at=handed_over)
    pipeline.await_row(name, "dispatched")

    def waiting() -> Any:
        assert trace(name, as_json=True) == 0
        found = told(capsys)["waiting"]
        return found if found["for"] == "receipt" else None

    found = until(waiting, 20)
    assert found["until"] == handed_over + 60_000
    assert found["then"] == "it goes on with step 2 voice"

    # by its key, with ClickHouse's word and without, and as of a time before all of it
    assert trace(key=f"{TENANT}/login-42", as_json=True) == 0
    assert told(capsys)["message_id"] == name
    phone = str(message["to"]["phone"])
    assert trace(key=f"{TENANT}/login-42", to=f"{phone[:3]} {phone[3:]}", as_json=True) == 0
    assert told(capsys)["message_id"] == name
    assert trace(name) == 0
    assert "waits for a receipt of p for step 1 sms, until" in capsys.readouterr().out
    assert trace(name, at="1h") == 1
    assert f"ClickHouse knows no message {name} at" in capsys.readouterr().err


def test_trace_of_what_is_not_there_says_so(
    pipeline: OpsWorld, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trace("no-such-message") == 1
    assert "ClickHouse knows no message no-such-message" in capsys.readouterr().err
    assert trace(key=f"{TENANT}/no-such-key") == 1
    assert trace(key="no-slash") == 2
    assert trace() == 2
    assert "give an id, or --key TENANT/KEY" in capsys.readouterr().err
    name = pipeline.accept(2)["message_id"]
    pipeline.await_row(name, "accepted")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "")
    assert trace(name, as_json=True) == 0
    guessed = told(capsys)
    assert guessed["waiting"]["for"] == "unknown"
    assert "KAFKA_BOOTSTRAP_SERVERS: it is not set" in guessed["notes"][0]
    monkeypatch.setenv("CLICKHOUSE_URL", "http://127.0.0.1:9/x")
    assert trace(name) == 2
