"""Short-lived topics and plain readers for tests against a real broker."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]


def quiet(bootstrap: str, **options: Any) -> dict[str, Any]:
    """Client settings that keep lost connections out of stderr; `_` stands for `.`."""
    settings: dict[str, Any] = {
        "bootstrap.servers": bootstrap,
        "error_cb": lambda error: None,
        "log_level": 0,
    }
    return settings | {name.replace("_", "."): value for name, value in options.items()}


@contextmanager
def topics(
    bootstrap: str,
    *names: str,
    partitions: int = 1,
    config: Mapping[str, str] | None = None,
) -> Iterator[list[str]]:
    """New topics under a prefix of their own, deleted afterwards."""
    admin = AdminClient(quiet(bootstrap))
    prefix = f"pin{uuid.uuid4().hex[:8]}."
    real = [prefix + name for name in names]
    made = admin.create_topics(
        [NewTopic(name, partitions, 1, config=dict(config or {})) for name in real]
    )
    for future in made.values():
        future.result(20)
    try:
        yield real
    finally:
        for future in admin.delete_topics(real).values():
            try:
                future.result(20)
            except KafkaException:
                continue


def read_all(
    bootstrap: str, places: Sequence[tuple[str, int]], isolation: str = "read_committed"
) -> list[bytes]:
    """Every record of these partitions up to their ends."""
    consumer = Consumer(
        quiet(
            bootstrap,
            group_id=f"read{uuid.uuid4().hex[:8]}",
            isolation_level=isolation,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            enable_partition_eof=True,
        )
    )
    values: list[bytes] = []
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for topic, partition in places])
        open_parts = set(places)
        deadline = time.monotonic() + 20
        while open_parts and time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is None:
                continue
            error = message.error()
            if error is None:
                values.append(message.value() or b"")
            else:
                open_parts.discard((message.topic() or "", message.partition() or 0))
        assert not open_parts, f"no end of {open_parts} within 20 s"
    finally:
        consumer.close()
    return values


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Polls until `condition` holds.

    Raises:
        AssertionError: it did not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
