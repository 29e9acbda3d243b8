"""The control record: what every key rests on. It is written once; a program that would key or
partition in another way must not start."""

from typing import Any, Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from pipeline.domain.records import Control
from pipeline.runtime.codec import Codec
from pipeline.runtime.kafka import Cluster

TOPIC: Final = "control"
KEY: Final = b"cluster"
_TIMEOUT_S: Final = 10.0


class ControlMismatch(Exception):
    """This program and the cluster do not agree on how recipients are keyed; the text says in
    what, and what to do."""


def read_control(cluster: Cluster, codec: Codec) -> Control | None:
    """The record as it stands; None when nobody has written it, or the topic does not exist.

    Raises:
        KafkaException: the cluster cannot be read.
        Undecodable, RegistryUnavailable: as `Codec.decode`.
    """
    consumer = cluster.consumer(cluster.group("control"), enable_partition_eof=True)
    try:
        raw = _last_value(consumer, cluster.real(TOPIC))
    finally:
        consumer.close()
    return None if raw is None else codec.decode_as("Control", raw)  # type: ignore[return-value]


def _last_value(consumer: Consumer, topic: str) -> bytes | None:
    found: bytes | None = None
    if topic not in consumer.list_topics(timeout=_TIMEOUT_S).topics:
        return None
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    while True:
        message = consumer.poll(_TIMEOUT_S)
        if message is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"reading {topic}"))
        error = message.error()
        if error is None:
            if message.key() == KEY:
                found = message.value()
        elif error.code() == KafkaError._PARTITION_EOF:
            return found
        elif not error.retriable():
            raise KafkaException(error)


def write_control(cluster: Cluster, codec: Codec, control: Control) -> None:
    """Writes the record and waits until the brokers have it.

    Raises:
        KafkaException: they do not.
    """
    failures: list[Any] = []

    def reported(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures.append(error)

    producer = cluster.producer()
    producer.produce(
        cluster.real(TOPIC), codec.encode("Control", control), KEY, on_delivery=reported
    )
    left = producer.flush(3 * _TIMEOUT_S)  # a broker that is young and busy needs a while
    if failures or left:
        cause = failures[0] if failures else KafkaError(KafkaError._TIMED_OUT, "writing control")
        raise KafkaException(cause)


def differences(found: Control, expected: Control) -> list[str]:
    """In what the two disagree, each with the cure."""
    cures = {
        "partitions": "a partition count is never changed in place: use a new prefix and drain",
        "partitioner": "recipients would change their partition: use a new prefix and drain",
        "pepper_fingerprint": "recipients would change their keys: set the pepper that the first "
        "`pipeline topics apply` used",
    }
    return [
        f"{name} is {expected[name]} here and {found[name]} in the cluster; {cure}"  # type: ignore[literal-required]
        for name, cure in cures.items()
        if expected[name] != found[name]  # type: ignore[literal-required]
    ]


def check_control(cluster: Cluster, codec: Codec, pepper_fingerprint: str, partitioner: str) -> int:
    """The shared partition count, when this program keys recipients as the cluster does.

    Raises:
        ControlMismatch: it does not, or the record was never written.
        KafkaException: the cluster cannot be read.
    """
    found = read_control(cluster, codec)
    if found is None:
        raise ControlMismatch(
            f"{cluster.real(TOPIC)} holds no control record; run `pipeline topics apply` first"
        )
    wrong = differences(
        found,
        {**found, "pepper_fingerprint": pepper_fingerprint, "partitioner": partitioner},
    )
    if wrong:
        raise ControlMismatch(f"{cluster.real(TOPIC)}: " + "; ".join(wrong))
    return found["partitions"]
