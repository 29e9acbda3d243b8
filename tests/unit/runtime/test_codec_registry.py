"""The codec with a schema registry, over real HTTP."""

import json
import socket
from collections.abc import Iterator

import pytest

from pipeline.domain.errors import Undecodable
from pipeline.runtime.codec import Codec, load_schemas
from pipeline.runtime.registry import Registry, RegistryRefused, RegistryUnavailable
from tests.unit.runtime.fake_registry import RegistryServer, serving

SCHEMAS = load_schemas()


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with serving() as found:
        yield found


@pytest.fixture
def registry(server: RegistryServer) -> Iterator[Registry]:
    found = Registry(server.url, timeout_s=2.0)
    yield found
    found.close()


@pytest.fixture
def codec(registry: Registry) -> Codec:
    found = Codec(registry, prefix="test.")
    found.start()
    return found


def test_records_carry_the_registrys_id(codec: Codec, server: RegistryServer):
    raw = codec.encode("Event", {"kind": "delivered"})
    assert raw[0] == 0
    held = server.schemas[int.from_bytes(raw[1:5], "big")]
    assert json.loads(held["schema"])["name"] == "Event"
    name, value = codec.decode(raw)
    assert (name, value["kind"]) == ("Event", "delivered")


def test_subjects_are_those_that_other_tools_expect(codec: Codec, server: RegistryServer):
    assert len(server.subjects["test.intake-value"]) == 1
    assert len(server.subjects["test.send.sms.urgent-value"]) == 1
    assert "test.fallback.changelog-delivery.MessageState" in server.subjects
    assert "test.fallback.changelog-delivery.Ledger" in server.subjects
    assert "test.fallback.changelog-value" not in server.subjects


def test_both_framings_are_read_whichever_is_configured(codec: Codec):
    assert codec.decode(Codec().encode("Event", {"kind": "read"}))[1]["kind"] == "read"


def test_ids_are_asked_once(codec: Codec, server: RegistryServer, registry: Registry):
    raw = codec.encode("Event", {"kind": "read"})
    before = len(server.requests)
    for _ in range(20):
        codec.decode(raw)
    assert len(server.requests) == before
    stranger = Codec(registry)
    for _ in range(20):
        stranger.decode(raw)
    assert len(server.requests) == before + 1


def test_another_writers_schema_is_resolved(codec: Codec, server: RegistryServer):
    """A client that knows two fields only, and one that we do not know."""
    other = {
        "type": "record",
        "name": "SendRequest",
        "namespace": "delivery",
        "fields": [
            {"name": "campaign", "type": ["null", "string"]},
            {"name": "colour", "type": "string"},
        ],
    }
    number = server.add(json.dumps(other))
    raw = b"\x00" + number.to_bytes(4, "big") + b"\x02\x06may" + b"\x06red"
    name, value = codec.decode(raw)
    assert (name, value["campaign"], value["labels"]) == ("SendRequest", "may", {})
    assert "colour" not in value


def test_an_id_that_the_registry_denies_is_a_bad_record(codec: Codec):
    with pytest.raises(Undecodable) as caught:
        codec.decode(b"\x00\x00\x0f\xff\xff rest")
    assert caught.value.code == "unknown_schema"


@pytest.mark.parametrize(
    ("schema", "kind", "code"),
    [
        ('{"type": "record", "name": "Order", "fields": []}', "AVRO", "unknown_record"),
        ('"string"', "AVRO", "unknown_schema"),
        ('{"type": "record", "name": "Event", "fields": 7}', "AVRO", "unknown_schema"),
        ('{"type": "record", "name": "Event"}', "AVRO", "invalid_body"),
        ('syntax = "proto3";', "PROTOBUF", "unknown_schema"),
    ],
)
def test_schemas_of_others_are_no_records_of_ours(
    codec: Codec, server: RegistryServer, schema: str, kind: str, code: str
):
    number = server.add(schema, kind)
    with pytest.raises(Undecodable) as caught:
        codec.decode(b"\x00" + number.to_bytes(4, "big") + b"\x02\x02")
    assert caught.value.code == code


@pytest.mark.parametrize(
    "failing", [(500, b""), (503, b"{}"), (429, b""), (401, b""), (200, b"<html>"), (200, b"[]")]
)
def test_a_registry_that_cannot_answer_is_waited_for(
    codec: Codec, server: RegistryServer, failing: tuple[int, bytes]
):
    """The record is not at fault: it is neither dropped nor dead-lettered, and read afterwards."""
    number = server.add(SCHEMAS["Event"].text + " ")
    raw = b"\x00" + number.to_bytes(4, "big") + codec.encode("Event", {"kind": "read"})[5:]
    server.failing = failing
    with pytest.raises(RegistryUnavailable):
        codec.decode(raw)
    server.failing = None
    assert codec.decode(raw)[1]["kind"] == "read"


def test_a_registry_that_is_away_is_waited_for():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        registry = Registry(f"http://127.0.0.1:{taken.getsockname()[1]}", timeout_s=1.0)
        codec = Codec(registry)
        with pytest.raises(RegistryUnavailable):
            codec.start()
        with pytest.raises(RegistryUnavailable):
            codec.decode(b"\x00\x00\x00\x00\x07")
        registry.close()


def test_a_schema_that_the_registry_refuses_stops_the_start(
    server: RegistryServer, registry: Registry
):
    server.failing = (
        409,
        b'{"error_code": 409, "message": "Schema being registered is incompatible"}',
    )
    with pytest.raises(RegistryRefused, match="is incompatible"):
        Codec(registry).start()


def test_nothing_is_encoded_before_the_start(registry: Registry):
    with pytest.raises(KeyError):
        Codec(registry).encode("Event", {})


def test_a_registry_is_pinged_where_its_interface_is(server: RegistryServer, registry: Registry):
    registry.ping()
    assert server.requests == ["GET /config"]
    server.failing = (404, b"{}")
    with pytest.raises(RegistryRefused, match="is the path of the address right"):
        registry.ping()
    server.failing = (503, b"{}")
    with pytest.raises(RegistryUnavailable, match="answered 503"):
        registry.ping()
