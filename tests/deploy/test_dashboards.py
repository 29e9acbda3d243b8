"""Every query of every dashboard answers on the tables that the sink makes, with rows in them."""

import json
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.runtime.clickhouse import Store

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "dashboards"
QUERIES = [
    pytest.param(target["rawSql"], id=panel["title"])
    for path in sorted(FOLDER.glob("*.json"))
    for panel in json.loads(path.read_text("utf-8"))["panels"]
    for target in panel["targets"]
]


def filled_in(query: str) -> str:
    """The query with Grafana's macros as its plugin writes them out."""
    query = re.sub(
        r"\$__timeInterval\((\w+)\)",
        r"toStartOfInterval(toDateTime(\1), INTERVAL 60 second)",
        query,
    )
    query = re.sub(r"\$__timeFilter\((\w+)\)", r"\1 >= now() - 3600 AND \1 <= now() + 60", query)
    assert "$__" not in query
    return query


@pytest.fixture(scope="module")
def store(clickhouse_url: str) -> Iterator[Store]:
    """A database of its own with one message that fell back, and one dead letter."""
    name = f"dash_{uuid.uuid4().hex[:8]}"
    admin = Store(clickhouse_url)
    admin.command(f"CREATE DATABASE {name}")
    found = Store(f"{clickhouse_url.rstrip('/')}/{name}")
    try:
        found.migrate()
        now = int(time.time() * 1000)
        rows = [
            ("e1", "accepted", "", "", ""),
            ("e2", "dispatched", "whatsapp", "", ""),
            ("e3", "timed_out", "whatsapp", "", ""),
            ("e4", "failed", "sms", "transient", ""),
            ("e5", "outcomes", "sms", "", "delivered"),
            ("e6", "dead_letter", "sms", "", ""),
        ]
        for number, (event, kind, channel, error, status) in enumerate(rows):
            at = f"fromUnixTimestamp64Milli({now - 60_000 + number * 100}, 'UTC')"
            found.command(
                "INSERT INTO events (event_id, kind, tenant, message_id, channel, country, priority,"
                " error_class, status, reason, cost_micros, currency, occurred_at, accepted_at,"
                f" _appended_at, _offset) VALUES ('{event}', '{kind}', 't', 'm', '{channel}', 'DE',"
                f" 'normal', '{error}', '{status}', 'because', 32000, 'EUR', {at},"
                f" fromUnixTimestamp64Milli({now - 60_000}, 'UTC'), {at}, {number})"
            )
        yield found
    finally:
        admin.command(f"DROP DATABASE {name}")
        found.close()
        admin.close()


@pytest.mark.parametrize("query", QUERIES)
def test_a_panel_has_something_to_show(store: Store, query: str):
    rows = list(store.query(filled_in(query)))
    assert rows
    assert all(value is not None for row in rows for value in row)
