"""The sink on a real broker and a real ClickHouse engine: every event once, whatever happens."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import OFFSET_END, TopicPartition
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]

from pipeline.runtime.clickhouse import Store, WrongTables
from pipeline.runtime.sink_batch import Limits, token
from pipeline.stages import sink
from pipeline.topology import resource
from tests.broker.sink_world import PARTITIONS, TOPICS, World, event, world
from tests.faults.topics_for_tests import until


@pytest.fixture
def made(kafka: str, prefix: str, clickhouse_url: str) -> Iterator[World]:
    with world(kafka, prefix, clickhouse_url) as found:
        yield found


def _parts(made: World) -> list[TopicPartition]:
    return [
        TopicPartition(made.cluster.real(topic), number)
        for topic in TOPICS
        for number in range(PARTITIONS)
    ]


def _lag(made: World) -> int:
    """Records and markers that the sink's group has not passed yet."""
    consumer = made.cluster.consumer(made.cluster.group("sink"))
    try:
        found = consumer.committed(_parts(made), timeout=10)
        ends = [consumer.get_watermark_offsets(part, timeout=10)[1] for part in found]
        return sum(end - max(part.offset, 0) for part, end in zip(found, ends, strict=True))
    finally:
        consumer.close()


def test_every_committed_event_has_one_row_and_no_aborted_one_has_any(made: World) -> None:
    made.write(range(300), transactions=5)
    with made.worker(0):
        made.await_rows()
        until(lambda: _lag(made) == 0, 15, "the group's offsets behind the last marker")
    assert sorted(made.ids(raw=True)) == sorted(made.written)
    row = made.store_query(
        "SELECT kind, cost, labels, toUnixTimestamp64Milli(occurred_at), _topic FROM events_unique"
        " WHERE message_id = 'message-7' AND kind = 'late_receipts'"
    )[0]
    assert (row[0], float(row[1]), row[2], row[3], row[4]) == (
        "late_receipts",
        0.05,
        {"team": "shop"},
        event(7)["occurred_at"],
        "late-receipts",
    )


def test_partitions_move_between_workers_while_records_flow(made: World) -> None:
    made.write(range(200))
    with made.worker(0) as first:
        until(lambda: first.inserted > 0, 30, "rows by the first worker")
        with made.worker(1) as second:
            for start in range(200, 1000, 100):
                made.write(range(start, start + 100))
            until(lambda: second.inserted > 0, 30, "rows by the second worker")
            made.await_rows()
        made.write(range(1000, 1100))
        made.await_rows()
    assert first.inserted
    assert second.inserted
    assert sorted(made.ids(raw=True)) == sorted(made.written)


def test_a_worker_killed_right_after_an_insert_leaves_no_gap_and_no_double(made: World) -> None:
    made.write(range(600), transactions=3)
    for _ in range(3):
        worker = made.process(0, die_after=2)
        try:
            assert worker.wait(60) == -signal.SIGKILL
        finally:
            worker.kill()
            worker.wait()
        assert 0 < len(made.ids(raw=True)) < len(made.written)
    with made.worker(0):
        made.await_rows()
    assert sorted(made.ids(raw=True)) == sorted(made.written)


def test_a_stopped_worker_that_inserts_after_another_took_over_doubles_nothing(made: World) -> None:
    """It is stopped beyond its session with records in its buffers, and goes on later."""
    made.write(range(400))
    worker = made.process(0)
    try:
        until(lambda: len(made.ids()) == len(made.written), 60, "rows by the first worker")
        os.kill(worker.pid, signal.SIGSTOP)
        made.write(range(400, 800))
        with made.worker(1) as second:
            made.await_rows(60)
            assert second.inserted >= 400 * len(TOPICS)
            os.kill(worker.pid, signal.SIGCONT)
            made.write(range(800, 1000))
            made.await_rows()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    finally:
        worker.kill()
        worker.wait()
    assert sorted(made.ids()) == sorted(made.written)


def _rows(numbers: range) -> list[tuple[object, ...]]:
    now = int(time.time() * 1000)
    golden = json.loads(Path("tests/data/sink/rows.json").read_text())["Event/dispatched"]
    row = {**golden, "_topic_id": "topic", "_partition": 0, "_appended_at": now}
    return [
        tuple({**row, "event_id": f"event-{number}", "_offset": number}.values())
        for number in numbers
    ]


def test_a_late_insert_with_other_bounds_is_shown_once_by_the_view(made: World) -> None:
    """The stalled writer's batch ends elsewhere, so no token can know it: the event's id does."""
    store = made.store()
    for numbers in (range(100), range(100, 200), range(50, 250)):
        rows = _rows(numbers)
        store.insert("events", rows, token(rows))
    assert store.positions(["topic"]) == {("topic", 0): 250}
    assert store.query("SELECT count(), uniqExact(event_id) FROM events_unique") == [(250, 250)]
    store.close()


