"""`pipeline topics` as people and programs use it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.commands import topics
from pipeline.topology import CATALOGUE
from tests.broker.topics_world import World


@pytest.fixture
def world(kafka: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)
    monkeypatch.setenv("PIPELINE_PREFIX", prefix)
    monkeypatch.setenv("PIPELINE_PEPPER", "00112233445566778899aabbccddeeff")
    found = World(kafka, prefix)
    yield found
    found.clean()


def _json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_plan_apply_and_a_problem(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert topics.plan(partitions=2, as_json=True) == topics.OK
    shown = _json(capsys)
    assert (shown["empty"], shown["applied"], shown["partitions"]) == (False, False, 2)
    created = [change["subject"] for change in shown["changes"] if change["action"] == "create"]
    assert created == list(CATALOGUE.topics)

    assert topics.apply(partitions=2) == topics.OK
    assert f"{len(shown['changes'])} changes done" in capsys.readouterr().out
    assert topics.plan(as_json=True) == topics.OK
    assert _json(capsys) == {
        "empty": True,
        "applied": False,
        "partitions": 2,
        "changes": [],
        "problems": [],
    }

    assert topics.apply(partitions=3) == topics.BAD
    assert "cannot be applied: partitions is 3 here and 2 in the cluster" in capsys.readouterr().out
    monkeypatch.setenv("PIPELINE_PEPPER", "ffffffffffffffffffffffffffffffff")
    assert topics.plan() == topics.BAD
    assert "pepper_fingerprint is" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "", "KAFKA_BOOTSTRAP_SERVERS: it is not set"),
        ("PIPELINE_PEPPER", "", "PIPELINE_PEPPER: it is not set"),
        ("PIPELINE_PREFIX", "with space", "PIPELINE_PREFIX"),
        ("SCHEMA_REGISTRY_URL", "http://127.0.0.1:1", "127.0.0.1:1 did not answer"),
    ],
)
def test_what_keeps_it_from_running(
    world: World,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    said: str,
):
    monkeypatch.setenv(name, value)
    assert topics.plan() == topics.UNABLE
    assert said in capsys.readouterr().err


def test_a_count_must_be_a_count(world: World, capsys: pytest.CaptureFixture[str]):
    assert topics.apply(partitions=0) == topics.UNABLE
    assert "--partitions: 0 is no count" in capsys.readouterr().err


def test_the_catalogue_for_programs(capsys: pytest.CaptureFixture[str]):
    assert topics.list_(as_json=True) == topics.OK
    shown = {topic["name"]: topic for topic in _json(capsys)}
    assert set(shown) == set(CATALOGUE.topics)
    assert shown["fallback.changelog"]["records"]["m"] == "MessageState"
    assert shown["send.sms.bulk"]["config"]["cleanup.policy"] == "delete"
