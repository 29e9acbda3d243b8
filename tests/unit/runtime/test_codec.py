"""Bytes of every kind become a record or an `Undecodable`, and nothing else."""

import io
import json
import struct
from pathlib import Path

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.errors import Undecodable
from pipeline.runtime.codec import (
    Codec,
    Schema,
    from_json,
    load_history,
    load_schemas,
    read_schema,
)
from pipeline.topology import resource

SCHEMAS = load_schemas()
CODEC = Codec()
EXAMPLES = {
    f"{path.parent.name}/{path.stem}": (path.parent.name, json.loads(path.read_text()))
    for path in sorted((resource("schemas") / "examples").glob("*/*.json"))
}
FILLED = {name: from_json(SCHEMAS[record], value) for name, (record, value) in EXAMPLES.items()}
RAW = {name: CODEC.encode(EXAMPLES[name][0], value) for name, value in FILLED.items()}
NAMES = sorted(EXAMPLES)


def crc_64_avro(text: str) -> int:
    """The fingerprint as the Avro specification spells it, from scratch."""
    empty = 0xC15D213AA4D7A795
    table = []
    for number in range(256):
        value = number
        for _ in range(8):
            value = (value >> 1) ^ (empty & -(value & 1))
        table.append(value)
    found = empty
    for byte in text.encode():
        found = (found >> 8) ^ table[(found ^ byte) & 0xFF]
    return found


def test_the_fingerprint_function_agrees_with_the_specification():
    assert crc_64_avro('"null"') == 7195948357588979594


@pytest.mark.parametrize("record", sorted(SCHEMAS))
def test_the_head_is_avro_single_object_encoding(record: str):
    schema = SCHEMAS[record]
    canonical = fastavro.schema.to_parsing_canonical_form(json.loads(schema.text))
    head = b"\xc3\x01" + struct.pack("<Q", crc_64_avro(canonical))
    assert CODEC.encode(record, {}).startswith(head)


@pytest.mark.parametrize("name", NAMES)
def test_every_example_survives_the_way_out_and_back(name: str):
    assert CODEC.decode(RAW[name]) == (EXAMPLES[name][0], FILLED[name])


@pytest.mark.parametrize("name", NAMES)
def test_any_avro_library_reads_the_body(name: str):
    """With the file as it stands, logical types included, and only the standard's framing."""
    schema = json.loads(SCHEMAS[EXAMPLES[name][0]].text)
    body = io.BytesIO(RAW[name][10:])
    read = fastavro.schemaless_reader(body, fastavro.parse_schema(schema), None)
    assert body.read() == b""
    assert set(read) == set(FILLED[name])


def test_times_stay_integers():
    assert CODEC.decode(RAW["Event/dispatched"])[1]["occurred_at"] == 1767225600130


@pytest.mark.parametrize("record", sorted(SCHEMAS))
def test_what_is_left_out_gets_its_default(record: str):
    name, value = CODEC.decode(CODEC.encode(record, {}))
    assert name == record
    assert value["record_version"] == 1


def test_examples_may_spell_bytes_as_text_and_leave_fields_out():
    value = from_json(SCHEMAS["DeadLetter"], {"raw_value": "\xc3\x01\x00", "stage": "accept"})
    assert value["raw_value"] == b"\xc3\x01\x00"
    assert value["raw_key"] is None
    assert value["source"] == {"topic": "", "partition": 0, "offset": 0}


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (None, "null_value"),
        (b"", "empty_value"),
        (b"{}", "unknown_framing"),
        (b"\xc3", "unknown_framing"),
        (b"\xc3\x01", "unknown_framing"),
        (b"\xc3\x01" + b"\x00" * 7, "unknown_framing"),
        (b"\xc3\x01" + b"\x00" * 8, "unknown_schema"),
        (b"\xc3\x02" + RAW["Event/rejected"][2:], "unknown_framing"),
        (b"\x00", "unknown_framing"),
        (b"\x00\x00\x00\x00\x07", "no_registry"),
        (RAW["Event/rejected"][:10], "invalid_body"),
        (RAW["Event/rejected"][:-1], "invalid_body"),
        (RAW["Event/rejected"] + b"\x00", "invalid_body"),
        (RAW["Event/rejected"][:10] + RAW["Outcome/failed"][10:], "invalid_body"),
    ],
)
def test_what_cannot_be_read_says_why(raw: bytes | None, code: str):
    with pytest.raises(Undecodable) as caught:
        CODEC.decode(raw)
    assert caught.value.code == code


