"""ClickHouse away, slow to say so, or silent after the fact: the sink waits, and nothing else does."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.local.clickhouse import EmbeddedClickHouse
from pipeline.runtime.clickhouse import Store, Unavailable
from pipeline.runtime.sink_batch import Limits
from pipeline.runtime.sink_loop import SinkLoop
from pipeline.stages import sink
from tests.broker.sink_world import PARTITIONS, QUICK, TOPICS, World, world
from tests.faults.topics_for_tests import until


@pytest.fixture
def server(scratch: Path) -> Iterator[EmbeddedClickHouse]:
    """An engine that a test may kill."""
    with EmbeddedClickHouse(scratch / "outage") as found:
        yield found


@pytest.fixture
def made(kafka: str, prefix: str, server: EmbeddedClickHouse) -> Iterator[World]:
    with world(kafka, prefix, server.url) as found:
        yield found


def _members(made: World) -> dict[str, int]:
    """Who is in the group, and with how many partitions."""
    group = made.cluster.group("sink")
    admin = made.cluster.admin()
    found = admin.describe_consumer_groups([group])[group].result(20)
    return {
        str(member.group_instance_id): len(member.assignment.topic_partitions)
        for member in found.members
    }


def test_the_sink_waits_as_a_member_while_clickhouse_is_killed_and_started_again(
    made: World, server: EmbeddedClickHouse
) -> None:
    made.write(range(100))
    small = Limits(rows=30, age_s=0.05, fetch=20, idle_s=0.1, backoff_s=0.05, backoff_max_s=0.3)
    with made.worker(0, small) as loop:
        until(lambda: loop.inserted >= 30, 30, "first rows")
        server.kill()
        made.write(range(100, 400))
        until(lambda: loop.waited >= 3, 30, "three vain tries")
        assert len(_members(made)) == 1
        assert sum(_members(made).values()) == len(TOPICS) * PARTITIONS
        assert loop.held <= 30
        server.start()
        made.await_rows()
    assert sorted(made.ids(raw=True)) == sorted(made.written)


def test_a_sink_that_starts_without_clickhouse_begins_when_it_comes(
    made: World, server: EmbeddedClickHouse
) -> None:
    made.write(range(50))
    server.kill()
    with made.worker(0) as loop:
        until(lambda: loop.waited >= 2, 30, "vain questions for its position")
        until(lambda: sum(_members(made).values()) == len(TOPICS) * PARTITIONS, 20, "membership")
        made.write(range(50, 100))
        server.start()
        made.await_rows()
    assert sorted(made.ids(raw=True)) == sorted(made.written)


def test_stopping_does_not_wait_for_clickhouse_and_loses_nothing(
    made: World, server: EmbeddedClickHouse
) -> None:
    made.write(range(50))
    with made.worker(0) as loop:
        until(lambda: loop.inserted > 0, 30, "first rows")
        server.kill()
        made.write(range(50, 100))
        until(lambda: loop.waited >= 1, 30, "a vain try")
    server.start()
    with made.worker(0):
        made.await_rows()
    assert sorted(made.ids(raw=True)) == sorted(made.written)


class Mute(Store):
    """Does what it is asked and loses the answer of every second INSERT; every fifth it does not
    do at all."""

    asked = 0

    def insert(self, table: str, rows: Sequence[Sequence[Any]], token: str) -> None:
        self.asked += 1
        if self.asked % 5 == 0:
            raise Unavailable("did not happen")
        super().insert(table, rows, token)
        if self.asked % 2 == 0:
            raise Unavailable("happened, and nobody heard")


def test_an_answer_that_is_lost_leads_neither_to_a_gap_nor_to_a_double(made: World) -> None:
    store = Mute(made.url, sink.COLUMNS)
    loop = SinkLoop(
        made.cluster,
        store,
        made.codec,
        0,
        TOPICS,
        sink.to_row,
        sink.unreadable,
        limits=Limits(
            rows=40, age_s=0.02, fetch=20, idle_s=0.1, backoff_s=0.01, backoff_max_s=0.05
        ),
    )
    stop = threading.Event()
    thread = threading.Thread(target=loop.run, args=(stop,))
    thread.start()
    try:
        for start in range(0, 400, 100):
            made.write(range(start, start + 100))
        made.await_rows()
    finally:
        stop.set()
        thread.join(30)
    assert store.asked >= 20
    assert sorted(made.ids(raw=True)) == sorted(made.written)


class Forgetful(Store):
    """Remembers tokens without their rows, as an engine that was killed between the two."""

    forgot = 0

    def insert(self, table: str, rows: Sequence[Sequence[Any]], token: str) -> None:
        if self.forgot < 3:
            self.forgot += 1
            blank = [(*row[:-4], "another-topic", *row[-3:]) for row in rows]
            super().insert(table, blank, token)
            raise Unavailable("killed between token and rows")
        super().insert(table, rows, token)


def test_a_token_without_its_rows_hides_nothing(made: World) -> None:
    loop = SinkLoop(
        made.cluster,
        Forgetful(made.url, sink.COLUMNS),
        made.codec,
        0,
        TOPICS,
        sink.to_row,
        sink.unreadable,
        limits=QUICK,
    )
    stop = threading.Event()
    thread = threading.Thread(target=loop.run, args=(stop,))
    thread.start()
    try:
        made.write(range(100))
        until(
            lambda: (
                made.store_query(
                    "SELECT uniqExact(event_id) FROM events WHERE _topic_id != 'another-topic'"
                )
                == [(len(made.written),)]
            ),
            30,
            "every row in spite of the tokens",
        )
    finally:
        stop.set()
        thread.join(30)
