"""The embedded Kafka: comes up offline, keeps its data through kill -9, leaves nothing running."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from pipeline.local.cache import kafka_jars
from pipeline.local.kafka import SHORT_LIVED, EmbeddedKafka, Listener, StartError, answers
from pipeline.local.ports import free_port
from tests.waiting import alive, until

PARENT = """
import sys
from pathlib import Path
from pipeline.local.kafka import EmbeddedKafka
broker = EmbeddedKafka(Path(sys.argv[1]))
broker.start(progress=lambda _: None)
print(broker.pid, broker.bootstrap, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    kafka_jars(print)  # what is missing is fetched here, so that the tests below are offline
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka"), java=SHORT_LIVED) as made:
        yield made


def _topic(broker: EmbeddedKafka, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(10)


def test_the_catalogues_broker_settings_are_in_force(broker: EmbeddedKafka) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    resource = ConfigResource(ResourceType.BROKER, "1")
    values = admin.describe_configs([resource])[resource].result(10)
    assert values["transaction.abort.timed.out.transaction.cleanup.interval.ms"].value == "1000"
    assert values["auto.create.topics.enable"].value == "false"
    assert values["group.initial.rebalance.delay.ms"].value == "0"


def test_what_was_acknowledged_survives_kill_9(broker: EmbeddedKafka) -> None:
    _topic(broker, "kept")
    producer = Producer({"bootstrap.servers": broker.bootstrap, "acks": "all"})
    for number in range(100):
        producer.produce("kept", str(number).encode())
    assert producer.flush(10) == 0
    before = broker.pid
    broker.kill()
    assert not alive(before)
    # Offline: nothing of the second start may ask for anything outside.
    broker.start(progress=lambda line: pytest.fail(f"it fetched something: {line}"))
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "outside"})
    try:
        assert consumer.get_watermark_offsets(TopicPartition("kept", 0), timeout=10) == (0, 100)
    finally:
        consumer.close()


def test_two_on_one_machine_do_not_collide(broker: EmbeddedKafka, tmp_path: Path) -> None:
    with pytest.raises(StartError, match="in use by another embedded Kafka"):
        EmbeddedKafka(broker.data).start()
    door = free_port()
    other = EmbeddedKafka(
        tmp_path / "other", listeners=[Listener("SIDE", door, advertised_port=door)]
    )
    other.start()
    try:
        _topic(other, "side")
        seen = AdminClient({"bootstrap.servers": f"127.0.0.1:{door}"}).list_topics(timeout=10)
        assert "side" in seen.topics
        assert {one.port for one in seen.brokers.values()} == {door}
        mine = AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(timeout=10)
        assert "side" not in mine.topics
    finally:
        other.stop()


def _refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_nothing_is_left_when_the_parent_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        pid, bootstrap = parent.stdout.readline().split()
        assert alive(int(pid))
        assert answers(bootstrap, 5.0)
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
        until(lambda: not alive(int(pid)))
    port = int(bootstrap.rsplit(":", 1)[1])
    until(lambda: _refused(port))


def test_a_broker_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    broken = EmbeddedKafka(tmp_path, settings={"log.segment.bytes": "no number"})
    with pytest.raises(StartError, match="no number"):
        broken.start()


def test_a_missing_network_says_what_to_do(tmp_path: Path) -> None:
    """With an empty cache and nothing to fetch from."""
    program = (
        "import sys, json\n"
        "from pathlib import Path\n"
        "from jgo.maven import _core\n"
        "_core.DEFAULT_REMOTE_REPOS = {'nowhere': 'http://127.0.0.1:9'}\n"
        "from pipeline.local.cache import Unavailable, kafka_jars\n"
        "try:\n"
        "    kafka_jars(lambda _: None, Path(sys.argv[1]))\n"
        "except Unavailable as error:\n"
        "    print(json.dumps(str(error)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True, text=True, check=True, timeout=60, env={**os.environ},
    )  # fmt: skip
    said = json.loads(done.stdout)
    assert "connect to the internet and start again" in said
    assert "KAFKA_BOOTSTRAP_SERVERS" in said
