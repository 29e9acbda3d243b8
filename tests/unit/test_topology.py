"""The catalogue as it ships, and what it refuses."""

from collections.abc import Callable

import pytest

from pipeline.topology import (
    CATALOGUE,
    RECORDS,
    STAGES,
    CatalogueError,
    duration_ms,
    load,
    resource,
)

SMALL = """
lanes: [urgent, bulk]
channels: [sms, email]
defaults:
  partitions: 4
  replication: 1
  config: {message.timestamp.type: LogAppendTime}
  compacted: {delete.retention.ms: 1000}
  compacted_content: {max.compaction.lag.ms: 2000}
broker: {}
topics:
  in.{lane}:
    purpose: What comes in.
    key: any
    record: SendRequest
    partitions: shared
    retention: 3d
    content: true
    writers: [clients]
    readers: [accept]
  out.{channel}.{lane}:
    purpose: What goes out.
    key: recipient
    record: Command
    partitions: shared
    retention: 90s
    writers: [accept]
    readers: [dispatch]
  state:
    purpose: What is remembered.
    key: state key
    record: {m: MessageState, p: Profile}
    partitions: 1
    retention: compact
    content: true
    writers: [fallback]
    readers: [fallback]
tasks: {}
"""


def test_names_are_spread_over_lanes_and_channels():
    catalogue = load(SMALL)
    assert list(catalogue.topics) == [
        "in.urgent",
        "in.bulk",
        "out.sms.urgent",
        "out.sms.bulk",
        "out.email.urgent",
        "out.email.bulk",
        "state",
    ]
    topic = catalogue.topic("out.sms.bulk")
    assert (topic.channel, topic.lane, topic.template) == ("sms", "bulk", "out.{channel}.{lane}")
    assert (topic.record, topic.partitions, topic.shared) == ("Command", 4, True)


def test_retention_and_cleanup_become_what_the_broker_is_told():
    catalogue = load(SMALL)
    assert dict(catalogue.topic("out.sms.bulk").config) == {
        "message.timestamp.type": "LogAppendTime",
        "cleanup.policy": "delete",
        "retention.ms": "90000",
    }
    assert dict(catalogue.topic("state").config) == {
        "message.timestamp.type": "LogAppendTime",
        "cleanup.policy": "compact",
        "delete.retention.ms": "1000",
        "max.compaction.lag.ms": "2000",
    }


def test_a_topic_with_several_records_has_no_single_one():
    topic = load(SMALL).topic("state")
    assert dict(topic.records) == {"m": "MessageState", "p": "Profile"}
    with pytest.raises(CatalogueError, match="several records"):
        _ = topic.record


def _without(line: str) -> Callable[[str], str]:
    return lambda text: text.replace(line, "", 1)


