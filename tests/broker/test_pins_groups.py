"""How group membership behaves on a real broker, where the design rests on it."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from tests.faults.topics_for_tests import quiet, topics, until

CLASSIC = {"session_timeout_ms": 6_000, "heartbeat_interval_ms": 500}


def _member(kafka: str, group: str, **options: Any) -> Consumer:
    settings = {"group_id": group, "auto_offset_reset": "earliest", "enable_auto_commit": False}
    return Consumer(quiet(kafka, **settings, **CLASSIC, **options))


def _shares(members: Sequence[Consumer]) -> list[int]:
    """How many partitions each member has, after a poll of each."""
    for member in members:
        member.poll(0.02)
    return [len(member.assignment()) for member in members]


def _shared_indexes(members: Sequence[Consumer]) -> int:
    """How many partition numbers are with more than one member."""
    owners: dict[int, set[int]] = defaultdict(set)
    for number, member in enumerate(members):
        for part in member.assignment():
            owners[part.partition].add(number)
    return sum(len(found) > 1 for found in owners.values())


@pytest.mark.parametrize(("assignor", "split"), [("cooperative-sticky", True), ("range", False)])
def test_cooperative_sticky_does_not_keep_partition_i_of_all_topics_together(
    kafka: str, assignor: str, split: bool
) -> None:
    """So tasks cannot be left to the assignor: one lead topic decides (design rule 3)."""
    with topics(kafka, "accepted", "dispatched", "delivered", partitions=8) as names:
        members = [_member(kafka, names[0], partition_assignment_strategy=assignor)]
        try:
            members[0].subscribe(names)
            until(lambda: _shares(members) == [24], 20, "all to one")
            members.append(_member(kafka, names[0], partition_assignment_strategy=assignor))
            members[1].subscribe(names)
            until(lambda: _shares(members) == [12, 12], 20, "half to each")
            assert (_shared_indexes(members) > 0) is split
        finally:
            for member in members:
                member.close()


def test_a_rebalance_makes_old_metadata_useless_even_for_a_partition_that_stays(
    kafka: str,
) -> None:
    """Offsets go with metadata taken in the rebalance callback, never with the poll's (rule 4);
    and current metadata is accepted even for a partition that has moved away."""
    with topics(kafka, "send", "out", partitions=4) as [send, out]:
        group = send
        first = _member(kafka, group, partition_assignment_strategy="cooperative-sticky")
        first.subscribe([send])
        members = [first]
        writer = Producer(quiet(kafka, transactional_id=group))
        writer.init_transactions(10)
        try:
            until(lambda: _shares(members) == [4], 20, "all to one")
            old = first.consumer_group_metadata()
            members.append(
                _member(kafka, group, partition_assignment_strategy="cooperative-sticky")
            )
            members[1].subscribe([send])
            until(lambda: _shares(members) == [2, 2], 20, "half to each")
            kept = first.assignment()[0].partition
            moved = members[1].assignment()[0].partition

            def commit(metadata: Any, partition: int) -> str:
                writer.begin_transaction()
                writer.produce(out, b"x", partition=0)
                writer.flush(10)
                try:
                    writer.send_offsets_to_transaction(
                        [TopicPartition(send, partition, 1)], metadata, 10
                    )
                    writer.commit_transaction(10)
                except KafkaException as error:
                    writer.abort_transaction(10)
                    return str(error.args[0].name())
                return "committed"

            assert commit(old, kept) == "ILLEGAL_GENERATION"
            assert commit(first.consumer_group_metadata(), kept) == "committed"
            assert commit(first.consumer_group_metadata(), moved) == "committed"
        finally:
            for member in members:
                member.close()


CHILD = """
import sys
from confluent_kafka import Consumer
bootstrap, group, topic, seconds = sys.argv[1:]
member = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "group.instance.id": "slot-0",
    "partition.assignment.strategy": "cooperative-sticky", "session.timeout.ms": 6000,
    "heartbeat.interval.ms": 500, "auto.offset.reset": "earliest", "enable.auto.commit": False})
def assigned(consumer, parts):
    consumer.incremental_assign(parts)
    print("assigned", len(parts), flush=True)
member.subscribe([topic], on_assign=assigned)
for _ in range(int(seconds) * 20):
    member.poll(0.05)
"""


def test_a_static_member_has_its_partitions_back_at_once_after_kill_9(kafka: str) -> None:
    """Within the session timeout of 6 s; a dynamic member would have to wait it out."""
    with topics(kafka, "lead", partitions=4) as [lead]:
        arguments = [sys.executable, "-c", CHILD, kafka, f"g{uuid.uuid4().hex[:6]}", lead, "60"]

        def start() -> subprocess.Popen[str]:
            child = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
            assert child.stdout is not None
            assert child.stdout.readline() == "assigned 4\n"
            return child

        child = start()
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        began = time.monotonic()
        child = start()
        took = time.monotonic() - began
        child.kill()
        child.communicate()
        assert took < 5.0
