"""`topics plan` and `topics apply` against the real broker, and what a stage refuses to start on."""

import socket
import time
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewTopic

from pipeline.runtime.admin import Admin, ClusterUnusable, TopicsMismatch, verify
from pipeline.runtime.control import ControlMismatch, check_control, read_control, write_control
from pipeline.runtime.kafka import Cluster
from pipeline.topology import CATALOGUE, PARTITIONER, STAGES
from tests.broker.topics_world import CODEC, OTHER, PEPPER, SMALL, World


@pytest.fixture
def world(kafka: str, prefix: str) -> Iterator[World]:
    found = World(kafka, prefix)
    yield found
    found.clean()


@pytest.fixture(scope="module")
def whole(kafka: str) -> Iterator[World]:
    """The shipped catalogue, applied once; tests leave it as it is."""
    found = World(kafka, f"t{uuid.uuid4().hex[:10]}.")
    admin = found.admin(catalogue=CATALOGUE)
    admin.apply(admin.plan())
    yield found
    found.clean()


# ------------------------------------------------------------------------- the shipped catalogue


def test_after_apply_the_plan_is_empty_and_every_stage_may_start(whole: World):
    plan = whole.admin(catalogue=CATALOGUE).plan()
    assert plan.empty, plan
    for stage in STAGES:
        assert verify(whole.cluster, CODEC, PEPPER, stage) == CATALOGUE.partitions


def test_topics_are_what_the_catalogue_says(whole: World):
    topics = whole.client.list_topics(timeout=10).topics
    found = {
        whole.cluster.logical(name): len(metadata.partitions)
        for name, metadata in topics.items()
        if name.startswith(whole.cluster.prefix)
    }
    assert found == {topic.name: topic.partitions for topic in CATALOGUE}
    for topic in CATALOGUE:
        configs = whole.configs(topic.name)
        assert {name: configs[name] for name in topic.config} == dict(topic.config)


def test_every_group_has_a_first_position_in_all_it_reads(whole: World):
    """Consumers stop without a position (auto.offset.reset=error), so each needs its first one."""
    for stage in STAGES:
        for group, topics in CATALOGUE.groups(stage).items():
            places = {(t.name, number) for t in topics for number in range(t.partitions)}
            assert whole.offsets(group) == dict.fromkeys(places, 0)


def test_a_consumer_of_a_group_begins_at_its_first_position(whole: World):
    producer = whole.cluster.producer()
    producer.produce(whole.cluster.real("callbacks"), b"first", partition=5)
    assert producer.flush(10) == 0
    consumer = whole.cluster.consumer(whole.cluster.group("receipts"))
    place = TopicPartition(whole.cluster.real("callbacks"), 5)
    consumer.assign(consumer.committed([place], timeout=10))
    message = consumer.poll(10)
    consumer.close()
    assert message is not None
    assert message.error() is None
    assert message.value() == b"first"


def test_the_control_record_is_there_once(whole: World):
    found = read_control(whole.cluster, CODEC)
    assert found is not None
    assert (found["partitions"], found["partitioner"]) == (CATALOGUE.partitions, PARTITIONER)
    assert found["pepper_fingerprint"] == PEPPER
    admin = whole.admin(catalogue=CATALOGUE)
    admin.apply(admin.plan())
    assert read_control(whole.cluster, CODEC) == found


@pytest.mark.parametrize(
    ("key", "partition"),
    [
        (b"21", 4),
        (b"foobar", 6),
        (b"a-little-bit-long-string", 0),
        (b"a-little-bit-longer-string", 3),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", 5),
        (b"abc", 3),
        (b"bOMnRo6oJrqFCWoPyn_3T1", 7),
    ],
)
def test_keys_find_the_partition_that_the_java_clients_choose(
    whole: World, key: bytes, partition: int
):
    """Values of Kafka's own test of murmur2, for 8 partitions. If this changed, a recipient's
    records would stand in two partitions."""
    found: list[int] = []
    producer = whole.cluster.producer()
    producer.produce(
        whole.cluster.real("late-receipts"),
        b"",
        key,
        on_delivery=lambda error, message: found.append(-1 if error else message.partition()),
    )
    assert producer.flush(10) == 0
    assert found == [partition]


# ----------------------------------------------------------------------------- plans and changes


def test_a_plan_names_everything_and_changes_nothing(world: World):
    plan = world.admin().plan()
    assert [change.action for change in plan.changes()] == [
        *["create"] * 4,
        *["offsets"] * 3,
        "control",
    ]
    assert {change.subject for change in plan.changes() if change.action == "offsets"} == {
        "accept",
        "accept-bulk",
        "fallback",
    }
    assert not plan.empty
    topics = world.client.list_topics(timeout=10).topics
    assert not [name for name in topics if name.startswith(world.cluster.prefix)]


def test_applying_one_plan_twice_does_no_harm(world: World):
    admin = world.admin()
    plan = admin.plan()
    admin.apply(plan)
    admin.apply(plan)
    assert admin.plan().empty


def test_settings_are_put_right_and_others_left_alone(world: World):
    world.applied()
    world.set_config("intake", "message.timestamp.type", "CreateTime")
    world.set_config("intake", "retention.ms", "1000")
    world.set_config("fallback.changelog", "max.compaction.lag.ms", "9223372036854775807")
    world.set_config("intake", "segment.bytes", "7340032")
    plan = world.admin().plan()
    assert {topic: dict(settings) for topic, settings in plan.alter.items()} == {
        "intake": {
            "message.timestamp.type": ("CreateTime", "LogAppendTime"),
            "retention.ms": ("1000", "259200000"),
        },
        "fallback.changelog": {"max.compaction.lag.ms": ("9223372036854775807", "86400000")},
    }
    with pytest.raises(TopicsMismatch, match=r"alter intake: .*CreateTime -> LogAppendTime"):
        verify(world.cluster, CODEC, PEPPER, "accept", SMALL)
    world.admin().apply(plan)
    assert world.admin().plan().empty
    assert world.configs("intake")["segment.bytes"] == "7340032"