def test_reasons_do_not_quote_the_content():
    raw = bytearray(RAW["Message/parcel"])
    place = raw.index(b"Your parcel")
    raw[place] = 0xFF  # no UTF-8
    with pytest.raises(Undecodable) as caught:
        CODEC.decode(bytes(raw))
    assert caught.value.code == "invalid_body"
    assert "parcel" not in str(caught.value)
    assert "ff" not in caught.value.detail
    assert caught.value.__cause__ is None


def _is_safe(raw: bytes) -> None:
    try:
        name, value = CODEC.decode(raw)
    except Undecodable:
        return
    assert name in SCHEMAS
    assert set(value) == {field["name"] for field in SCHEMAS[name].parsed["fields"]}


@given(raw=st.binary(max_size=300))
def test_random_bytes_are_safe(raw: bytes):
    _is_safe(raw)


@given(name=st.sampled_from(NAMES), body=st.binary(max_size=300))
def test_random_bytes_behind_a_good_head_are_safe(name: str, body: bytes):
    _is_safe(RAW[name][:10] + body)


@given(name=st.sampled_from(NAMES), cut=st.integers(0, 10_000))
def test_truncated_records_are_refused(name: str, cut: int):
    raw = RAW[name]
    with pytest.raises(Undecodable):
        CODEC.decode(raw[: cut % len(raw)])


@given(name=st.sampled_from(NAMES), place=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_changed_byte_is_safe(name: str, place: int, byte: int):
    raw = bytearray(RAW[name])
    raw[place % len(raw)] = byte
    _is_safe(bytes(raw))


def test_another_record_is_not_taken_for_the_topics():
    with pytest.raises(Undecodable) as caught:
        CODEC.decode_as("Event", RAW["Outcome/failed"])
    assert caught.value.code == "unknown_record"
    assert CODEC.decode_as("Outcome", RAW["Outcome/failed"]) == FILLED["Outcome/failed"]


def test_a_value_that_does_not_fit_is_our_fault_and_loud():
    with pytest.raises((TypeError, ValueError)):
        CODEC.encode("Control", {"partitions": "eight"})
    with pytest.raises(KeyError):
        CODEC.encode("Nothing", {})


# ------------------------------------------------------------------------------- older writers


def _older(record: str, without: str) -> Schema:
    raw = json.loads(SCHEMAS[record].text)
    raw["fields"] = [field for field in raw["fields"] if field["name"] != without]
    return read_schema(json.dumps(raw))


def test_an_older_schema_is_read_with_todays_defaults():
    older = _older("Control", "created_at")
    writer = Codec(schemas=SCHEMAS | {"Control": older}, history=())
    raw = writer.encode("Control", {"partitions": 4})
    with pytest.raises(Undecodable, match="unknown_schema"):
        CODEC.decode(raw)
    name, value = Codec(history=[older]).decode(raw)
    assert (name, value["partitions"], value["created_at"]) == ("Control", 4, 0)


def test_a_newer_field_is_left_out_by_an_older_reader():
    older = _older("Control", "created_at")
    reader = Codec(schemas=SCHEMAS | {"Control": older}, history=[SCHEMAS["Control"]])
    name, value = reader.decode(CODEC.encode("Control", {"partitions": 4, "created_at": 5}))
    assert name == "Control"
    assert "created_at" not in value
    assert value["partitions"] == 4


def test_history_is_read_from_its_folder(tmp_path: Path):
    older = _older("Control", "created_at")
    (tmp_path / "control_1.avsc").write_text(older.text)
    assert [schema.fingerprint for schema in load_history(tmp_path)] == [older.fingerprint]
    assert load_history(tmp_path / "nothing") == []
