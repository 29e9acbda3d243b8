"""One transaction at a time: outputs, state and offsets become visible together or not at all.

Kafka's transactions through librdkafka are not atomic when an EndTxn frame is delayed: the frame of
one transaction can commit the next. The rule that keeps it out: retries back off so long that a
retried EndTxn shows as elapsed time, and a producer whose commit, abort or offsets request was
slow, or failed in any way that is retried, is thrown away. Initialising its successor raises the
epoch, which fences the late frame. What can still slip through is an output written twice under
its own id, which its reader knows.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from pipeline.domain.outcomes import Emit
from pipeline.domain.switches import NONE, Switches
from pipeline.runtime import observe
from pipeline.runtime.clock import Clock, wait
from pipeline.runtime.kafka import RETRY_BACKOFF_MS, Cluster

log = logging.getLogger(__name__)

SLOW_S: Final = RETRY_BACKOFF_MS / 2_000
"""A step that took longer may have been retried under the covers."""

EMPTY_GAP_S: Final = 0.010
"""A transaction without outputs has no flush to wait behind, so it would meet the previous commit
still completing and stall for a whole retry backoff."""

_EASE: Final = 6
_MOST_REST_S: Final = 0.2

_TIMEOUT_S: Final = 10.0

COMMIT_TIMEOUT_S: Final = 3.0
"""A coordinator that is silent for so long is given up: the producer is rebuilt, which fences the
transaction, instead of waiting for an answer that may never come."""


class Aborted(Exception):
    """Nothing of the transaction was committed; the producer is ready for the next one."""


class Fenced(Exception):
    """The transaction's fate is unknown or another producer took the id; a new producer is ready.
    Treat the tasks as newly assigned."""


def rest_s(took_s: float) -> float:
    """How long a worker leaves the brokers alone after a commit that took `took_s`: under load
    batches grow instead of transactions, each of which costs the brokers milliseconds."""
    return min(took_s * _EASE, _MOST_REST_S)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A record ready for the wire. `topic` is the cluster's name; `said` is what it was made from,
    for whoever counts it."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None
    said: Emit | None = None


class Transactions:
    """The transactional producer of one worker. Owned by one thread."""

    def __init__(
        self,
        cluster: Cluster,
        transactional_id: str,
        clock: Clock,
        switches: Switches = NONE,
        on_step: Callable[[str], None] = lambda _step: None,
        observed: observe.Unobserved = observe.NONE,
    ) -> None:
        self.transactional_id = transactional_id
        self.rebuilds = 0
        self.commits = 0
        self.aborts = 0
        self.written: dict[tuple[str, int], int] = {}
        """The last offset that was acknowledged in each partition."""
        self._cluster = cluster
        self._clock = clock
        self._switches = switches
        self._on_step = on_step
        self._observed = observed
        self._failed: KafkaError | None = None
        self._ended_at = 0.0
        self._suspect = False
        self._producer = self._initialised()

    def _initialised(self) -> Producer:
        """A producer whose epoch fences every earlier one of this id."""
        while True:
            producer = self._cluster.transactional(self.transactional_id)
            try:
                producer.init_transactions(_TIMEOUT_S)
            except KafkaException as error:
                cause = error.args[0]
                log.warning("initialising %s: %s", self.transactional_id, cause)
                if cause.fatal() and not _may_pass(cause):
                    raise
                wait(0.2)
            else:
                return producer

    def rebuild(self) -> None:
        """Throws the producer away; the successor's epoch fences whatever is still on its way."""
        self.rebuilds += 1
        self._observed.rebuilt()
        self._producer = self._initialised()
        self._suspect = False

    def _reported(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed = error
        else:
            part = (str(message.topic()), int(message.partition() or 0))
            self.written[part] = int(message.offset() or 0)
            kind, stamp = message.timestamp()
            if kind == TIMESTAMP_LOG_APPEND_TIME:
                self._clock.observe(stamp)

    def _produce(self, records: Sequence[Encoded]) -> None:
        for record in records:
            options: dict[str, Any] = {"headers": list(record.headers)} if record.headers else {}
            if record.partition is not None:
                options["partition"] = record.partition
            while True:
                try:
                    self._producer.produce(
                        record.topic,
                        record.value,
                        record.key,
                        on_delivery=self._reported,
                        **options,
                    )
                    break
                except BufferError:
                    self._producer.poll(0.1)

    def _flush(self) -> None:
        try:
            left = self._producer.flush(_TIMEOUT_S)
        except SystemError as error:
            # The client loses its own exception when a fatal error arrives during a flush.
            raise KafkaException(
                KafkaError(KafkaError._FATAL, "fatal while flushing", fatal=True)
            ) from error
        if left > 0:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        if self._failed is not None:
            raise KafkaException(self._failed)

    def _timed(self, step: Callable[[], None]) -> None:
        started = self._clock.monotonic()
        step()
        if self._clock.monotonic() - started >= SLOW_S:
            self._suspect = True

    def commit(
        self,
        outputs: Sequence[Encoded],
        changelog: Sequence[Encoded],
        offsets: Sequence[TopicPartition],
        metadata: Any,
    ) -> None:
        """Commits everything or nothing.

        Outputs are flushed before the changelog, so state in the changelog implies its outputs in
        the log: a torn transaction can repeat an output but never lose one.

        Raises:
            Aborted: nothing was committed; read the records again (or keep what is a fact).
            Fenced: what was committed is unknown; begin again from the committed offsets.
        """
        if not outputs and not changelog:
            rest = self._ended_at + EMPTY_GAP_S - self._clock.monotonic()
            if rest > 0:
                wait(rest)
        first, second = (
            (changelog, outputs) if self._switches.changelog_first else (outputs, changelog)
        )
        self._failed = None
        started = self._clock.monotonic()
        try:
            self._producer.begin_transaction()
            self._produce(first)
            self._flush()
            self._on_step("outputs_flushed")
            if second:
                self._produce(second)
                self._flush()
            self._on_step("before_offsets")
            self._timed(
                lambda: self._producer.send_offsets_to_transaction(
                    list(offsets), metadata, _TIMEOUT_S
                )
            )
            self._on_step("before_commit")
            self._timed(lambda: self._producer.commit_transaction(COMMIT_TIMEOUT_S))
            self._on_step("after_commit")
        except KafkaException as error:
            self._recover(error.args[0])
        self._ended_at = self._clock.monotonic()
        self.commits += 1
        self._observed.committed((one.said for one in outputs), self._ended_at - started)
        if self._suspect and not self._switches.no_producer_rebuild:
            log.info("%s: slow commit, new producer", self.transactional_id)
            self.rebuild()

    def _recover(self, cause: KafkaError) -> None:
        """Leaves a producer that can begin again, and says what became of the transaction."""
        self.aborts += 1
        log.info("%s: transaction failed: %s", self.transactional_id, cause)
        if self._switches.no_producer_rebuild and cause.retriable():
            self._finish_as_if_nothing_happened()
            return
        if cause.txn_requires_abort():
            try:
                self._timed(lambda: self._producer.abort_transaction(_TIMEOUT_S))
            except KafkaException as error:
                log.info("%s: abort failed: %s", self.transactional_id, error.args[0])
            else:
                self._ended_at = self._clock.monotonic()
                if self._suspect:
                    self.rebuild()
                self._observed.ended("aborted")
                raise Aborted(str(cause))
        self.rebuild()
        self._observed.ended("fenced")
        raise Fenced(str(cause))

    def _finish_as_if_nothing_happened(self) -> None:
        """Only for the switch: retries the commit on the same producer."""
        try:
            self._producer.commit_transaction(_TIMEOUT_S)
        except KafkaException as error:
            self.rebuild()
            raise Fenced(str(error.args[0])) from error

    def abort_dead(self, transactional_id: str) -> None:
        """Ends what a dead worker of that id left open, in about a second, by fencing it."""
        producer = self._cluster.transactional(transactional_id)
        try:
            producer.init_transactions(_TIMEOUT_S)
        except KafkaException as error:
            log.warning("fencing %s: %s", transactional_id, error.args[0])


def _may_pass(error: KafkaError) -> bool:
    """Fatal states of initialising that another try can get past."""
    return error.code() in (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH)