def test_a_partition_count_is_reported_and_never_changed(world: World):
    future = world.client.create_topics([NewTopic(world.cluster.real("intake"), 2, 1)])
    future[world.cluster.real("intake")].result(10)
    admin = world.admin()
    plan = admin.plan()
    assert len(plan.problems) == 1
    assert "intake has 2 partitions instead of 3" in plan.problems[0]
    admin.apply(plan)
    again = admin.plan()
    assert again.problems == plan.problems
    assert not again.changes()
    with pytest.raises(TopicsMismatch, match="has 2 partitions instead of 3"):
        verify(world.cluster, CODEC, PEPPER, "accept", SMALL)
    assert verify(world.cluster, CODEC, PEPPER, "fallback", SMALL) == 3


def test_positions_that_exist_are_kept(world: World):
    world.applied()
    world.commit("accept", "intake", 1, 5)
    admin = world.admin()
    admin.apply(admin.plan())
    assert world.offsets("accept")[("intake", 1)] == 5


def test_a_late_group_begins_where_the_log_begins(world: World):
    """Offset 0 may be gone when a group is new and its topic is not."""
    world.applied()
    producer = world.cluster.producer()
    for _ in range(4):
        producer.produce(world.cluster.real("intake"), b"x", partition=2)
    assert producer.flush(10) == 0
    place = TopicPartition(world.cluster.real("intake"), 2, 3)
    for future in world.client.delete_records([place]).values():
        future.result(10)
    for future in world.client.delete_consumer_groups([world.cluster.group("accept")]).values():
        future.result(10)
    with pytest.raises(TopicsMismatch, match="first position in 3 partitions of intake"):
        verify(world.cluster, CODEC, PEPPER, "accept", SMALL)
    admin = world.admin()
    admin.apply(admin.plan())
    assert world.offsets("accept") == {("intake", 0): 0, ("intake", 1): 0, ("intake", 2): 3}


def test_a_group_at_work_is_left_alone(world: World):
    world.applied()
    for future in world.client.delete_consumer_groups([world.cluster.group("accept")]).values():
        future.result(10)
    consumer = world.cluster.consumer(world.cluster.group("accept"))
    consumer.subscribe([world.cluster.real("intake.bulk")])
    deadline = time.monotonic() + 15
    while not consumer.assignment():
        consumer.poll(0.1)
        assert time.monotonic() < deadline
    admin = world.admin()
    with pytest.raises(ClusterUnusable, match="is at work"):
        admin.apply(admin.plan())
    consumer.close()


# ------------------------------------------------------------------------------ the control record


def test_without_control_record_no_stage_starts(world: World):
    with pytest.raises(ControlMismatch, match="run `pipeline topics apply` first"):
        check_control(world.cluster, CODEC, PEPPER, PARTITIONER)
    with pytest.raises(TopicsMismatch, match="run `pipeline topics apply` first"):
        verify(world.cluster, CODEC, PEPPER, "accept", SMALL)


def test_another_pepper_is_refused_everywhere(world: World):
    world.applied()
    assert check_control(world.cluster, CODEC, PEPPER, PARTITIONER) == 3
    with pytest.raises(
        ControlMismatch, match=r"pepper_fingerprint .* set the pepper that the first"
    ):
        check_control(world.cluster, CODEC, OTHER, PARTITIONER)
    with pytest.raises(TopicsMismatch, match="pepper_fingerprint"):
        verify(world.cluster, CODEC, OTHER, "accept", SMALL)
    plan = world.admin(OTHER).plan()
    assert len(plan.problems) == 1
    world.admin(OTHER).apply(plan)
    assert check_control(world.cluster, CODEC, PEPPER, PARTITIONER) == 3


def test_another_partitioner_is_refused(world: World):
    world.applied()
    with pytest.raises(ControlMismatch, match="partitioner is consistent here and murmur2_random"):
        check_control(world.cluster, CODEC, PEPPER, "consistent")


def test_the_last_control_record_counts(world: World):
    world.applied()
    found = read_control(world.cluster, CODEC)
    assert found is not None
    write_control(world.cluster, CODEC, {**found, "pepper_fingerprint": OTHER})
    assert check_control(world.cluster, CODEC, OTHER, PARTITIONER) == 3


def test_the_first_apply_chooses_the_count_and_later_ones_keep_it(world: World):
    admin = world.admin(partitions=5)
    admin.apply(admin.plan())
    assert world.admin().plan().empty
    assert verify(world.cluster, CODEC, PEPPER, "fallback", SMALL) == 5
    problems = world.admin(partitions=6).plan().problems
    assert len(problems) == 1
    assert "partitions is 6 here and 5 in the cluster" in problems[0]


def test_a_cluster_that_is_away_is_said_to_be_away(prefix: str):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        cluster = Cluster(f"127.0.0.1:{taken.getsockname()[1]}", prefix)
        with pytest.raises(ClusterUnusable, match=cluster.bootstrap):
            Admin(cluster, CODEC, PEPPER, timeout_s=1.0).plan()
