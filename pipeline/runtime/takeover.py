"""Becoming the owner of dispatch's tasks, without a moment in which two workers may send.

1. Who had the task? Released, or our own slot (whose lock we hold): at once. Otherwise its
   transaction is ended by fencing it, and its lease and the longest request are waited for.
2. The committed positions, stable, with what is finished above them.
3. The journal to its end: what was begun and is not finished is in doubt.
4. A commit that names us and our lease. Only then are commands read.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Final

from confluent_kafka import Consumer, KafkaException

from pipeline.domain.completion import Completion, UnknownMap
from pipeline.runtime.clock import Clock
from pipeline.runtime.holding import Part, Phase, Task
from pipeline.runtime.inflight import LEASE_S
from pipeline.runtime.journal import Journal, JournalReader
from pipeline.runtime.tasks import Handover, Membership, committed
from pipeline.runtime.transaction import Transactions

log = logging.getLogger(__name__)

MARGIN_MS: Final = 500
"""Brokers' clocks and ours are compared here; neither is exact."""

_AGAIN_S: Final = 0.2


class Takeover:
    """Moves tasks from assigned to claiming. One thread."""

    def __init__(
        self,
        membership: Membership,
        transactions: Transactions,
        journal: Journal,
        reader: JournalReader,
        stable: Consumer,
        group: str,
        topics: Sequence[str],
        clock: Clock,
        longest_request_ms: int,
    ) -> None:
        self._membership, self._transactions = membership, transactions
        self._journal = journal
        self._reader, self._stable, self._group = reader, stable, group
        self._topics, self._clock = topics, clock
        self._longest_ms = longest_request_ms
        self._not_before = 0.0

    def step(self, tasks: Iterable[Task]) -> None:
        """Goes on with every task that is not there yet. A broker that does not answer is asked
        again later.

        Raises:
            MissingOffset: records could be skipped unseen.
        """
        pending = [
            task for task in tasks if task.phase in (Phase.ASSIGNED, Phase.WAITING, Phase.READING)
        ]
        if not pending or self._clock.monotonic() < self._not_before:
            return
        try:
            self._ask_owners([task for task in pending if task.phase is Phase.ASSIGNED])
            now = self._clock.now()
            self._find_positions(
                [t for t in pending if t.phase is Phase.WAITING and now >= t.ready_at]
            )
            self._read([task for task in pending if task.phase is Phase.READING])
        except KafkaException as error:
            log.info("taking tasks over: %s; trying again", error)
            self._not_before = self._clock.monotonic() + _AGAIN_S

    def drop(self, task: Task) -> None:
        """The task goes to somebody else before it was ours."""
        self._reader.drop(task.number)

    def _ask_owners(self, tasks: Sequence[Task]) -> None:
        if not tasks:
            return
        owners = self._membership.owners([task.number for task in tasks])
        mine = self._transactions.transactional_id
        dead = {
            owner.transactional_id
            for owner in owners.values()
            if not owner.released and owner.transactional_id != mine
        }
        for transactional_id in sorted(dead):
            self._transactions.abort_dead(transactional_id)
        for task in tasks:
            owner = owners.get(task.number)
            task.ready_at = 0
            if owner is not None and owner.transactional_id in dead and not owner.released:
                task.ready_at = self._lease_end(owner) + self._longest_ms + MARGIN_MS
            task.phase = Phase.WAITING

    def _lease_end(self, owner: Handover) -> int:
        """The lease cannot begin again after the fence, so it ends a lease from now at the latest,
        whatever the clocks say. Before a broker told us the time only that is certain."""
        latest = self._clock.now() + int(LEASE_S * 1_000)
        return min(owner.lease_until, latest) if self._journal.observed else latest

    def _find_positions(self, tasks: Sequence[Task]) -> None:
        if not tasks:
            return
        lead = self._membership.lead
        places: list[Part] = [
            (topic, task.number) for task in tasks for topic in (lead, *self._topics)
        ]
        found = committed(self._stable, self._group, places)
        for task in tasks:
            task.lead_offset = found[lead, task.number].offset
            for topic in self._topics:
                part = (topic, task.number)
                task.parts[part] = restored(part, found[part].offset, found[part].metadata)
            self._reader.begin(task.number)
            task.phase = Phase.READING

    def _read(self, tasks: Sequence[Task]) -> None:
        if not tasks:
            return
        complete = self._reader.step()
        for task in tasks:
            if task.number in complete:
                task.attempts = complete[task.number]
                task.phase = Phase.CLAIMING


def restored(part: Part, offset: int, text: str | None) -> Completion:
    """The progress that a commit said; an unknown map means replay from its offset."""
    try:
        return Completion(offset, text or "")
    except UnknownMap as error:
        log.warning("%s[%d]: no readable map (%s): replaying from %d", *part, error, offset)
        return Completion(offset)