def test_a_repeated_insert_is_known_by_its_token_and_never_hides_other_rows(made: World) -> None:
    store = made.store()
    rows, others = _rows(range(100)), _rows(range(100, 150))
    for batch in (rows, rows, others, rows):
        store.insert("events", batch, token(batch))
    assert store.query("SELECT count() FROM events") == [(150,)]
    assert len({token(rows), token(rows[:-1]), token(rows[1:]), token(others), token(rows, 1)}) == 5
    renamed = [("other", *row[1:]) for row in rows]
    assert token(renamed) != token(rows)
    store.close()


def test_one_insert_is_one_part(made: World) -> None:
    store = made.store()
    store.command("SYSTEM STOP MERGES events")
    rows = _rows(range(20_000))
    store.insert("events", rows, token(rows))
    assert store.query(
        "SELECT rows FROM system.parts WHERE active AND table = 'events' AND database ="
        " currentDatabase()"
    ) == [(20_000,)]
    store.close()


def test_what_cannot_be_read_becomes_a_row_and_the_next_record_goes_on(made: World) -> None:
    producer = made.cluster.producer()
    for raw in (b"\x00\xff rubbish", None, b"", made.codec.encode("Outcome", {})):
        producer.produce(made.cluster.real("delivered"), value=raw, partition=1)
    producer.flush(20)
    made.write(range(20))
    with made.worker(0):
        until(
            lambda: len(made.ids()) == len(made.written) + 4,
            30,
            "a row for every record, read or not",
        )
    assert made.store_query(
        "SELECT code FROM events_unique WHERE kind = 'unreadable' ORDER BY _offset"
    ) == [("no_registry",), ("null_value",), ("empty_value",), ("unknown_record",)]


def test_a_topic_that_is_made_anew_is_read_from_its_start(made: World) -> None:
    with made.worker(0):
        made.write(range(50))
        made.await_rows()
    admin = made.cluster.admin()
    name = made.cluster.real("dispatched")
    admin.delete_topics([name])[name].result(20)
    until(lambda: name not in admin.list_topics(timeout=10).topics, 20, "the topic is gone")
    config = {"message.timestamp.type": "LogAppendTime"}
    admin.create_topics([NewTopic(name, PARTITIONS, 1, config=config)])[name].result(20)
    made.write(range(50, 60))
    with made.worker(0):
        made.await_rows()
    assert sorted(made.ids()) == sorted(made.written)


def test_records_that_retention_took_are_named_and_the_rest_is_stored(
    made: World, expected_errors: object
) -> None:
    expected_errors.add("deleted by retention")  # type: ignore[attr-defined]
    made.write(range(40), abort=False)
    with made.worker(0):
        made.await_rows()
    before = set(made.written)
    made.write(range(40, 80), abort=False)
    admin = made.cluster.admin()
    ends = [TopicPartition(part.topic, part.partition, OFFSET_END) for part in _parts(made)]
    for deleted in admin.delete_records(ends).values():
        deleted.result(20)
    gone = made.written - before
    made.written = set(before)
    made.write(range(80, 120), abort=False)
    with made.worker(0):
        made.await_rows()
    assert set(made.ids()) == made.written
    assert not gone & set(made.ids())


def test_a_changed_or_newer_database_is_refused(made: World, tmp_path: Path) -> None:
    (tmp_path / "001_events.sql").write_text("SELECT 1;\n")
    store = made.store()
    with pytest.raises(WrongTables, match="newer than this program"):
        store.migrate(tmp_path)
    for file in (resource("deploy") / "clickhouse").glob("*.sql"):
        if file.name[:3] != "001":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(WrongTables, match="changed after it had been applied"):
        store.migrate(tmp_path)
    (tmp_path / "900_gap.sql").write_text("SELECT 1;\n")
    with pytest.raises(WrongTables, match="without a gap"):
        store.migrate(tmp_path)
    assert store.migrate() == []
    store.close()


def test_every_golden_row_can_be_stored_and_read_back(made: World) -> None:
    golden = json.loads(Path("tests/data/sink/rows.json").read_text())
    store = Store(made.url, sink.COLUMNS)
    now = int(time.time() * 1000)
    rows = [tuple({**row, "_appended_at": now}.values()) for row in golden.values()]
    store.insert("events", rows, "golden")
    stored = store.query("SELECT event_id, arrayMap(a -> a.provider, attempts) FROM events_unique")
    assert dict(stored) == {
        row["event_id"]: [a["provider"] for a in json.loads(row["attempts_json"] or "[]")]
        for row in golden.values()
    }
    assert store.query(
        "SELECT countIf(status = 'failed'), countIf(status = 'delivered') FROM messages"
    )
    store.close()


def test_a_full_batch_does_not_wait_for_its_age(made: World) -> None:
    made.write(range(100))
    with made.worker(0, Limits(rows=50, age_s=60, age_max_s=60, idle_s=0.1)) as loop:
        until(lambda: loop.inserted >= 250, 30, "full batches")
    assert sorted(made.ids(raw=True)) == sorted(made.written)
