"""The document says what the code does: the same fields, the same limits, and the same file."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from pipeline.commands.openapi import text
from pipeline.domain import api, records
from pipeline.domain.openapi import document

ROOT = Path(__file__).resolve().parents[3]
SCHEMAS: dict[str, Any] = document()["components"]["schemas"]


def test_the_file_is_the_document():
    shown = (ROOT / "docs" / "openapi.json").read_text(encoding="utf-8")
    assert shown == text(), "run `pipeline openapi > docs/openapi.json`"


@pytest.mark.parametrize(
    ("said", "record", "without"),
    [
        (api.NewMessage, records.SendRequest, {"record_version", "tenant"}),
        (api.ToPerson, records.Recipient, set()),
        (api.Said, records.Content, set()),
        (api.RouteStep, records.RequestStep, set()),
    ],
)
def test_a_message_has_the_fields_of_the_record(said: type, record: type, without: set[str]):
    assert set(SCHEMAS[said.__name__]["properties"]) == set(record.__annotations__) - without


@pytest.mark.parametrize("path", sorted((ROOT / "schemas/examples/SendRequest").glob("*.json")))
def test_the_examples_of_requests_fit(path: Path):
    message = json.loads(path.read_text(encoding="utf-8"))
    del message["record_version"], message["tenant"]
    whole = {**document(), "$ref": "#/components/schemas/NewMessage"}
    jsonschema_rs.validate(whole, message)
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.validate(whole, {**message, "other": 1})


def test_every_schema_and_answer_explains_itself_and_every_reference_is_there():
    whole = document()
    for path in whole["paths"].values():
        for operation in path.values():
            assert operation["summary"]
            assert operation["operationId"]
            assert all(answer["description"] for answer in operation["responses"].values())
    for schema in SCHEMAS.values():
        assert schema["description"]
    found = json.dumps(whole)
    for name in SCHEMAS:
        assert f"#/components/schemas/{name}" in found
    assert found.count("$ref") == sum(found.count(f'schemas/{name}"') for name in SCHEMAS)
