"""The catalogue as rights and as an AsyncAPI document."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastavro import parse_schema

from pipeline.commands import topic_acls, topic_asyncapi, topics
from pipeline.topology import CATALOGUE, STAGES, resource

ROOT = Path(__file__).resolve().parents[3]
KEPT = ROOT / "docs" / "asyncapi.yaml"


@pytest.fixture(autouse=True)
def _prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIPELINE_PREFIX", raising=False)


# ---------------------------------------------------------------------------------------- AsyncAPI


def test_the_kept_document_is_current(capsys: pytest.CaptureFixture[str]):
    assert topics.asyncapi() == topics.OK
    made = capsys.readouterr().out
    assert made == KEPT.read_text("utf-8"), "run `pipeline topics asyncapi > docs/asyncapi.yaml`"
    assert topics.asyncapi(as_json=True) == topics.OK
    assert json.loads(capsys.readouterr().out) == yaml.safe_load(made)


def document() -> dict[str, Any]:
    return topic_asyncapi.document(CATALOGUE, "p.", resource("schemas"))


def test_every_topic_is_an_address_and_every_record_a_schema():
    found = document()
    addresses = set()
    for channel in found["channels"].values():
        names = [channel["address"]]
        for parameter, about in channel.get("parameters", {}).items():
            names = [n.replace(f"{{{parameter}}}", v) for n in names for v in about["enum"]]
        addresses |= set(names)
    assert addresses == {f"p.{topic.name}" for topic in CATALOGUE}
    assert set(found["components"]["schemas"]) == set(CATALOGUE.records)
    for schema in found["components"]["schemas"].values():
        parse_schema(schema["schema"], named_schemas={})


def test_operations_are_what_the_stages_do():
    operations = document()["operations"]
    for topic in CATALOGUE:
        name = topic_asyncapi.channel_id(topic)
        for stage in STAGES:
            assert (f"{stage}.receives.{name}" in operations) == (stage in topic.readers)
            assert (f"{stage}.sends.{name}" in operations) == (stage in topic.writers)
    bulk = operations["accept.receives.intake.bulk"]["bindings"]["kafka"]["groupId"]
    assert bulk["enum"] == ["p.accept-bulk"]


def test_every_reference_leads_somewhere():
    found = document()

    def references(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            if "$ref" in part:
                yield part["$ref"]
            for value in part.values():
                yield from references(value)

    named = list(references(found))
    assert named
    for name in named:
        place: Any = found
        for step in name.removeprefix("#/").split("/"):
            place = place[step]


# -------------------------------------------------------------------------------------------- ACLs


def test_stages_read_and_write_exactly_their_topics():
    found = topic_acls.acls(CATALOGUE, "p.")
    for stage in STAGES:
        mine = [one for one in found if one.principal == f"User:pipeline-{stage}"]
        assert all(one.pattern == "literal" for one in mine if one.resource == "topic")
        for operation, topics_of in (("Read", CATALOGUE.read_by), ("Write", CATALOGUE.written_by)):
            names = {
                one.name for one in mine if one.resource == "topic" and one.operation == operation
            }
            assert names == {f"p.{topic.name}" for topic in topics_of(stage)}
        groups = {one.name for one in mine if one.resource == "group" and one.operation == "Read"}
        assert groups == {f"p.{group}" for group in CATALOGUE.groups(stage)}
    assert "All" not in {one.operation for one in found}


def test_no_stage_begins_with_the_name_of_another():
    """Transactional ids are allowed by their beginning."""
    found = topic_acls.acls(CATALOGUE, "p.")
    names = {one.name for one in found if one.resource == "transactional-id"}
    assert names == {f"p.{stage}-" for stage in ("accept", "fallback", "dispatch", "receipts")}
    assert not any(one != other and one.startswith(other) for one in names for other in names)


def test_the_commands_say_the_same_as_the_rights():
    found = topic_acls.acls(CATALOGUE, "p.")
    told = set()
    for command in topic_acls.commands(found):
        words = shlex.split(command)
        assert words[:2] == ["kafka-acls", "--bootstrap-server"]
        values: dict[str, list[str]] = {}
        for option, value in zip(words[1::2], words[2::2], strict=False):
            if option == "--add":
                break
            values.setdefault(option, []).append(value)
        rest = words[words.index("--add") + 1 :]
        for option, value in zip(rest[::2], rest[1::2], strict=True):
            values.setdefault(option, []).append(value)
        (principal,), (pattern,) = values["--allow-principal"], values["--resource-pattern-type"]
        for resource_type in ("topic", "group", "transactional-id"):
            for name in values.get(f"--{resource_type}", ()):
                for operation in values["--operation"]:
                    told.add(topic_acls.Acl(principal, operation, resource_type, name, pattern))
    assert told == set(found)


def test_a_principal_has_a_type(capsys: pytest.CaptureFixture[str]):
    assert topics.acls(principal="nobody") == topics.UNABLE
    assert "--principal: 'nobody' is no principal" in capsys.readouterr().err
    assert topics.acls(principal="User:CN=delivery-", as_json=True) == topics.OK
    assert json.loads(capsys.readouterr().out)[0]["principal"] == "User:CN=delivery-accept"
