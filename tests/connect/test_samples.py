"""What the connectors' files name exists, also where the connector itself is not run here."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.outcomes import Emit, Inbound
from pipeline.runtime.codec import Codec
from pipeline.stages.accept import AcceptConfig, accept
from pipeline.topology import CATALOGUE, resource
from tests.broker.loop_world import policy

FOLDER = resource("deploy") / "connect"
DOCUMENT = Path(__file__).parents[2] / "docs" / "connect.md"
FILES = sorted(FOLDER.glob("*.json"))


def config(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_topics_are_the_catalogues(path: Path):
    named = [value for key, value in config(path.stem).items() if "PIPELINE_PREFIX" in str(value)]
    assert named
    for value in named:
        topic = value.removeprefix("${env:PIPELINE_PREFIX}")
        assert topic == "${routedByValue}" or topic in CATALOGUE.topics


@pytest.mark.parametrize("path", [*FILES, FOLDER / "worker.properties"], ids=lambda path: path.stem)
def test_every_variable_is_explained(path: Path):
    document = DOCUMENT.read_text(encoding="utf-8")
    for name in re.findall(r"\$\{env:(\w+)\}", path.read_text(encoding="utf-8")):
        assert f"`{name}`" in document, name


def test_the_outbox_routes_to_intake_by_a_column_that_the_table_has():
    sql = (FOLDER / "outbox.sql").read_text(encoding="utf-8")
    outbox = config("outbox-to-intake")
    columns = re.findall(r"^    (\w+) (?:uuid|text|jsonb|timestamptz)", sql, re.MULTILINE)
    for part in ("event.id", "event.key", "event.payload"):
        assert outbox[f"transforms.outbox.table.field.{part}"] in columns
    assert outbox["transforms.outbox.route.by.field"] in columns
    (lanes,) = re.findall(r"CHECK \(lane IN \((.*)\)\)", sql)
    for lane in re.findall(r"'(.+?)'", lanes):
        assert CATALOGUE.topic(lane).readers == ("accept",)
    assert outbox["publication.name"] in re.findall(r"CREATE PUBLICATION (\w+)", sql)
    assert outbox["database.user"] in re.findall(r"CREATE ROLE (\w+)", sql)


def test_a_record_of_the_outbox_router_is_one_message_however_often_it_comes():
    """The router gives the row's id as the header `id`, the key as text and the JSON column's text
    as the value."""
    header = (("id", b"4d47e190-0402-4048-bc2c-89dd54343cdc"),)
    value = b'{"to": {"phone": "+4915112345678"}, "content": {"text": "Your parcel is here"}}'
    settings = AcceptConfig(policy(), bytes(16), "cluster", Codec().decode, {"intake": "default"})
    messages = []
    for offset in (1, 2):
        (answer,) = accept(
            Inbound("intake", 0, offset, 1_000, b"customer-7", value, header), settings
        )
        assert isinstance(answer, Emit)
        assert answer.topic == "accepted.normal"
        assert answer.value is not None
        messages.append(answer.value["message_id"])
    assert messages[0] == messages[1]
