"""The codec and its registry client against a real registry (Apicurio, by Confluent's interface)."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.domain.errors import Undecodable
from pipeline.runtime.codec import Codec, Schema, load_schemas, read_schema
from pipeline.runtime.registry import Registry, RegistryRefused
from tests.servers.registry import EmbeddedRegistry

SCHEMAS = load_schemas()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRegistry]:
    found = EmbeddedRegistry(tmp_path_factory.mktemp("registry"))
    found.start()
    yield found
    found.stop()


@pytest.fixture
def client(server: EmbeddedRegistry) -> Iterator[Registry]:
    found = Registry(server.address)
    yield found
    found.close()


def with_field(record: str, **field: Any) -> dict[str, Schema]:
    """Our schemas, with one more field in one of them."""
    raw = json.loads(SCHEMAS[record].text)
    raw["fields"].append(field)
    return SCHEMAS | {record: read_schema(json.dumps(raw))}


COLOUR = {"name": "colour", "type": "string", "doc": "New.", "default": "none"}


def test_every_schema_is_registered_once(client: Registry, prefix: str, server: EmbeddedRegistry):
    codec = Codec(client, prefix)
    codec.start()
    Codec(client, prefix).start()
    for record in SCHEMAS:
        for subject in codec.subjects(record):
            assert server.versions(subject) == [1], subject


def test_a_stranger_reads_by_the_id_alone(client: Registry, prefix: str):
    writer = Codec(client, prefix)
    writer.start()
    raw = writer.encode("Outcome", {"message_id": "m-1", "labels": {"a": "b"}})
    assert raw[0] == 0
    name, value = Codec(client, prefix).decode(raw)
    assert (name, value["message_id"], value["labels"]) == ("Outcome", "m-1", {"a": "b"})


def test_an_id_that_it_does_not_know_is_a_bad_record(client: Registry, prefix: str):
    with pytest.raises(Undecodable) as caught:
        Codec(client, prefix).decode(b"\x00" + (999_999).to_bytes(4, "big") + b"\x02")
    assert caught.value.code == "unknown_schema"


def test_both_releases_read_each_other_while_one_replaces_the_other(
    client: Registry, prefix: str, server: EmbeddedRegistry
):
    before = Codec(client, prefix)
    before.start()
    after = Codec(client, prefix, schemas=with_field("Outcome", **COLOUR))
    after.start()
    old = before.encode("Outcome", {"message_id": "old"})
    new = after.encode("Outcome", {"message_id": "new", "colour": "red"})
    assert old[:5] != new[:5]
    read = [codec.decode(raw)[1] for codec in (before, after) for raw in (old, new)]
    assert [one["message_id"] for one in read] == ["old", "new", "old", "new"]
    assert [one.get("colour") for one in read] == [None, None, "none", "red"]
    (subject,) = before.subjects("Outcome")
    assert server.versions(subject) == [1, 2]
    # A worker of the release before that starts again registers nothing new.
    Codec(client, prefix).start()
    assert server.versions(subject) == [1, 2]


def test_an_incompatible_schema_stops_the_start_and_changes_nothing(
    client: Registry, prefix: str, server: EmbeddedRegistry
):
    codec = Codec(client, prefix)
    codec.start()
    bare = {"name": "colour", "type": "string", "doc": "Without a default."}
    with pytest.raises(RegistryRefused, match="answered 409: .*colour"):
        Codec(client, prefix, schemas=with_field("Outcome", **bare)).start()
    (subject,) = codec.subjects("Outcome")
    assert server.versions(subject) == [1]
