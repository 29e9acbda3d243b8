"""The commands of whoever is on call, against a real broker, engine, fallback and sink."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.commands.dead_letters import replay
from pipeline.commands.doctor import doctor, examine
from pipeline.commands.status import status
from pipeline.commands.trace import trace
from pipeline.domain.handovers import blank_attempt
from pipeline.runtime.lag import standings
from pipeline.settings import load_settings, sample_path
from tests.broker.ops_world import TENANT, OpsWorld, ops_world
from tests.waiting import until

SMS = {"channel": "sms", "window_s": None, "success": None}
VOICE = {**SMS, "channel": "voice"}
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


def attempt(command: Any, **changes: Any) -> Any:
    """A hand-over that a provider refused."""
    found = blank_attempt(command["command_id"], "p", 0)
    return {**found, "result": "refused", "error_class": "provider", **changes}


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


def test_replay_sends_again_what_still_matters_and_nothing_twice(
    pipeline: OpsWorld, capsys: Said
) -> None:
    """Five messages failed for good: one only a voice call could have reached, one was reached by
    a late receipt, one has expired, one is in doubt, and one is to be sent again."""
    asked = {
        "again": pipeline.accept(10, route=[SMS]),
        "late": pipeline.accept(11, route=[SMS]),
        "expired": pipeline.accept(12, route=[SMS], deadline=pipeline.now() + 1_500),
        "doubt": pipeline.accept(13, route=[SMS]),
        "voice": pipeline.accept(14, route=[VOICE]),
    }
    name = {which: message["message_id"] for which, message in asked.items()}
    for which in name.keys() - {"expired"}:
        message_id = name[which]
        command = pipeline.command(message_id)
        doubt = which == "doubt"
        tried = attempt(command, in_doubt=doubt)
        pipeline.answer(command, "failed", error_class="provider", code="x", attempts=[tried])
    for message_id in name.values():
        pipeline.await_row(message_id, "dead_letter")
    late = pipeline.command(name["late"])
    pipeline.answer(late, "delivered", origin="receipts", provider_message_id="theirs")
    pipeline.await_row(name["late"], "late_receipts")

    wanted: Any = {"since": "5m", "channel": "sms", "as_json": True}
    assert replay(**wanted, dry_run=True) == 0
    planned = told(capsys)
    assert replay(**wanted) == 0
    done = told(capsys)
    assert done["fitting"] == 4
    assert done["refused"] == {"delivered": 1, "expired": 1, "in_doubt": 1}
    assert [message["replay_of"] for message in done["messages"]] == [name["again"]]
    assert {**planned, "dry_run": False} == done

    again = done["messages"][0]["message_id"]
    command = pipeline.command(again)
    assert command["address"] == asked["again"]["to"]["phone"]
    assert command["content"] == asked["again"]["content"]
    pipeline.answer(command, "dispatched", result="accepted")
    pipeline.answer(command, "delivered", origin="receipts", provider_message_id="ours")
    pipeline.await_row(again, "outcomes")
    found = f"SELECT status, replay_of FROM events_unique WHERE message_id = '{again}'"
    assert pipeline.ask(f"{found} AND kind = 'outcomes'") == [("delivered", name["again"])]

    # a second time, and by name: known by ClickHouse
    assert replay(**wanted) == 0
    second = told(capsys)
    assert second["messages"] == []
    assert second["refused"] == {"replayed": 1, "delivered": 1, "expired": 1, "in_doubt": 1}
    # and by fallback, when ClickHouse does not say so
    pipeline.forget(again)
    assert replay(name["again"], as_json=True) == 0
    assert told(capsys)["messages"][0]["message_id"] == again
    pipeline.await_row(again, "accepted")
    assert len([c for c in pipeline.loops.commands() if c["message_id"] == again]) == 1

    assert trace(name["again"], as_json=True) == 0
    assert told(capsys)["replayed_as"] == [again]
    assert trace(again) == 0
    assert f"a replay of {name['again']}" in capsys.readouterr().out


def test_replay_of_nothing_says_so_and_of_many_stops_at_the_limit(
    pipeline: OpsWorld, capsys: Said
) -> None:
    assert replay("no-such-letter") == 1
    assert "No dead letter fits; nothing was replayed." in capsys.readouterr().out
    names = [pipeline.accept(20 + number)["message_id"] for number in range(3)]
    for message_id in names:
        for step in (0, 1):
            pipeline.answer(pipeline.command(message_id, step), "failed", error_class="channel")
    for message_id in names:
        pipeline.await_row(message_id, "dead_letter")
    assert replay(error_class="channel", limit=2, dry_run=True) == 0
    said = capsys.readouterr().out
    assert "2 dead letters fit; 2 would be replayed" in said
    assert "There are more behind the limit" in said


def test_status_shows_what_waits_where_and_what_nobody_works_on(
    pipeline: OpsWorld, capsys: Said
) -> None:
    message = pipeline.accept(40, route=[VOICE], priority="normal")
    pipeline.command(message["message_id"])
    assert status(as_json=True) == 1
    found = told(capsys)
    rows = {(row["stage"], row["lane"]): row for row in found["stages"]}
    assert {stage for stage, _ in rows} == {
        "accept", "accept-bulk", "fallback", "dispatch", "receipts", "sink",
    }  # fmt: skip
    assert (rows["fallback", "normal"]["workers"], rows["dispatch", "normal"]["workers"]) == (1, 0)
    waiting = rows["dispatch", "normal"]
    assert waiting["lag"] >= 1
    assert waiting["oldest"].startswith(("send.sms.normal[", "send.voice.normal["))
    assert 0 < waiting["oldest_age_ms"] < 600_000
    assert rows["dispatch", "urgent"]["lag"] == 0
    causes = {trouble["subject"]: trouble["cause"] for trouble in found["troubles"]}
    assert causes["dispatch"].startswith("nobody works, and ")
    assert any("it has not listened" in cause for cause in causes.values())
    assert status() == 1
    said = capsys.readouterr().out
    assert "oldest waiting: " in said
    assert "start it: pipeline run dispatch" in said


def test_an_open_transaction_shows_as_what_holds_its_partition_up(pipeline: OpsWorld) -> None:
    cluster = pipeline.loops.cluster
    producer = cluster.transactional("somebody-else")
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(cluster.real("read"), b"x", partition=3)
    assert producer.flush(20) == 0
    try:
        (found,) = standings(cluster, {"sink": [("read", 3)]})
        assert found.stable < found.high
        assert found.undecided_at is not None
        assert abs(found.undecided_at - pipeline.now()) < 60_000
        assert (found.lag, found.oldest_at) == (0, None)
    finally:
        producer.abort_transaction(20)


def test_status_without_a_pipeline_says_so(capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "")
    assert status() == 2
    assert "KAFKA_BOOTSTRAP_SERVERS: it is not set" in capsys.readouterr().err


def test_doctor_says_of_everything_whether_it_is_as_it_must_be(
    pipeline: OpsWorld, capsys: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIPELINE_DATA_DIR", str(tmp_path))
    file = tmp_path / "wrong.yaml"
    file.write_text("priorities: 3\n")
    monkeypatch.setenv("PIPELINE_CONFIG", str(file))
    monkeypatch.setenv("PIPELINE_REFERENCE_KEYS", "")
    assert doctor(as_json=True) == 1
    found: dict[str, list[tuple[str, str]]] = {}
    for one in told(capsys):
        found.setdefault(one["name"], []).append((one["state"], one["text"]))
    well = ("Kafka", "broker settings", "replication", "topics", "brokers' clock", "registry",
            "ClickHouse", "ClickHouse tables", "ClickHouse's clock", "data directory")  # fmt: skip
    assert {name: found[name][0][0] for name in well} == dict.fromkeys(well, "ok")
    assert [name for name in found if name.startswith("ClickHouse disk")]
    assert found["secrets"] == [("fail", "PIPELINE_REFERENCE_KEYS: it is not set")]
    assert found["policy file"] == [("fail", "1 mistakes")]
    monkeypatch.setenv("PIPELINE_CONFIG", str(sample_path("demo.yaml")))
    (right,) = [one for one in examine(load_settings()) if one.name == "policy file"]
    assert right.state == "ok"
    # nobody runs accept, dispatch and receipts here
    assert {"fail"} == {state for state, _ in found["stages"]}
    assert any("receipts" in text for _, text in found["stages"])


def test_doctor_of_what_does_not_answer_names_each_and_ends_soon(
    capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "")
    monkeypatch.setenv("CLICKHOUSE_URL", "http://user:canary@127.0.0.1:9/x")
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", "http://127.0.0.1:9")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("PIPELINE_GATEWAY_PORT", str(server.getsockname()[1]))
        assert doctor() == 1
    said = capsys.readouterr().out
    assert "canary" not in said
    assert "fail  Kafka: KAFKA_BOOTSTRAP_SERVERS: it is not set; set it" in said
    assert "fail  registry: http://127.0.0.1:9 did not answer" in said
    assert "fail  ClickHouse: no answer" in said
    assert "ok    gateway: somebody answers" in said
    assert "topics:" not in said
    monkeypatch.setenv("PIPELINE_PEPPER", "short")
    assert doctor() == 2
