"""Catalogue, schemas, records, examples, code and documents say the same."""

import importlib
import json
import pkgutil
import re
import types
import typing
from pathlib import Path
from typing import Any

import pytest

import pipeline.stages
from pipeline.channels import CHANNELS
from pipeline.commands.topics import markdown
from pipeline.domain.policy import CHANNEL_ADDRESS
from pipeline.domain.records import PRIORITIES
from pipeline.runtime.codec import Codec, file_name, from_json, load_schemas
from pipeline.topology import CATALOGUE, RECORDS, STAGES, resource

ROOT = Path(__file__).resolve().parent.parent
SCHEMAS = {name: json.loads(schema.text) for name, schema in load_schemas().items()}
EXAMPLES = ROOT / "schemas" / "examples"

# A time is an integer of milliseconds; these are times without `_at` at the end of their names.
TIMES = {"deadline", "callbacks_through", "joined_through"}

# Written by the runtime beside the stage: how far it has listened, its journal, its state.
BY_RUNTIME = {
    "receipts": {"progress", "receipts.changelog"},
    "fallback": {"fallback.changelog"},
    "dispatch": {"dispatch.journal"},
}


# ---------------------------------------------------------------------------- schemas and records


def _definitions(schema: Any, found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every record defined inside a schema, by its bare name."""
    if isinstance(schema, list):
        for part in schema:
            _definitions(part, found)
    elif isinstance(schema, dict):
        if schema.get("type") == "record":
            found[schema["name"]] = schema
        for field in schema.get("fields", ()):
            _definitions(field["type"], found)
        for key in ("items", "values", "type"):
            _definitions(schema.get(key), found)
    return found


def _fits(hint: Any, kind: Any, field: str) -> bool:
    """Whether an Avro type is what a Python type says."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        (other,) = [part for part in inside if part is not type(None)]
        return isinstance(kind, list) and kind[0] == "null" and _fits(other, kind[1], field)
    if origin is list:
        return kind["type"] == "array" and _fits(inside[0], kind["items"], field)
    if origin is dict:
        return kind["type"] == "map" and _fits(inside[1], kind["values"], "")
    if hint is int and (field.endswith("_at") or field in TIMES):
        return bool(kind == {"type": "long", "logicalType": "timestamp-millis"})
    plain = {
        str: ("string",),
        int: ("int", "long"),
        float: ("double",),
        bool: ("boolean",),
        bytes: ("bytes",),
    }
    if hint in plain:
        return kind in plain[hint]
    name = kind["name"] if isinstance(kind, dict) else str(kind).rpartition(".")[2]
    return bool(name == hint.__name__)


def _typed_dict(name: str) -> Any:
    return getattr(importlib.import_module("pipeline.domain.records"), name)


@pytest.mark.parametrize("record", sorted(RECORDS))
def test_schema_and_record_agree_field_by_field(record: str):
    for name, definition in _definitions(SCHEMAS[record], {}).items():
        hints = typing.get_type_hints(_typed_dict(name))
        kinds = {field["name"]: field["type"] for field in definition["fields"]}
        assert list(kinds) == list(hints), f"{name} in {file_name(record)}"
        for field, hint in hints.items():
            assert _fits(hint, kinds[field], field), (
                f"{file_name(record)}: {name}.{field} is {kinds[field]}, the record says {hint}"
            )


@pytest.mark.parametrize("record", sorted(RECORDS))
def test_everything_in_a_schema_has_doc_and_default(record: str):
    for name, definition in _definitions(SCHEMAS[record], {}).items():
        assert definition["doc"].strip(), name
        for field in definition["fields"]:
            assert field.get("doc", "").strip(), f"{name}.{field['name']} has no doc"
            assert "default" in field, f"{name}.{field['name']} has no default"


@pytest.mark.parametrize("record", sorted(RECORDS))
def test_every_record_names_its_version_and_tenant_first(record: str):
    names = [field["name"] for field in SCHEMAS[record]["fields"]]
    assert names[0] == "record_version"
    assert "tenant" in names
    assert SCHEMAS[record]["namespace"] == "delivery"
    assert SCHEMAS[record]["name"] == record


def test_a_record_is_the_same_wherever_it_is_defined():
    """Schemas stand alone, so a nested record is repeated; the repetitions may not drift."""
    first: dict[str, tuple[str, Any]] = {}
    for record, schema in sorted(SCHEMAS.items()):
        for name, definition in _definitions(schema, {}).items():
            shape = _shape(definition)
            where, expected = first.setdefault(name, (record, shape))
            assert shape == expected, f"{name} in {file_name(record)} and {file_name(where)}"


def _shape(kind: Any) -> Any:
    """A type without docs, with nested records by name: where they are defined does not matter."""
    if isinstance(kind, list):
        return [_shape(part) for part in kind]
    if not isinstance(kind, dict):
        return str(kind).rpartition(".")[2]
    if kind.get("type") != "record":
        return {key: _shape(part) for key, part in kind.items()}
    return [
        (field["name"], _named(field["type"]), json.dumps(field["default"]))
        for field in kind["fields"]
    ]


def _named(kind: Any) -> Any:
    if isinstance(kind, list):
        return [_named(part) for part in kind]
    if isinstance(kind, dict):
        if kind.get("type") == "record":
            return kind["name"]
        return {key: _named(part) for key, part in kind.items()}
    return str(kind).rpartition(".")[2]


def test_content_stands_only_where_the_catalogue_says_so():
    """G9: no text, address or raw bytes in any topic that is not marked `content: true`."""
    for topic in CATALOGUE:
        for record in topic.records.values():
            definitions = _definitions(SCHEMAS[record], {})
            fields = {field["name"] for found in definitions.values() for field in found["fields"]}
            private = {"text", "html", "address", "phone", "email", "body", "raw_key", "raw_value"}
            assert topic.content or not fields & private, f"{topic.name}: {fields & private}"


def test_there_is_a_schema_for_each_record_and_no_other():
    files = {path.name for path in (ROOT / "schemas").glob("*.avsc")}
    assert files == {file_name(record) for record in RECORDS}


# ---------------------------------------------------------------------------------------- examples


@pytest.mark.parametrize("record", sorted(RECORDS))
def test_examples_are_valid_whole_and_survive_the_wire(record: str):
    schema, codec = load_schemas()[record], Codec()
    paths = sorted((EXAMPLES / record).glob("*.json"))
    assert len(paths) >= 2
    for path in paths:
        value = json.loads(path.read_text(encoding="utf-8"))
        assert list(value) == [field["name"] for field in SCHEMAS[record]["fields"]], path
        filled = from_json(schema, value)
        assert codec.decode(codec.encode(record, filled)) == (record, filled), path
        _is_whole(_typed_dict(record), filled, str(path))


def _is_whole(kind: Any, value: Any, where: str) -> None:
    """Nothing was left out, nothing is there too much, at any depth."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if value is None:
        assert type(None) in inside, where
    elif origin in (types.UnionType, typing.Union):
        _is_whole(next(part for part in inside if part is not type(None)), value, where)
    elif origin is list:
        for part in value:
            _is_whole(inside[0], part, where)
    elif origin is None and hasattr(kind, "__total__"):
        hints = typing.get_type_hints(kind)
        assert value.keys() == hints.keys(), where
        for name, hint in hints.items():
            _is_whole(hint, value[name], f"{where}: {name}")


def test_no_example_without_a_record():
    assert {path.name for path in EXAMPLES.iterdir()} == set(RECORDS)


def test_event_examples_are_of_every_kind():
    kinds = {json.loads(path.read_text())["kind"] for path in (EXAMPLES / "Event").glob("*.json")}
    topics = {topic.name.replace("-", "_") for topic in CATALOGUE.records["Event"]}
    assert kinds <= topics
    assert kinds >= topics - {"read"}  # a read looks like a delivered


# --------------------------------------------------------------------------------------- the stages


def test_lanes_are_the_priorities_and_channels_the_channels():
    assert CATALOGUE.lanes == PRIORITIES
    assert set(CATALOGUE.channels) == set(CHANNELS) == set(CHANNEL_ADDRESS)


def _stage_modules() -> dict[str, Any]:
    modules = [
        importlib.import_module(f"pipeline.stages.{found.name}")
        for found in pkgutil.iter_modules(pipeline.stages.__path__)
    ]
    return {module.STAGE: module for module in modules if hasattr(module, "STAGE")}


def test_every_stage_of_the_catalogue_is_a_module_and_the_other_way_round():
    assert set(_stage_modules()) == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_writes_and_reads_what_the_catalogue_says(stage: str):
    module = _stage_modules()[stage]
    written = {topic.name for topic in CATALOGUE.written_by(stage)}
    assert _spread(module.WRITES) | BY_RUNTIME.get(stage, set()) == written
    inputs = {topic.name for topic in CATALOGUE.inputs(stage)}
    assert _spread(module.READS) == inputs


def _spread(names: tuple[str, ...]) -> set[str]:
    """Names as they are, and what stands for one topic per lane and channel as all of them."""
    found = {topic.name for topic in CATALOGUE if {topic.name, topic.template} & set(names)}
    unknown = set(names) - {topic.template for topic in CATALOGUE} - set(CATALOGUE.topics)
    return found | unknown


# --------------------------------------------------------------------------------------- documents


def test_the_topic_table_is_made_from_the_catalogue():
    shown = (ROOT / "docs" / "topics.md").read_text(encoding="utf-8")
    assert shown == markdown(CATALOGUE), "run `pipeline topics list > docs/topics.md`"


def _documents() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("document", _documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_in_documents_exist(document: Path):
    """Links, and paths in code marks that begin with one of our folders."""
    text = document.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    missing = [
        link
        for link in links
        if not re.match(r"[a-z]+:", link) and not (document.parent / link).exists()
    ]
    folders = "|".join(
        path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "."
    )
    marked = re.findall(rf"`((?:{folders})/[A-Za-z0-9_./-]*)`", text)
    missing += [
        path for path in marked if not path.startswith("build/") and not (ROOT / path).exists()
    ]
    assert not missing


def test_what_ships_is_found():
    for name in ("topics.yaml", "schemas", "schemas/examples"):
        assert resource(name).exists()
