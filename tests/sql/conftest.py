"""One set of made events in a database of its own, stored twice as a replay would."""

import random
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipeline.domain.outcomes import Inbound
from pipeline.runtime.clickhouse import Store
from pipeline.runtime.sink_batch import token
from pipeline.stages import sink
from tests.sql.counted import Life, by_message
from tests.sql.made import DAY, Record, lives

QUERIES = Path(__file__).parents[2] / "docs" / "sql"


@dataclass
class Asked:
    """The made events and the database that holds them."""

    url: str
    records: Sequence[Record]
    lives: Mapping[str, Life]
    now: int

    def ask(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a SELECT, as `pipeline sql --json` has them."""
        store = Store(self.url)
        try:
            return list(orjson.loads(store.read(sql, "JSON"))["data"])
        finally:
            store.close()

    def query(self, name: str) -> list[tuple[Any, ...]]:
        """The answer to a worked query of docs/sql/, as it stands there."""
        return [tuple(row.values()) for row in self.ask((QUERIES / name).read_text())]

    @property
    def recent(self) -> list[Life]:
        """Messages that were accepted in the last seven days."""
        return [
            life for life in self.lives.values() if life.first["accepted_at"] > self.now - 7 * DAY
        ]


def rows(records: Sequence[Record], at: int) -> list[tuple[Any, ...]]:
    """A row for each, appended in this order."""
    return [
        sink.to_row(Inbound(topic, 0, offset, at + offset, None, value), "topic")
        for offset, (topic, value) in enumerate(records)
    ]


@pytest.fixture(scope="session")
def asked(clickhouse_url: str) -> Iterator[Asked]:
    now = int(time.time() * 1000)
    records = lives(now)
    database = "asked_" + uuid.uuid4().hex[:10]
    found = Asked(f"{clickhouse_url.rstrip('/')}/{database}", records, by_message(records), now)
    store = Store(found.url, sink.COLUMNS)
    try:
        store.migrate()
        # The first time in batches; a replay then writes everything again, with other bounds.
        stored = rows(records, now)
        for start in range(0, len(stored), 700):
            store.insert("events", stored[start : start + 700], token(stored[start : start + 700]))
        random.Random(3).shuffle(stored)
        store.insert("events", stored, token(stored))
        yield found
    finally:
        store.close()
        dropper = Store(clickhouse_url)
        dropper.command(f"DROP DATABASE IF EXISTS {database}")
        dropper.close()
