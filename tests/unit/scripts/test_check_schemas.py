"""A schema may change only so that it and every released version read each other's records."""

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts import check_schemas

INNER = {
    "type": "record", "name": "Inner", "doc": "In.",
    "fields": [{"name": "n", "type": "int", "default": 0}],
}  # fmt: skip
BASE: dict[str, Any] = {
    "type": "record",
    "name": "Thing",
    "namespace": "delivery",
    "fields": [
        {"name": "id", "type": "string", "default": ""},
        {"name": "count", "type": "int", "default": 0},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "default": 0},
        {"name": "campaign", "type": ["null", "string"], "default": None},
        {"name": "inner", "type": INNER, "default": {"n": 1}},
        {"name": "again", "type": ["null", "Inner"], "default": None},
        {"name": "many", "type": {"type": "array", "items": "Inner"}, "default": []},
        {"name": "labels", "type": {"type": "map", "values": "string"}, "default": {}},
    ],
}


def changed(**types: Any) -> dict[str, Any]:
    """BASE with other types; None removes a field, a name that is new adds one."""
    found = copy.deepcopy(BASE)
    for name, kind in types.items():
        field = next((one for one in found["fields"] if one["name"] == name), None)
        if kind is None:
            found["fields"].remove(field)
        elif field is None:
            found["fields"].append({"name": name, **kind})
        else:
            field["type"] = kind
    return found


def problems(now: Any) -> list[check_schemas.Problem]:
    return list(check_schemas.compare("thing.avsc", now, "1.0.0", BASE))


def test_the_schemas_of_this_release_fit_the_released_ones():
    assert check_schemas.check() == []
    assert list((check_schemas.SCHEMAS / check_schemas.RELEASED).glob("*/event.avsc"))


@pytest.mark.parametrize(
    "now",
    [
        BASE,
        changed(colour={"type": "string", "default": "none"}),
        changed(count=None),
        changed(labels={"type": "map", "values": "bytes"}),  # Avro reads either as the other
    ],
)
def test_what_both_can_read_is_allowed(now: Any):
    assert problems(now) == []


@pytest.mark.parametrize(
    ("now", "field", "words"),
    [
        (changed(colour={"type": "string"}), "colour", "it has no default"),
        (changed(count="long"), "count", "a reader of 1.0.0: long is read as int"),
        (changed(count="string"), "count", "int is read as string"),
        (changed(at="long"), "at", "timestamp-millis is read as long"),
        (changed(campaign="string"), "campaign", "null is read as string"),
        (changed(campaign=["null", "string", "int"]), "campaign", "int is read as null or string"),
        (changed(many={"type": "array", "items": "string"}), "many[]", "Inner|record"),
        (changed(labels={"type": "map", "values": "int"}), "labels{}", "string is read as int"),
        (
            changed(inner={**INNER, "fields": [{"name": "m", "type": "int"}]}),
            "inner.m",
            "it has no default",
        ),
        (
            changed(inner={**INNER, "fields": [{"name": "n", "type": "string", "default": ""}]}),
            "again.n",
            "string",
        ),
        ({**BASE, "name": "Other"}, "", "Thing is read as Other"),
    ],
)
def test_what_one_side_cannot_read_is_named_with_its_field(now: Any, field: str, words: str):
    found = problems(now)
    assert field in [one.field for one in found]
    said = " ".join(map(str, found))
    assert any(word in said for word in words.split("|"))
    assert all(one.cause and one.cure and one.release == "1.0.0" for one in found)


PRIMITIVES = st.sampled_from(["int", "long", "float", "double", "string", "bytes", "boolean"])
VALUES = {
    "int": 7, "long": 1 << 40, "float": 0.5, "double": 0.25, "string": "é", "bytes": b"x",
    "boolean": True, "null": None,
}  # fmt: skip
KINDS = st.one_of(
    PRIMITIVES,
    st.lists(PRIMITIVES, min_size=1, max_size=2, unique=True).map(lambda found: ["null", *found]),
    PRIMITIVES.map(lambda inner: {"type": "array", "items": inner}),
)


def _examples(kind: Any) -> list[Any]:
    if isinstance(kind, list):
        return [(one, VALUES[one]) if one != "null" else None for one in kind]
    if isinstance(kind, dict):
        return [[VALUES[kind["items"]]]]
    return [VALUES[kind]]


@settings(max_examples=150, deadline=None)
@given(writer=KINDS, reader=KINDS)
def test_an_independent_reader_agrees(writer: Any, reader: Any):
    """What is called readable is read by fastavro, for every branch that may be written."""

    def of(kind: Any) -> dict[str, Any]:
        return {"type": "record", "name": "T", "fields": [{"name": "f", "type": kind}]}

    side = check_schemas.Side
    if check_schemas.Comparison(side(of(reader)), side(of(writer))).run():
        return
    for value in _examples(writer):
        raw = io.BytesIO()
        schemaless_writer(raw, parse_schema(of(writer)), {"f": value})
        raw.seek(0)
        schemaless_reader(raw, parse_schema(of(writer)), parse_schema(of(reader)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "thing.avsc").write_text(json.dumps(BASE))
    assert check_schemas.main(["--release", "1.0.0"], tmp_path) == 0
    return tmp_path


def test_a_refused_change_is_told_to_people_and_programs(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    (folder / "thing.avsc").write_text(json.dumps(changed(count="string")))
    capsys.readouterr()
    assert check_schemas.main([], folder) == 1
    said = capsys.readouterr().out
    assert "thing.avsc: count: records of 1.0.0: int is read as string" in said
    assert "keep the type; add a field with another name" in said
    assert check_schemas.main(["--json"], folder) == 1
    (first, second) = json.loads(capsys.readouterr().out)
    assert (first["field"], second["field"], first["release"]) == ("count", "count", "1.0.0")
    # And nothing is released with it.
    assert check_schemas.main(["--release", "1.1.0"], folder) == 1
    assert not (folder / "released" / "1.1.0").exists()


def test_every_release_counts_not_only_the_last(folder: Path):
    (folder / "thing.avsc").write_text(json.dumps(changed(count=None)))
    assert check_schemas.main(["--release", "1.1.0"], folder) == 0
    (folder / "thing.avsc").write_text(json.dumps(changed(count="string")))
    assert {one.release for one in check_schemas.check(folder)} == {"1.0.0"}


def test_a_schema_that_is_gone_is_missed(folder: Path):
    (folder / "thing.avsc").unlink()
    (problem,) = check_schemas.check(folder)
    assert "it is gone" in problem.cause


@pytest.mark.parametrize("version", ["1.0.0", "next"])
def test_a_release_is_a_new_version(folder: Path, version: str, capsys: pytest.CaptureFixture[str]):
    assert check_schemas.main(["--release", version], folder) == 2
    assert "check_schemas: " in capsys.readouterr().err


def test_a_file_that_is_no_json_is_no_answer(folder: Path):
    (folder / "thing.avsc").write_text("{")
    assert check_schemas.main([], folder) == 2
