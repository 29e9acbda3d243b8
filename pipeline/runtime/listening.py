"""Silence is only silence when we have listened.

A receipt may be in the log and not yet read: behind a lag, or inside a transaction that its worker
has not finished. Before a window counts as silent, everything appended up to its end must have
been processed. The end of a partition is asked as readers of uncommitted records see it; the last
stable offset would hide the very receipt that matters.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from pipeline.domain.switches import NONE, Switches
from pipeline.runtime.clock import Clock

log = logging.getLogger(__name__)

Part = tuple[str, int]
_TIMEOUT_S: Final = 5.0


class Ends:
    """The high watermarks of some partitions, asked once; `asked_at` is the broker's time before."""

    def __init__(
        self, admin: AdminClient, parts: Iterable[Part], now: int, switches: Switches = NONE
    ) -> None:
        self.asked_at = now
        self.failed = False
        level = (
            IsolationLevel.READ_COMMITTED
            if switches.last_stable_as_watermark
            else IsolationLevel.READ_UNCOMMITTED
        )
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        self._futures: Mapping[TopicPartition, Future[Any]] = admin.list_offsets(
            {TopicPartition(*part): latest for part in parts},
            isolation_level=level,
            request_timeout=_TIMEOUT_S,
        )
        self._offsets: dict[Part, int] | None = None

    def offsets(self) -> Mapping[Part, int] | None:
        """The watermarks, or None while the answer is out (see `failed`)."""
        if self._offsets is None and all(future.done() for future in self._futures.values()):
            try:
                self._offsets = {
                    (part.topic, part.partition): future.result().offset
                    for part, future in self._futures.items()
                }
            except KafkaException as error:
                log.info("asking for watermarks: %s", error.args[0])
                self.failed = True
        return self._offsets


class Silence:
    """Works out until when a stage has heard everything that could end a silence.

    Four steps for one moment: receipts has worked through the callbacks up to it; receipts has
    joined what came out of them; the watermarks of our own inputs after that; our positions have
    reached them. `heard` is the last moment that passed all four.
    """

    def __init__(
        self,
        admin: AdminClient,
        topics: Sequence[str],
        progress: Callable[[], tuple[int, int]],
        clock: Clock,
        switches: Switches = NONE,
    ) -> None:
        self.heard = 0
        self._admin, self._topics, self._progress = admin, topics, progress
        self._clock, self._switches = clock, switches
        self._until = 0
        self._joined_after: int | None = None
        self._ends: Ends | None = None

    def reset(self) -> None:
        """The set of tasks changed: what was heard does not cover the new ones."""
        self.heard, self._until, self._joined_after, self._ends = 0, 0, None, None

    def step(self, wanted: int, tasks: Sequence[int], position: Callable[[Part], int]) -> None:
        """Moves towards `heard` >= `wanted`; costs little when called often."""
        if self.heard >= wanted:
            return
        self._until = self._until or wanted
        callbacks, joined = self._progress()
        if self._joined_after is None:
            if callbacks < self._until:
                return
            # As far as is known already, so that windows which ended meanwhile need no turn of
            # their own.
            self._until = callbacks
            self._joined_after = self._clock.now()
        if self._ends is None:
            if joined < self._joined_after:
                return
            parts = [(topic, task) for topic in self._topics for task in tasks]
            self._ends = Ends(self._admin, parts, self._clock.now(), self._switches)
        ends = self._ends.offsets()
        if self._ends.failed:
            self._ends = None
        if ends is not None and all(position(part) >= end for part, end in ends.items()):
            self.heard = self._until
            self._until, self._joined_after, self._ends = 0, None, None
