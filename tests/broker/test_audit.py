"""The commands that look at a running pipeline, against a real broker and engine. The records are
written here, as fallback and its neighbours would; nothing between them and the commands is a
stand-in."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.commands.audit import audit
from pipeline.commands.dead_letters import list_, show
from pipeline.commands.sql import sql
from pipeline.runtime.clickhouse import Store
from pipeline.runtime.clock import BrokerClock
from pipeline.stages.sink import UNREADABLE, kind_of
from pipeline.topology import CATALOGUE
from tests.broker.sink_world import World, event, world
from tests.faults.topics_for_tests import until

MESSAGES = 40
TASKS = 4


@pytest.fixture
def made(
    kafka: str, prefix: str, clickhouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """A pipeline that has settled some messages and rejected a duplicate of each fifth."""
    topics = {topic.name: topic.record for topic in CATALOGUE.inputs("sink")}
    with world(kafka, prefix, clickhouse_url, topics, ["fallback.changelog"]) as found:
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)
        monkeypatch.setenv("PIPELINE_PREFIX", prefix)
        monkeypatch.setenv("CLICKHOUSE_URL", found.url)
        _live(found)
        with found.worker(0):
            until(lambda: _stored(found), 40, "all rows")
            yield found


def _stored(made: World) -> bool:
    return len(made.ids()) == 2 * MESSAGES + MESSAGES // 5 + MESSAGES // 2 + 1


def _put(made: World, producer: Any, topic: str, record: str, value: Any, task: int) -> None:
    producer.produce(
        made.cluster.real(topic), value=made.codec.encode(record, value), partition=task
    )


def _message(number: int, offset: int) -> dict[str, Any]:
    return {
        "tenant": "acme",
        "message_id": f"message-{number}",
        "recipient_key": f"recipient-{number}",
        "source": {"topic": "intake", "partition": 0, "offset": offset},
        "accepted_at": 1_767_225_600_000,
        "priority": "normal",
    }


def _live(made: World) -> None:
    """Half of the messages are settled, the rest is open."""
    producer = made.cluster.transactional(f"{made.cluster.prefix}live")
    producer.init_transactions(20)
    producer.begin_transaction()
    accepted = dict.fromkeys(range(TASKS), 0)
    counts = {task: dict.fromkeys(("opened", "duplicates", "settled"), 0) for task in range(TASKS)}
    for number in range(MESSAGES):
        task = number % TASKS
        _put(made, producer, "accepted.normal", "Message", _message(number, number), task)
        _put(made, producer, "dispatched", "Event", event(number), task)
        accepted[task] += 1
        counts[task]["opened"] += 1
        if number % 5 == 0:
            again = _message(number, 1000 + number)
            _put(made, producer, "accepted.normal", "Message", again, task)
            accepted[task] += 1
            counts[task]["duplicates"] += 1
        if number % 2 == 0:
            counts[task]["settled"] += 1
            outcome = {
                "event_id": f"outcome-{number}",
                "message_id": f"message-{number}",
                "tenant": "acme",
                "status": "delivered",
            }
            _put(made, producer, "outcomes", "Outcome", outcome, task)
    letter = {
        "dead_letter_id": "letter-1",
        "stage": "accept",
        "category": "undecodable",
        "reason": "the body does not fit",
        "occurred_at": BrokerClock().now(),
        "raw_value": b"\xc3\x01 secret text",
    }
    _put(made, producer, "dead-letter", "DeadLetter", letter, 0)
    for task in range(TASKS):
        _books(made, producer, task, accepted[task], counts[task])
    producer.commit_transaction(20)


def _books(made: World, producer: Any, task: int, position: int, counts: dict[str, int]) -> None:
    ledger = {
        "partition": task,
        "positions": {"accepted.normal": position},
        **counts,
        "open": counts["opened"] - counts["settled"],
    }
    changelog = made.cluster.real("fallback.changelog")
    value = made.codec.encode("Ledger", ledger)
    producer.produce(changelog, key=b"ledger", value=value, partition=task)
    for number in range(task, MESSAGES, TASKS):
        status = "settled" if number % 2 == 0 else "open"
        state = {"message_id": f"message-{number}", "status": status}
        producer.produce(
            changelog,
            key=f"m:message-{number}",
            value=made.codec.encode("MessageState", state),
            partition=task,
        )


Audit = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Audit:
    def asked(**options: Any) -> tuple[int, dict[str, Any]]:
        status = audit(as_json=True, **{"wait": 20.0, **options})
        said = capsys.readouterr()
        assert status != 2, said.err
        return status, json.loads(said.out)

    return asked


def _change(made: World, statement: str) -> None:
    store = Store(made.url)
    store.command(statement + " SETTINGS mutations_sync = 1")
    store.close()


def test_the_books_of_a_pipeline_at_rest_balance(made: World, ask: Audit) -> None:
    for full in (False, True):
        status, report = ask(full=full)
        assert report["problems"] == []
        assert (status, report["balanced"], report["full"]) == (0, True, full)
        assert (report["accepted"], report["opened"], report["duplicates"]) == (48, 40, 8)
        assert (report["settled"], report["open"], report["outcomes"]) == (20, 20, 20)
        assert report["waiting"] >= 0
        counted = {t["topic"]: (t["records"], t["rows"]) for t in report["topics"]}
        assert counted["accepted.normal"] == (48, 48)
        assert counted["dead-letter"] == (1, 1)


def test_one_deleted_row_is_found_and_named_whatever_its_kind(made: World, ask: Audit) -> None:
    gone = []
    for kind in ("dispatched", "outcomes", "accepted", "dead_letter"):
        found = f"SELECT event_id, _topic, _partition FROM events WHERE kind = '{kind}' LIMIT 1"
        ((name, topic, partition),) = made.store_query(found)
        _change(made, f"ALTER TABLE events DELETE WHERE event_id = '{name}'")
        gone.append((topic, partition, [name]))
        status, report = ask()
        assert (status, report["balanced"]) == (1, False)
        missing = [p for p in report["problems"] if p["what"] == "missing"]
        shown = [(p["topic"], p["partition"], p["ids"]) for p in missing]
        assert sorted(shown) == sorted(gone)


def test_a_row_that_stands_for_no_record_is_found(made: World, ask: Audit) -> None:
    _change(
        made,
        "INSERT INTO events (event_id, kind, tenant, message_id, _topic, _topic_id, _partition,"
        " _offset, _appended_at) SELECT 'stranger', kind, tenant, message_id, _topic, _topic_id,"
        " _partition, _offset, _appended_at FROM events WHERE kind = 'dispatched' LIMIT 1",
    )
    status, report = ask()
    assert status == 1
    assert ["stranger"] in [problem["ids"] for problem in report["problems"]]


def test_a_ledger_that_counts_one_message_more_does_not_balance(made: World, ask: Audit) -> None:
    producer = made.cluster.producer()
    _books(made, producer, 0, 12, {"opened": 11, "duplicates": 2, "settled": 10})
    producer.flush(20)
    status, report = ask()
    assert status == 1
    assert [(p["what"], p["partition"]) for p in report["problems"]] == [("accepted", 0)]


def test_only_the_full_audit_finds_an_outcome_of_nobody_that_was_counted(
    made: World, ask: Audit
) -> None:
    producer = made.cluster.producer()
    stray = {"event_id": "stray", "message_id": "nobody", "tenant": "acme", "status": "failed"}
    _put(made, producer, "outcomes", "Outcome", stray, 1)
    _books(made, producer, 1, 12, {"opened": 10, "duplicates": 2, "settled": 1})
    producer.flush(20)
    assert ask()[0] == 0
    status, report = ask(full=True)
    assert status == 1
    assert ["nobody"] in [p["ids"] for p in report["problems"] if p["what"] == "messages"]


def test_a_repeat_under_its_own_id_balances_and_is_counted(made: World, ask: Audit) -> None:
    producer = made.cluster.producer()
    _put(made, producer, "dispatched", "Event", event(0), 0)
    producer.flush(20)
    status, report = ask()
    assert report["problems"] == []
    assert status == 0
    (dispatched,) = [t for t in report["topics"] if t["topic"] == "dispatched"]
    assert (dispatched["records"], dispatched["rows"], dispatched["repeated"]) == (41, 40, 1)


def test_what_cannot_be_asked_is_said_with_status_2(
    made: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLICKHOUSE_URL", "http://user:canary@127.0.0.1:9/x")
    assert audit(as_json=True, wait=0.1) == 2
    assert sql("SELECT 1") == 2
    monkeypatch.setenv("CLICKHOUSE_URL", "")
    assert audit(as_json=True, wait=0.1) == 2
    monkeypatch.setenv("PIPELINE_PREFIX", "nobodys.")
    monkeypatch.setenv("CLICKHOUSE_URL", made.url)
    assert audit(as_json=True, wait=0.1) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "canary" not in said.err
    assert "CLICKHOUSE_URL: it is not set" in said.err
    assert "nobodys." in said.err


def test_sql_answers_as_table_json_and_csv_and_writes_nothing(
    made: World, capsys: pytest.CaptureFixture[str]
) -> None:
    question = "SELECT status, count() AS n FROM messages GROUP BY status ORDER BY n, status;"
    assert sql(question, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"status": "delivered", "n": 20},
        {"status": "dispatched", "n": 20},
    ]
    assert sql(question, as_csv=True) == 0
    assert capsys.readouterr().out == '"status","n"\n"delivered",20\n"dispatched",20\n'
    assert sql(question) == 0
    assert "delivered" in capsys.readouterr().out
    before = made.ids()
    for wrong in (
        "DROP TABLE events",
        "ALTER TABLE events DELETE WHERE 1",
        "INSERT INTO events (event_id) SELECT 'x'",
        "SELECT * FROM file('/etc/hostname', 'LineAsString')",
        "SELEC 1",
        "SELECT * FROM nowhere",
    ):
        assert sql(wrong) == 1, wrong
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("pipeline sql: ")
    assert sql("  ") == 2
    assert sorted(made.ids()) == sorted(before)


def test_every_question_of_the_document_has_an_answer(
    made: World, capsys: pytest.CaptureFixture[str]
) -> None:
    text = Path("docs/sql.md").read_text(encoding="utf-8")
    questions = re.findall(r"```sql\n(SELECT.*?)```", text, re.DOTALL)
    questions += [Path("docs", name).read_text() for name in re.findall(r"\((sql/\S+)\)", text)]
    assert len(questions) == 11
    for question in questions:
        status = sql(question, as_json=True)
        said = capsys.readouterr()
        assert (status, said.err) == (0, ""), question
        assert isinstance(json.loads(said.out), list)
    kinds = {kind_of(topic.name) for topic in CATALOGUE.inputs("sink")}
    events = text.partition("## `events_unique`")[2]
    rows = re.findall(r"^\| ([a-z_, ]+) \|", events, re.MULTILINE)
    named = {name for row in rows for name in row.split(", ")} - {"kind"}
    assert named == kinds | {UNREADABLE}


def test_dead_letters_are_listed_without_content_and_shown_with_it(
    made: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list_(as_json=True, since="1h", reason="does not fit") == 0
    shown = capsys.readouterr().out
    assert [letter["dead_letter_id"] for letter in json.loads(shown)] == ["letter-1"]
    assert "secret" not in shown
    assert list_(as_json=True, channel="sms") == 0
    assert json.loads(capsys.readouterr().out) == []
    assert list_() == 0
    assert "1 dead letters; undecodable: 1" in capsys.readouterr().out
    assert show("letter-1", as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["raw_value_base64"] == "wwEgc2VjcmV0IHRleHQ="
    assert show("letter-2") == 1
    assert "no dead letter has the id letter-2" in capsys.readouterr().err
