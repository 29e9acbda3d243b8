"""The Kafka clients of the bare loops: the same batching and compression as ours, no transactions,
positions committed by the client in the background."""

from collections.abc import Iterator, Sequence

from confluent_kafka import Consumer, Message, Producer


def consumer(bootstrap: str, prefix: str, topics: Sequence[str]) -> Consumer:
    """A member of a group of its own."""
    found = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"{prefix}bare",
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,
            "log_level": 2,
        }
    )
    found.subscribe([prefix + topic for topic in topics])
    return found


def producer(bootstrap: str) -> Producer:
    """Waits for every replica, as ours does."""
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "linger.ms": 5,
            "compression.type": "lz4",
            "acks": "all",
            "queue.buffering.max.messages": 500_000,
            "log_level": 2,
        }
    )


def batches(source: Consumer, size: int = 1_000) -> Iterator[list[Message]]:
    """What is there, again and again, for ever."""
    while True:
        first = source.poll(0.5)
        if first is not None:
            found = [first, *source.consume(size - 1, 0)]
            yield [message for message in found if message.error() is None]
