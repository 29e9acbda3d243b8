"""Rates are sets of ids: exact by minute, hour and day, whatever is written or fed twice."""

import re
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from pipeline.runtime.clickhouse import Store
from pipeline.runtime.sink_batch import token
from pipeline.stages import sink
from pipeline.topology import resource
from tests.sql.conftest import Asked, rows
from tests.sql.counted import exact, grouped, once
from tests.sql.made import lives

GRAINS = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
FIGURES = ("accepted", "turned_away", "dispatched", "timed_out", "delivered", "failed")
SUMS = ", ".join(f"uniqExactMerge({name})" for name in FIGURES)
BLOCKS = re.findall(r"```sql\n(.*?)```", Path("docs/sql.md").read_text(), re.DOTALL)


def _counted(asked: Asked, grain: str) -> dict[Any, list[int]]:
    """By start and channel, the figures in their order."""
    sets: dict[Any, list[set[str]]] = {}
    for event in once(asked.records):
        kind, at = event["kind"], event.get("accepted_at")
        figure = event.get("status") if kind == "outcomes" else kind
        if kind == "rejected":
            figure = "turned_away"
        if at is None or figure not in FIGURES or (kind == "failed"):
            continue
        of_request = kind in ("accepted", "rejected")
        start = datetime.fromtimestamp((at - at % GRAINS[grain]) / 1000, UTC)
        cell = sets.setdefault(
            (start.strftime("%Y-%m-%d %H:%M:%S"), "" if of_request else event["channel"]),
            [set() for _ in FIGURES],
        )
        name = event["source"]["offset"] if of_request else event["message_id"]
        cell[FIGURES.index(figure)].add(str(name))
    return {key: [len(found) for found in cell] for key, cell in sorted(sets.items())}


def _stored(asked: Asked, grain: str) -> dict[Any, list[int]]:
    answer = asked.ask(
        f"SELECT at, channel, {SUMS} FROM rates_{grain} GROUP BY at, channel ORDER BY at, channel"
    )
    return {tuple(row.values())[:2]: list(row.values())[2:] for row in answer}


@pytest.mark.parametrize("grain", GRAINS)
def test_rates_are_what_was_written_once(asked: Asked, grain: str) -> None:
    assert _stored(asked, grain) == _counted(asked, grain)


def test_the_whole_range_counts_each_message_once(asked: Asked) -> None:
    """A message that went over three channels, and a provider changed in between, is one."""
    answer = asked.ask(f"SELECT {SUMS} FROM rates_minute")[0]
    events = grouped(once(asked.records), lambda event: event["kind"])
    unique = lambda kind: len({event["message_id"] for event in events[kind]})  # noqa: E731
    outcomes = [event["status"] for event in events["outcomes"]]
    assert list(answer.values()) == [
        len(events["accepted"]),
        sum(1 for event in events["rejected"] if event["origin"] == "fallback"),
        unique("dispatched"),
        unique("timed_out"),
        outcomes.count("delivered"),
        outcomes.count("failed"),
    ]


def test_the_query_of_the_document_gives_exact_quantiles(asked: Asked) -> None:
    found = {}
    recent = [life for life in asked.recent if life.status == "delivered" and life.outcome]
    hour = lambda at: at - at % GRAINS["hour"]  # noqa: E731
    key = lambda life: (hour(life.first["accepted_at"]), life.outcome["channel"])  # noqa: E731
    for (at, channel), delivered in grouped(recent, key).items():
        times = [life.outcome["latency_ms"] for life in delivered if life.outcome]
        start = datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
        found[start, channel] = [exact(times, share) for share in (0.5, 0.95, 0.99)]
    answer = asked.ask(BLOCKS[0])
    shown = {(row["at"], row["channel"]): row["latency_ms"] for row in answer if row["arrived"]}
    assert shown == found


@pytest.fixture
def store(clickhouse_url: str) -> Iterator[Store]:
    database = "rates_" + uuid.uuid4().hex[:10]
    made = Store(f"{clickhouse_url.rstrip('/')}/{database}", sink.COLUMNS)
    try:
        made.migrate()
        yield made
    finally:
        made.command(f"DROP DATABASE IF EXISTS {database}")
        made.close()


def _total(store: Store) -> tuple[Any, ...]:
    return store.query(f"SELECT {SUMS}, count(DISTINCT at) FROM rates_minute")[0]


def test_an_insert_that_was_broken_off_before_the_rates_is_made_good(store: Store) -> None:
    now = int(time.time() * 1000)
    made = rows(lives(now, 60), now)
    first, last = made[: len(made) // 2], made[len(made) // 2 :]
    store.insert("events", first, token(first))
    before = _total(store)
    store.command("DETACH TABLE rates_feed_mv")
    store.insert("events", last, token(last))
    store.command("ATTACH TABLE rates_feed_mv")
    assert _total(store) == before
    store.complete_rates(["topic", "another"])
    whole = _total(store)
    assert whole > before
    store.complete_rates(["topic"])
    assert _total(store) == whole
    store.command(BLOCKS[1])
    assert _total(store) == whole
    store.command("TRUNCATE TABLE rates_minute")
    store.command(BLOCKS[1])
    assert _total(store) == whole


def test_messages_of_two_months_in_one_insert_are_no_obstacle(store: Store) -> None:
    now = int(time.time() * 1000)
    made = rows(lives(now - 40 * 86_400_000, 20) + lives(now, 20), now)
    store.insert("events", made, token(made))
    assert store.query("SELECT uniqExact(toYYYYMM(at)) FROM rates_minute")[0][0] > 1


def test_every_table_that_grows_forgets_after_a_time(store: Store) -> None:
    tables = store.query(
        "SELECT name, create_table_query LIKE '%TTL%' FROM system.tables"
        " WHERE database = currentDatabase() AND engine LIKE '%MergeTree'"
    )
    assert dict(tables) == {"events": 1, "rates_minute": 1, "schema_migrations": 0}


def test_the_servers_own_logs_are_given_an_end() -> None:
    path = resource("deploy") / "clickhouse" / "config.d" / "system_logs.xml"
    root = ET.fromstring(path.read_text(encoding="utf-8"))
    kept = [table for table in root if table.get("remove") != "1"]
    assert len(kept) > 5
    for table in kept:
        ttl = table.findtext("ttl", "")
        assert re.fullmatch(r"(event|finish)_date \+ INTERVAL \d+ DAY DELETE", ttl), table.tag
