"""Committing what commands came to: events, positions and the lease, in one transaction.

An answer from a provider is a fact. After an abort the same batch is committed again, as long as
its tasks are ours; nothing is read again and nothing is sent again.
"""

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import TopicPartition

from pipeline.domain.completion import Completion
from pipeline.domain.switches import NONE, Switches
from pipeline.runtime.clock import Clock
from pipeline.runtime.holding import Part, Phase, Task
from pipeline.runtime.inflight import LEASE_S, Lease
from pipeline.runtime.tasks import Handover, Membership
from pipeline.runtime.transaction import Aborted, Encoded, Fenced, Transactions, rest_s

log = logging.getLogger(__name__)

MAX_RECORDS: Final = 1_000
MAX_PARTITIONS: Final = 24
RENEW_WITH_WORK_S: Final = 1.0
RENEW_IDLE_S: Final = 2.0
_AGAIN_S: Final = 0.05
_NEVER: Final = float("inf")

SPACING_S: Final = {"urgent": 0.015, "normal": 0.050, "bulk": 0.200}
"""How long a result of a lane may wait for others."""


@dataclass(slots=True, eq=False)
class Settled:
    """A finished command. `due` is when it must be committed (monotonic seconds)."""

    task: Task
    part: Part
    offset: int
    outputs: tuple[Encoded, ...]
    due: float


@dataclass(slots=True)
class _Batch:
    settled: list[Settled] = field(default_factory=list)
    partitions: int = 0


class Settlement:
    """What is finished and not committed yet. One thread."""

    def __init__(
        self,
        membership: Membership,
        transactions: Transactions,
        lease: Lease,
        clock: Clock,
        switches: Switches = NONE,
    ) -> None:
        self._membership, self._transactions = membership, transactions
        self._lease, self._clock, self._switches = lease, clock, switches
        self._waiting: dict[Task, list[Settled]] = {}
        self._again: _Batch | None = None
        self._not_before = 0.0
        self._next_due = _NEVER

    def __len__(self) -> int:
        again = len(self._again.settled) if self._again else 0
        return again + sum(map(len, self._waiting.values()))

    def add(
        self, task: Task, part: Part, offset: int, lane: str, outputs: Sequence[Encoded]
    ) -> None:
        """A command is finished with these records."""
        due = self._clock.monotonic() + SPACING_S.get(lane, 0.050)
        self._next_due = min(due, self._next_due)
        self._waiting.setdefault(task, []).append(Settled(task, part, offset, tuple(outputs), due))

    def due(self, tasks: Iterable[Task], *, idle: bool) -> bool:
        """Whether to commit now."""
        now = self._clock.monotonic()
        if now < self._not_before:
            return False
        if any(task.phase is Phase.CLAIMING for task in tasks):
            return True
        if self._again or self._next_due <= now:
            return True
        if self._waiting and idle:
            return True
        return self._lease.left < LEASE_S - RENEW_IDLE_S and any(task.ours for task in tasks)

    def commit(self, tasks: Collection[Task], released: Collection[Task] = ()) -> bool:
        """Commits a batch, and the lease where it is time. False: it has to be tried again.

        Raises:
            Fenced: what was committed is unknown; call `reconcile` before the next.
        """
        batch = self._again or self._compose()
        renew = (
            bool(released)
            or any(task.phase is Phase.CLAIMING for task in tasks)
            or self._lease.left < LEASE_S - RENEW_WITH_WORK_S
        )
        started = self._clock.monotonic()
        offsets = self._offsets(batch)
        if renew:
            offsets += [self._claim(task, released) for task in tasks if task.ours]
        if not offsets:
            return True
        outputs = [record for settled in batch.settled for record in settled.outputs]
        self._again = batch if batch.settled else None
        try:
            self._transactions.commit(outputs, (), offsets, self._metadata())
        except Aborted as error:
            log.info("dispatch: aborted: %s; the facts stay", error)
            self._not_before = self._clock.monotonic() + _AGAIN_S
            return False
        except Fenced:
            self._lease.end()
            self._not_before = self._clock.monotonic() + _AGAIN_S
            raise
        self._again = None
        if renew:
            self._lease.renew(started)
        ended = self._clock.monotonic()
        self._not_before = ended + rest_s(ended - started)
        return True

    def _metadata(self) -> Any:
        if self._switches.poll_time_metadata:
            return self._membership.fresh_metadata()
        return self._membership.metadata

    def _compose(self) -> _Batch:
        batch = _Batch()
        order = sorted(self._waiting, key=lambda task: min(s.due for s in self._waiting[task]))
        for task in order:
            if len(batch.settled) >= MAX_RECORDS or batch.partitions >= MAX_PARTITIONS:
                break
            taken = self._waiting.pop(task)
            rest = taken[MAX_RECORDS:]
            if rest:
                self._waiting[task] = rest
                taken = taken[:MAX_RECORDS]
            batch.settled += taken
            batch.partitions += len({record.topic for s in taken for record in s.outputs})
        self._next_due = min(
            (s.due for rest in self._waiting.values() for s in rest), default=_NEVER
        )
        for settled in batch.settled:
            settled.task.parts[settled.part].finish(settled.offset)
        return batch

    def _offsets(self, batch: _Batch) -> list[TopicPartition]:
        ahead = 1 if self._switches.offset_too_far else 0
        touched = {settled.part: settled.task.parts[settled.part] for settled in batch.settled}
        return [
            TopicPartition(*part, completion.position + ahead, completion.text())
            for part, completion in touched.items()
        ]

    def _claim(self, task: Task, released: Collection[Task]) -> TopicPartition:
        gone = task in released
        note = Handover(
            self._transactions.transactional_id,
            0 if gone else self._clock.now() + int(LEASE_S * 1_000),
            gone,
        )
        return TopicPartition(self._membership.lead, task.number, task.lead_offset, note.text())

    def reconcile(self, found: dict[Part, Completion]) -> int:
        """After a fence: of the batch whose fate is unknown, keeps only what `found` (the
        committed state) does not have. Returns how many are kept."""
        if self._again is None:
            return 0
        self._again.settled = [
            settled
            for settled in self._again.settled
            if settled.part in found and not found[settled.part].finished(settled.offset)
        ]
        if not self._again.settled:
            self._again = None
            return 0
        return len(self._again.settled)

    def pending(self, task: Task) -> bool:
        """Whether something of the task is not committed."""
        again = self._again is not None and any(s.task is task for s in self._again.settled)
        return again or task in self._waiting

    def drop(self, task: Task) -> None:
        """The task is somebody else's: its results are not ours to write."""
        if self._switches.poll_time_metadata:
            return
        self._waiting.pop(task, None)
        if self._again is not None:
            self._again.settled = [s for s in self._again.settled if s.task is not task]
            if not self._again.settled:
                self._again = None