def _instead(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_instead("record: Command", "record: Comand"), "out.{channel}.{lane}: record 'Comand'"),
        (_instead("retention: 90s", "retention: 90 s"), "retention: '90 s' is not a time"),
        (_instead("retention: 90s", "retention: 0d"), "retention: '0d' is not a time"),
        (_instead("retention: 90s", "retention: 90"), "retention is 90, which has the wrong type"),
        (_without("    retention: 90s\n"), "retention is missing"),
        (_without("    purpose: What goes out.\n"), "purpose is missing"),
        (_instead("key: recipient", "kye: recipient"), "key is missing"),
        (_instead("    key: recipient", "    colour: red\n    key: recipient"), "['colour']"),
        (_instead("readers: [dispatch]", "readers: [dispach]"), "readers names 'dispach'"),
        (_instead("readers: [dispatch]", "readers: []"), "readers is empty"),
        (_instead("writers: [accept]", "writers: [accept, accept]"), "names something twice"),
        (_instead("partitions: shared", "partitions: 0"), "partitions is 0"),
        (_instead("partitions: shared", "partitions: many"), "partitions is 'many'"),
        (_instead("partitions: shared", "partitions: true"), "partitions is True"),
        (_instead("content: true", "content: perhaps"), "content is 'perhaps'"),
        (_instead("  partitions: 4", "  partitions: 0"), "must be 1 or more"),
        (_instead("  state:", "  State:"), "a name is made of"),
        (_instead("  state:", "  in.urgent:"), "in.urgent comes from two entries"),
        (_instead("  state:", "  in.{lane}:"), "'in.{lane}' is given twice"),
        (_instead("tasks: {}", "tasks: {fallback: {lead: state}}"), "tasks fallback: lead must be"),
        (_instead("tasks: {}", "tasks: {fallback: {lead: nothing}}"), "tasks fallback: lead must"),
        (_instead("tasks: {}", "tasks: {}\nextra: 1"), "unknown keys ['extra']"),
        (_instead("lanes: [urgent, bulk]", "lanes: [urgent"), "is not YAML"),
        (lambda _: "- a\n- list\n", "the file must be a mapping"),
        (lambda _: "", "the file must be a mapping"),
        (_instead("channels: [sms, email]", "channels: sms"), "channels is 'sms'"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(damage: Callable[[str], str], said: str):
    damaged = damage(SMALL)
    assert damaged != SMALL
    with pytest.raises(CatalogueError) as caught:
        load(damaged)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1s", 1_000), ("5m", 300_000), ("72h", 259_200_000), ("3d", 259_200_000)],
)
def test_durations(text: str, expected: int):
    assert duration_ms(text) == expected


def test_positions_are_kept_where_records_are_taken_one_by_one():
    """Tables are read whole by everyone; every other input of a stage is in one of its groups."""
    for stage in STAGES:
        grouped = [topic.name for topics in CATALOGUE.groups(stage).values() for topic in topics]
        expected = {topic.name for topic in CATALOGUE.inputs(stage)} | {CATALOGUE.lead(stage)}
        assert sorted(grouped) == sorted(expected - {None})
        assert not {topic.name for topic in CATALOGUE.tables(stage)} & set(grouped)


def test_the_groups_of_the_shipped_catalogue():
    assert list(CATALOGUE.groups("accept")) == ["accept", "accept-bulk"]
    assert [topic.name for topic in CATALOGUE.groups("accept")["accept-bulk"]] == ["intake.bulk"]
    assert CATALOGUE.groups("gateway") == {}
    assert CATALOGUE.lead("fallback") == CATALOGUE.changelog("fallback") == "fallback.changelog"
    assert CATALOGUE.lead("dispatch") == "dispatch.journal"
    assert CATALOGUE.changelog("dispatch") is None
    assert CATALOGUE.lead("sink") is None


def test_tasks_have_equal_partitions():
    """Task i is partition i of everything that a stage with tasks takes."""
    for stage in CATALOGUE.leads:
        assert all(topic.shared for topics in CATALOGUE.groups(stage).values() for topic in topics)


def test_every_record_has_a_topic_and_every_topic_a_reader():
    assert set(CATALOGUE.records) == set(RECORDS)
    for stage in STAGES:
        assert CATALOGUE.read_by(stage)
        assert stage == "sink" or CATALOGUE.written_by(stage)


def test_what_holds_content_is_gone_within_days():
    """G9: retention where a person's text or address stands is short; state is compacted away."""
    for topic in CATALOGUE:
        if topic.content and topic.compact:
            assert int(topic.config["max.compaction.lag.ms"]) <= 86_400_000
        elif topic.content:
            assert topic.retention_ms is not None
            assert topic.retention_ms <= 14 * 86_400_000


def test_one_clock():
    assert all(topic.config["message.timestamp.type"] == "LogAppendTime" for topic in CATALOGUE)


def test_what_is_not_there_is_said():
    with pytest.raises(CatalogueError, match="no topic 'nothing'"):
        CATALOGUE.topic("nothing")
    with pytest.raises(CatalogueError, match=r"nothing\.yaml is missing"):
        resource("nothing.yaml")
