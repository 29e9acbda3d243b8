"""Writes single records from asyncio, and says when the brokers have them.

The producer is polled by a thread of its own; what it reports wakes the event loop once for many
records, not once for each.
"""

import asyncio
import logging
import threading
from collections import deque
from typing import Final

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, Message

from pipeline.runtime.clock import Clock
from pipeline.runtime.kafka import Cluster

log = logging.getLogger(__name__)

ACKNOWLEDGE_MS: Final = 5_000
"""How long a record may take to be acknowledged; then it counts as not written. It may have been:
the sender repeats it, under the same id."""

_POLL_S: Final = 0.1


class NotWritten(Exception):
    """The brokers did not acknowledge the record; it may be there all the same."""


class Publisher:
    """One idempotent producer for one event loop. `start` and `publish` belong to that loop's
    thread; `fatal` is set when the producer cannot go on and the process has to start anew."""

    def __init__(
        self, cluster: Cluster, clock: Clock, acknowledge_ms: int = ACKNOWLEDGE_MS
    ) -> None:
        self._producer = cluster.producer(
            linger_ms=1, message_timeout_ms=acknowledge_ms, queue_buffering_max_kbytes=65_536
        )
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reports: deque[tuple[asyncio.Future[None], KafkaError | None]] = deque()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="publisher", daemon=True)
        self.fatal = asyncio.Event()

    def start(self) -> None:
        """Begins to poll; call it inside the loop that publishes."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def publish(self, topic: str, value: bytes, key: bytes | None = None) -> None:
        """Writes one record to a real topic and waits until the brokers have it.

        Raises:
            NotWritten: they did not say so in time, or refused.
        """
        await self.begin(topic, value, key)

    def begin(
        self,
        topic: str,
        value: bytes,
        key: bytes | None = None,
        headers: tuple[tuple[str, bytes], ...] = (),
    ) -> asyncio.Future[None]:
        """Hands one record to the producer; what it returns is done when the brokers have it, and
        raises NotWritten when they did not say so in time, or refused.

        Raises:
            NotWritten: it could not even be handed over.
        """
        assert self._loop is not None, "start comes first"
        written: asyncio.Future[None] = self._loop.create_future()

        def reported(error: KafkaError | None, message: Message) -> None:
            if error is None:
                kind, append_ms = message.timestamp()
                if kind == TIMESTAMP_LOG_APPEND_TIME:
                    self._clock.observe(append_ms)
            self._reports.append((written, error))

        try:
            self._producer.produce(
                topic, value, key, headers=list(headers) or None, on_delivery=reported
            )
        except BufferError:
            raise NotWritten("too much waits to be written") from None
        except KafkaException as error:
            self._judge(error.args[0])
            raise NotWritten(error.args[0].name()) from None
        return written

    def reachable(self, topic: str, timeout_s: float) -> bool:
        """Whether the brokers answer and know the topic. Blocks up to the timeout."""
        try:
            found = self._producer.list_topics(topic, timeout=timeout_s).topics[topic]
        except (KafkaException, KeyError):
            return False
        return found.error is None

    def close(self, timeout_s: float) -> None:
        """Writes what waits, at most for `timeout_s`, and stops the thread. Blocks."""
        self._producer.flush(timeout_s)
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _poll(self) -> None:
        while not self._stopped.is_set():
            self._producer.poll(_POLL_S)
            if self._reports and self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        while self._reports:
            written, error = self._reports.popleft()
            if written.done():  # the request was given up meanwhile
                continue
            if error is None:
                written.set_result(None)
            else:
                self._judge(error)
                written.set_exception(NotWritten(error.name()))

    def _judge(self, error: KafkaError) -> None:
        if error.fatal():
            log.error("the producer cannot go on: %s", error.name())
            self.fatal.set()
