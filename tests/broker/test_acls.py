"""Every stage does its work with the rights of `pipeline topics acls` and no others, on a broker
that refuses whatever is not allowed."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from pipeline.commands.topic_acls import PRINCIPAL, acls
from pipeline.domain import ids
from pipeline.local.kafka import SHORT_LIVED, EmbeddedKafka, Listener
from pipeline.local.ports import free_port
from pipeline.runtime.admin import Admin
from pipeline.runtime.codec import Codec
from pipeline.runtime.kafka import Cluster
from pipeline.topology import CATALOGUE, STAGES
from tests.connect import world
from tests.waiting import until

PREFIX = "acl."
DOOR = "SASL"
USERS = [PRINCIPAL.removeprefix("User:") + one for one in (*STAGES, "clients", "cli")]
MESSAGES = range(5)
RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}
OPERATIONS = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Create": AclOperation.CREATE,
    "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
    "AlterConfigs": AclOperation.ALTER_CONFIGS,
}
PATTERNS = {"literal": ResourcePatternType.LITERAL, "prefixed": ResourcePatternType.PREFIXED}


class Guarded:
    """A broker with two doors: one where everybody is the superuser, one that asks who it is."""

    def __init__(self, folder: Path) -> None:
        self.door = free_port()
        users = " ".join(f'user_{name}="{name}"' for name in USERS)
        module = "org.apache.kafka.common.security.plain.PlainLoginModule"
        self.kafka = EmbeddedKafka(
            folder,
            listeners=[Listener(DOOR, self.door)],
            settings={
                "listener.security.protocol.map": f"CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT,{DOOR}:SASL_PLAINTEXT",
                "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN",
                "listener.name.sasl.plain.sasl.jaas.config": f"{module} required {users};",
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
            },
            java=SHORT_LIVED,
        )

    @property
    def guarded(self) -> str:
        return f"127.0.0.1:{self.door}"

    def environment(self, name: str) -> dict[str, str]:
        """How a stage logs in."""
        user = PRINCIPAL.removeprefix("User:") + name
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.guarded,
            "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "KAFKA_SASL_MECHANISM": "PLAIN",
            "KAFKA_SASL_USERNAME": user,
            "KAFKA_SASL_PASSWORD": user,
        }

    def client(self, name: str, **options: Any) -> dict[str, Any]:
        """The same for a client of librdkafka."""
        user = PRINCIPAL.removeprefix("User:") + name
        return {
            "bootstrap.servers": self.guarded,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": user,
            "sasl.password": user,
            "error_cb": lambda _: None,
            "log_level": 0,
            **options,
        }

    def cluster(self, name: str) -> Cluster:
        security = {
            key: value
            for key, value in self.client(name).items()
            if key.startswith(("security", "sasl"))
        }
        return Cluster(self.guarded, PREFIX, security)

    def allow(self) -> None:
        """Gives every right of the catalogue and nothing else."""
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap})
        made = admin.create_acls(
            [
                AclBinding(
                    RESOURCES[one.resource],
                    one.name,
                    PATTERNS[one.pattern],
                    one.principal,
                    "*",
                    OPERATIONS[one.operation],
                    AclPermissionType.ALLOW,
                )
                for one in acls(CATALOGUE, PREFIX)
            ]
        )
        for future in made.values():
            future.result(15)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    found = Guarded(tmp_path_factory.mktemp("acls"))
    found.kafka.start()
    try:
        found.allow()
        yield found
    finally:
        found.kafka.stop()


def test_the_operator_applies_the_catalogue(broker: Guarded):
    admin = Admin(
        broker.cluster("cli"),
        Codec(),
        ids.pepper_fingerprint(world.PEPPER),
        partitions=world.PARTITIONS,
    )
    admin.apply(admin.plan())
    assert admin.plan().empty


def test_every_stage_works_and_a_client_hears_of_it(
    broker: Guarded, tmp_path: Path, clickhouse_url: str
):
    port = free_port()
    logins = {
        stage: {
            **broker.environment(stage),
            "PIPELINE_GATEWAY_PORT": str(port),
            "CLICKHOUSE_URL": clickhouse_url,
        }
        for stage in STAGES
    }
    with world.line(tmp_path, broker.kafka.bootstrap, PREFIX, stages=STAGES, logins=logins) as line:
        producer = Producer(broker.client("clients"))
        for row in world.rows(MESSAGES).splitlines():
            producer.produce(f"{PREFIX}intake", row.encode())
        assert producer.flush(20) == 0
        consumer = Consumer(
            broker.client(
                "clients", **{"group.id": f"{PREFIX}clients.one", "auto.offset.reset": "earliest"}
            )
        )
        consumer.subscribe([f"{PREFIX}outcomes"])
        codec, heard = Codec(), set()

        def all_heard() -> bool:
            assert line.well()
            message = consumer.poll(0.5)
            if message is not None:
                assert message.error() is None, message.error()
                heard.add(codec.decode(message.value())[1]["message_id"])
            return len(heard) >= len(MESSAGES)

        try:
            until(all_heard, 60)
        finally:
            consumer.close()
        assert heard == world.message_ids(MESSAGES)
        until(lambda: line.well() and ready(port), 30)
        reader = AdminClient({"bootstrap.servers": broker.kafka.bootstrap})
        until(lambda: line.well() and progressed(reader), 30)


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def progressed(admin: AdminClient) -> bool:
    """Whether receipts has said how far it has listened."""
    from confluent_kafka.admin import OffsetSpec

    place = TopicPartition(f"{PREFIX}progress", 0)
    (end,) = admin.list_offsets({place: OffsetSpec.latest()}).values()
    return bool(end.result(10).offset > 0)


@pytest.mark.parametrize(("name", "topic"), [("accept", "outcomes"), ("clients", "dead-letter")])
def test_nobody_reads_or_writes_what_is_not_theirs(broker: Guarded, name: str, topic: str):
    producer = Producer(broker.client(name, **{"message.timeout.ms": 10_000}))
    refused: list[int] = []
    producer.produce(
        PREFIX + topic, b"x", on_delivery=lambda error, _: refused.append(error and error.code())
    )
    producer.flush(15)
    assert refused == [KafkaError.TOPIC_AUTHORIZATION_FAILED]
    # Nor is it there for them to read.
    seen = AdminClient(broker.client(name)).list_topics(PREFIX + topic, timeout=10)
    assert seen.topics[PREFIX + topic].error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
