"""How transactions, offsets and clocks behave on a real broker, where the design rests on it."""

import time
import uuid

import pytest
from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from tests.faults.topics_for_tests import quiet, read_all, topics

METADATA_LIMIT = 4_095


def _writer(kafka: str) -> Producer:
    writer = Producer(quiet(kafka, transactional_id=f"pin{uuid.uuid4().hex[:8]}"))
    writer.init_transactions(10)
    return writer


def _put(writer: Producer, topic: str, value: bytes) -> None:
    writer.produce(topic, value, partition=0)
    assert writer.flush(10) == 0


def test_commit_metadata_holds_4095_characters_and_one_more_aborts_the_transaction(
    kafka: str,
) -> None:
    """The completion map stays below (rule 9); what fits comes back as it was."""
    with topics(kafka, "in", "out") as [source, out]:
        group = f"g{uuid.uuid4().hex[:8]}"
        reader = Consumer(quiet(kafka, group_id=group, enable_auto_commit=False))
        writer = _writer(kafka)
        group_metadata = reader.consumer_group_metadata()
        try:
            writer.begin_transaction()
            _put(writer, out, b"x")
            fits = TopicPartition(source, 0, 7, metadata="m" * METADATA_LIMIT)
            writer.send_offsets_to_transaction([fits], group_metadata, 10)
            writer.commit_transaction(10)
            [back] = reader.committed([TopicPartition(source, 0)], 10)
            assert (back.offset, back.metadata) == (7, "m" * METADATA_LIMIT)

            writer.begin_transaction()
            _put(writer, out, b"x")
            too_long = TopicPartition(source, 0, 8, metadata="m" * (METADATA_LIMIT + 1))
            with pytest.raises(KafkaException) as raised:
                writer.send_offsets_to_transaction([too_long], group_metadata, 10)
            error = raised.value.args[0]
            assert error.code() == KafkaError.OFFSET_METADATA_TOO_LARGE
            assert error.txn_requires_abort()
            writer.abort_transaction(10)
            [back] = reader.committed([TopicPartition(source, 0)], 10)
            assert back.offset == 7
        finally:
            reader.close()


def test_the_end_of_a_partition_lies_behind_the_transactions_marker(kafka: str) -> None:
    """A reader that has reached the end has passed control records that it never sees, so the end
    is known by the position of the end event, not by the last record (rule 12)."""
    with topics(kafka, "out") as [topic]:
        writer = _writer(kafka)
        writer.begin_transaction()
        _put(writer, topic, b"one")
        writer.commit_transaction(10)
        reader = Consumer(
            quiet(kafka, group_id="pin", enable_partition_eof=True, enable_auto_commit=False)
        )
        try:
            reader.assign([TopicPartition(topic, 0, 0)])
            seen: list[tuple[int | None, bool]] = []
            deadline = time.monotonic() + 15
            while len(seen) < 2 and time.monotonic() < deadline:
                message = reader.poll(0.2)
                if message is not None:
                    seen.append((message.offset(), message.error() is not None))
            assert seen == [(0, False), (2, True)]
        finally:
            reader.close()


def test_only_an_uncommitted_look_gives_the_high_watermark_while_a_transaction_is_open(
    kafka: str,
) -> None:
    """A receipt in an open transaction is beyond the last stable offset: silence may only be
    called silence behind the high watermark (rule 12)."""
    with topics(kafka, "delivered") as [topic]:
        writer = _writer(kafka)
        writer.begin_transaction()
        _put(writer, topic, b"seen")
        writer.commit_transaction(10)
        writer.begin_transaction()
        _put(writer, topic, b"hidden")
        admin = AdminClient(quiet(kafka))
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        place = TopicPartition(topic, 0)

        def end(level: IsolationLevel) -> int:
            asked = admin.list_offsets({place: latest}, isolation_level=level)
            return int(asked[place].result(10).offset)

        try:
            assert end(IsolationLevel.READ_COMMITTED) == 2
            assert end(IsolationLevel.READ_UNCOMMITTED) == 3
            reader = Consumer(quiet(kafka, group_id="pin", isolation_level="read_committed"))
            try:
                assert reader.get_watermark_offsets(place, timeout=10) == (0, 2)
            finally:
                reader.close()
        finally:
            writer.abort_transaction(10)
        assert read_all(kafka, [(topic, 0)]) == [b"seen"]
        assert read_all(kafka, [(topic, 0)], "read_uncommitted") == [b"seen", b"hidden"]


def test_delivery_reports_carry_the_brokers_time(kafka: str) -> None:
    """Our own timestamp is replaced, and told to us: one clock for all nodes (rule 13)."""
    config = {"message.timestamp.type": "LogAppendTime"}
    with topics(kafka, "events", config=config) as [topic]:
        reported: list[tuple[int, int]] = []

        def note(error: KafkaError | None, message: Message) -> None:
            assert error is None
            reported.append(message.timestamp())

        producer = Producer(quiet(kafka))
        producer.produce(topic, b"x", timestamp=1_000, on_delivery=note)
        assert producer.flush(10) == 0
        [(kind, at)] = reported
        assert kind == TIMESTAMP_LOG_APPEND_TIME
        assert abs(at - time.time() * 1000) < 5_000


JAVA_MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}
"""Hashes of Kafka's own Java client."""


def test_keys_land_where_javas_default_partitioner_puts_them(kafka: str) -> None:
    """librdkafka's default is another hash; with murmur2_random any client of ours and any Java
    client agree on a recipient's partition."""
    with topics(kafka, "keys", partitions=8) as [topic]:
        landed: dict[bytes, int] = {}

        def note(error: KafkaError | None, message: Message) -> None:
            assert error is None
            landed[message.key() or b""] = message.partition() or 0

        producer = Producer(quiet(kafka, partitioner="murmur2_random"))
        for key in JAVA_MURMUR2:
            producer.produce(topic, b"x", key=key, on_delivery=note)
        assert producer.flush(10) == 0
        assert landed == {key: (hashed & 0x7FFFFFFF) % 8 for key, hashed in JAVA_MURMUR2.items()}
