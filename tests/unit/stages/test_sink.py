"""What the sink makes of each record: golden rows, nothing private, nothing that does not fit.

`python -m tests.unit.stages.test_sink` writes the golden rows anew; read the difference.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.outcomes import Inbound
from pipeline.stages.sink import COLUMNS, UNREADABLE, kind_of, to_row, unreadable
from pipeline.topology import CATALOGUE, resource

GOLDEN = Path("tests/data/sink/rows.json")
APPENDED = 1_767_225_700_000
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = (("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01".encode()),)
PRIVATE = ("text", "subject", "html", "phone", "email", "raw_key", "raw_value", "detail")


def _topics_of(record: str, name: str) -> str:
    if record == "Message":
        return "accepted.urgent"
    if record != "Event":
        return {"Outcome": "outcomes", "DeadLetter": "dead-letter"}[record]
    return name.split("_unknown", maxsplit=1)[0].replace("_", "-")


def _examples() -> dict[str, tuple[str, dict[str, Any]]]:
    """Every sample of a record that the sink reads: its topic and value, by the file's name."""
    records = {topic.record for topic in CATALOGUE.inputs("sink")}
    return {
        f"{record}/{path.stem}": (_topics_of(record, path.stem), json.loads(path.read_bytes()))
        for record in sorted(records)
        for path in sorted((resource("schemas") / "examples" / record).glob("*.json"))
    }


EXAMPLES = _examples()


def _inbound(topic: str, value: Any) -> Inbound:
    return Inbound(topic, 3, 42, APPENDED, b"key", value, HEADERS)


def _row(topic: str, value: Any) -> dict[str, Any]:
    return dict(zip(COLUMNS, to_row(_inbound(topic, value), "topic-id"), strict=True))


def test_every_sample_makes_its_golden_row() -> None:
    assert {name: _row(*example) for name, example in EXAMPLES.items()} == json.loads(
        GOLDEN.read_text()
    )


def test_every_topic_of_the_sink_has_a_sample() -> None:
    kinds = {kind_of(topic.name) for topic in CATALOGUE.inputs("sink")}
    assert kinds == {kind_of(topic) for topic, _ in EXAMPLES.values()} | {"read"}


def _texts(value: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [found for key, part in value.items() for found in _texts(part, key)]
    if isinstance(value, list):
        return [found for part in value for found in _texts(part, name)]
    return [(name, value)] if isinstance(value, str) and value else []


@pytest.mark.parametrize("example", EXAMPLES)
def test_no_text_and_no_address_of_a_sample_reaches_its_row(example: str) -> None:
    topic, value = EXAMPLES[example]
    shown = json.dumps(_row(topic, value), ensure_ascii=False)
    private = [text for name, text in _texts(value) if name in PRIVATE]
    assert [text for text in private if text in shown] == []


def test_the_samples_do_hold_texts_and_addresses() -> None:
    named = {name for _, value in EXAMPLES.values() for name, _ in _texts(value)}
    assert {"text", "phone", "email", "raw_value"} <= named


def test_a_repeat_of_ours_has_the_same_name_and_a_callers_repeat_another() -> None:
    topic, message = EXAMPLES["Message/parcel"]
    source = {**message["source"], "offset": message["source"]["offset"] + 1}
    first, again = _row(topic, message), _row("accepted.bulk", message)
    theirs = _row(topic, {**message, "source": source})
    assert first["event_id"] == again["event_id"] != theirs["event_id"]
    assert first["message_id"] == theirs["message_id"]


def test_what_cannot_be_read_is_a_row_named_by_its_place() -> None:
    row = dict(
        zip(COLUMNS, unreadable(_inbound("late-receipts", b"?"), "t", "invalid_body"), strict=True)
    )
    other = unreadable(Inbound("late-receipts", 3, 43, APPENDED, None, b"?"), "t", "invalid_body")
    assert (row["kind"], row["code"], row["error_class"]) == (UNREADABLE, "invalid_body", "config")
    assert (row["_topic"], row["_partition"], row["_offset"]) == ("late-receipts", 3, 42)
    assert row["event_id"] != other[0]


def test_a_value_of_another_record_is_refused() -> None:
    outcome = EXAMPLES["Outcome/delivered"][1]
    with pytest.raises(LookupError):
        to_row(_inbound("accepted.bulk", outcome), "t")


def test_the_columns_are_those_of_the_table() -> None:
    sql = (resource("deploy") / "clickhouse" / "001_events.sql").read_text(encoding="utf-8")
    for name, kind in COLUMNS.items():
        assert re.search(rf"^    {name} +{re.escape(kind)}[ ,]", sql, re.MULTILINE), name


LONGS = st.integers(-(2**63), 2**63 - 1)
FITS = {
    "String": lambda value: isinstance(value, str),
    "LowCardinality(String)": lambda value: isinstance(value, str),
    "Bool": lambda value: isinstance(value, bool),
    "Int32": lambda value: isinstance(value, int) and abs(value) < 2**31,
    "Int64": lambda value: isinstance(value, int) and -(2**63) <= value < 2**63,
    "DateTime64(3, 'UTC')": lambda value: isinstance(value, int) and 0 <= value < 1.05e13,
    "Nullable(DateTime64(3, 'UTC'))": lambda value: value is None or 0 <= value < 1.05e13,
}


@given(
    example=st.sampled_from(sorted(EXAMPLES)),
    number=LONGS,
    amount=st.floats(allow_nan=True, allow_infinity=True),
    text=st.text(st.characters(exclude_categories=["Cs"])),
    header=st.binary(max_size=60),
)
def test_every_value_fits_its_column_whatever_the_record_says(
    example: str, number: int, amount: float, text: str, header: bytes
) -> None:
    topic, value = EXAMPLES[example]
    value = {
        name: {int: number, float: amount, str: text}.get(type(found), found)
        for name, found in value.items()
    }
    if isinstance(value.get("attempts"), list):
        changed = {"cost": amount, "latency_ms": number}
        value["attempts"] = [{**attempt, **changed} for attempt in value["attempts"]]
    record = Inbound(topic, 0, 0, APPENDED, None, value, (("traceparent", header),))
    row = dict(zip(COLUMNS, to_row(record, "t"), strict=True))
    assert [name for name, kind in COLUMNS.items() if not FITS[kind](row[name])] == []
    assert abs(row["cost_micros"]) < 10**18
    assert not row["attempts_json"] or isinstance(orjson.loads(row["attempts_json"]), list)
    assert row["trace_id"] == "" or re.fullmatch("[0-9a-f]{32}", row["trace_id"])


@pytest.mark.parametrize(
    ("cost", "micros"),
    [(0.0, 0), (0.0499, 49_900), (-1.5, -1_500_000), (math.nan, 0), (math.inf, 0), (1e300, 0)],
)
def test_a_cost_is_kept_in_millionths(cost: float, micros: int) -> None:
    topic, event = EXAMPLES["Event/dispatched"]
    assert _row(topic, {**event, "cost": cost})["cost_micros"] == micros


if __name__ == "__main__":
    GOLDEN.write_text(
        json.dumps({name: _row(*example) for name, example in EXAMPLES.items()}, indent=2) + "\n"
    )
