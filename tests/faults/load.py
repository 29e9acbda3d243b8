"""The load: requests of every kind at a steady rate, through a plain Kafka producer, with a note of
every record that Kafka acknowledged."""

import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import orjson
from confluent_kafka import KafkaError, Message, Producer

from pipeline.simulators.people import Asked, Mix, requests
from tests.faults.history import Sent
from tests.faults.topics_for_tests import quiet

TICK_S: Final = 0.05
PEOPLE: Final = 3_000
"""Few enough that messages of one person meet, so that order means something."""

_MANY: Final = 1_000_000


class Load:
    """Produces from a thread of its own until it is told to stop."""

    def __init__(self, bootstrap: str, prefix: str, rate: int, seed: int) -> None:
        self.sent: list[Sent] = []
        self.refused: list[str] = []
        self._prefix = prefix
        self._rate = rate
        self._asked: Iterator[Asked] = requests(
            seed, _MANY, Mix(people=PEOPLE / _MANY, repeats=0.03, keyless=0.3)
        )
        self._producer = Producer(
            quiet(bootstrap, partitioner="murmur2_random", linger_ms=5, acks="all")
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._began = 0.0

    def start(self) -> None:
        """Begins to produce."""
        self._began = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Produces no more and waits for the last acknowledgements."""
        self._stop.set()
        self._thread.join(60)
        assert self._producer.flush(30) == 0, "Kafka did not acknowledge the last requests"

    @property
    def seconds(self) -> float:
        """How long the load has been on."""
        return time.monotonic() - self._began

    def send(self, topic: str, key: bytes | None, value: bytes | None, note: Sent) -> None:
        """Produces one record; `note` goes to the list once Kafka has it, with its place."""

        def reported(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self.refused.append(str(error))
                return
            place = (topic, message.partition() or 0, message.offset() or 0)
            at = message.timestamp()[1]
            self.sent.append(Sent(place, at, note.expected, note.identity))

        while True:
            try:
                self._producer.produce(self._prefix + topic, value, key, on_delivery=reported)
                return
            except BufferError:
                self._producer.poll(0.1)

    def _run(self) -> None:
        made = 0
        while not self._stop.wait(TICK_S):
            due = int((time.monotonic() - self._began) * self._rate)
            while made < due:
                asked = next(self._asked)
                self.send(asked.topic, asked.key, asked.value, _note(asked))
                made += 1
            self._producer.poll(0)


def _note(asked: Asked) -> Sent:
    identity = (asked.request or {}).get("idempotency_key")
    wanted = identity if asked.kind in ("good", "repeat") else None
    return Sent((asked.topic, 0, 0), 0, asked.kind, wanted)


def request(**changes: Any) -> bytes:
    """One good request in JSON, for scenarios that need their own."""
    value: dict[str, Any] = {
        "to": {"phone": "+4915123456789", "email": "someone@de.example"},
        "content": {"text": "Your parcel is on its way.", "subject": "News"},
        "priority": "urgent",
        "category": "transactional",
    }
    return orjson.dumps(value | changes)
