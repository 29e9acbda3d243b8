"""The proxy really does what the fault runs rely on, shown on a real broker: traffic goes through
it, a held EndTxn tears transactions of a plain producer, and our producer rule keeps them whole."""

import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition

from pipeline.domain.switches import NONE, Switches
from pipeline.runtime.clock import BrokerClock
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.transaction import Aborted, Encoded, Fenced, Transactions
from tests.faults.proxy_process import ProxyProcess
from tests.faults.topics_for_tests import quiet, read_all, topics, until


@pytest.fixture(scope="module")
def proxy(kafka: str) -> Iterator[ProxyProcess]:
    with ProxyProcess(kafka) as running:
        yield running


def test_all_traffic_of_a_client_goes_through_the_proxy(kafka: str, proxy: ProxyProcess) -> None:
    """The broker's own address is replaced, so cutting the proxy's connections reaches everything
    and the client comes back through it."""
    with topics(kafka, "in") as [topic]:
        producer = Producer(quiet(proxy.address))
        producer.produce(topic, b"one")
        assert producer.flush(10) == 0
        mark = proxy.count()
        proxy.order("cut")
        assert proxy.wait(lambda event: event["event"] == "cut", 5, mark)["links"] > 0
        producer.produce(topic, b"two")
        assert producer.flush(10) == 0
        assert read_all(kafka, [(topic, 0)]) == [b"one", b"two"]


def test_a_black_hole_stops_and_ends(kafka: str, proxy: ProxyProcess) -> None:
    with topics(kafka, "in") as [topic]:
        producer = Producer(quiet(proxy.address, socket_timeout_ms=1_000))
        producer.produce(topic, b"one")
        assert producer.flush(10) == 0
        proxy.order("black_hole", on=True)
        producer.produce(topic, b"two")
        assert producer.flush(0.5) == 1
        proxy.order("black_hole", on=False)
        until(lambda: producer.flush(0.2) == 0, 15, "the record to arrive")
        assert b"two" in read_all(kafka, [(topic, 0)])


def _torn(
    kafka: str, proxy: ProxyProcess, mode: str, switches: Switches
) -> tuple[list[bytes], dict[str, object]]:
    """Writes record 0, with its EndTxn held, then record 1 in a transaction that gets the late
    frame in its middle and is aborted; returns what readers see and what became of the frame."""
    name = f"torn-{uuid.uuid4().hex[:8]}"
    with topics(kafka, "out") as [topic]:
        clock = BrokerClock()
        cluster = Cluster(proxy.address, prefix="")
        member = cluster.consumer(name)
        metadata = member.consumer_group_metadata()
        before = cluster.transactional(name)  # only to have the coordinator know the id
        before.init_transactions(10)
        writer = Transactions(cluster, name, clock, switches)
        mark = proxy.count()
        proxy.order("hold", mode=mode, match=name)
        offsets = [TopicPartition(topic, 0, 1)]
        for _ in range(3):
            try:
                writer.commit([Encoded(topic, b"k", b"first")], [], offsets, metadata)
                break
            except (Aborted, Fenced):
                continue
        proxy.wait(lambda event: event["event"] == "held", 5, mark)
        producer = writer._producer  # what it does next is up to us, as in a crash
        producer.begin_transaction()
        producer.produce(topic, b"aborted")
        producer.flush(10)
        released = proxy.wait(lambda event: event["event"] == "released", 10, mark)
        try:
            producer.abort_transaction(10)
        except KafkaException:
            cluster.transactional(name).init_transactions(10)
        member.close()
        return read_all(kafka, [(topic, 0)]), released


def test_a_held_end_txn_tears_the_next_transaction_of_a_producer_that_is_kept(
    kafka: str, proxy: ProxyProcess
) -> None:
    """The fault is real: without the rule, readers see a record of an aborted transaction."""
    seen, released = _torn(kafka, proxy, "reset", Switches(no_producer_rebuild=True))
    assert released["error"] == 0
    assert seen == [b"first", b"aborted"]


@pytest.mark.parametrize("mode", ["reset", "silent"])
def test_a_rebuilt_producer_fences_the_late_frame(
    kafka: str, proxy: ProxyProcess, mode: str
) -> None:
    seen, released = _torn(kafka, proxy, mode, NONE)
    assert released["error"] != 0
    assert seen == [b"first"]


def test_a_spoilt_answer_to_offsets_aborts_the_transaction(kafka: str, proxy: ProxyProcess) -> None:
    """What a rebalance does now and then: nothing is committed, and the producer goes on."""
    name = f"spoilt-{uuid.uuid4().hex[:8]}"
    with topics(kafka, "out") as [topic]:
        cluster = Cluster(proxy.address, prefix="")
        member = cluster.consumer(name)
        metadata = member.consumer_group_metadata()
        writer = Transactions(cluster, name, BrokerClock())
        proxy.order("hold", mode="spoil", match=name)
        offsets = [TopicPartition(topic, 0, 1)]
        with pytest.raises(Aborted):
            writer.commit([Encoded(topic, b"k", b"aborted")], [], offsets, metadata)
        writer.commit([Encoded(topic, b"k", b"again")], [], offsets, metadata)
        member.close()
        assert read_all(kafka, [(topic, 0)]) == [b"again"]
