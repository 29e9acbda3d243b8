"""Tasks: partition i of all of a stage's topics belongs to one worker at a time.

Assignors spread each topic by itself, so a plain subscription would give partition i of two topics
to two workers. A membership consumer therefore joins the group for one lead topic only, paused and
never fetching; owning partition i of it is owning task i, and records come through consumers with
manual assignment. Group metadata is read only inside the rebalance callbacks, where tasks and
generation agree.
"""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from confluent_kafka import OFFSET_END, Consumer, KafkaException, TopicPartition

from pipeline.runtime.kafka import Cluster

log = logging.getLogger(__name__)

COMMITTED_TIMEOUT_S: Final = 15.0
Tasks = Callable[[list[int]], None]


class SlotTaken(RuntimeError):
    """Another process runs this stage in this slot; two would fence each other for ever."""


class SlotLock:
    """The lock file of a stage and slot; held until the process ends, however it ends."""

    def __init__(self, directory: Path, stage: str, slot: int) -> None:
        import fcntl  # not on every platform; nothing else here needs it

        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{stage}-{slot}.lock"
        self._file: IO[str] = path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise SlotTaken(
                f"{stage} already runs in slot {slot} (lock {path}); choose another --slot"
            ) from error
        self._file.seek(0)
        self._file.truncate()
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Gives the slot back before the process ends."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class Handover:
    """What the owner of a task leaves in the commit metadata of its lead partition.

    `lease_until` is the broker's time (ms) until which the owner may still begin requests.
    """

    transactional_id: str
    lease_until: int = 0
    released: bool = False

    def text(self) -> str:
        """As it stands in the commit metadata."""
        return f"1;tid={self.transactional_id};lease={self.lease_until};released={self.released:d}"

    @staticmethod
    def read(text: str | None) -> "Handover | None":
        """None for a partition that nobody owned yet, or metadata of an unknown version."""
        parts = (text or "").split(";")
        if parts[0] != "1":
            return None
        fields = dict(part.split("=", 1) for part in parts[1:] if "=" in part)
        try:
            return Handover(fields["tid"], int(fields["lease"]), fields["released"] == "1")
        except (KeyError, ValueError):
            return None


class MissingOffset(RuntimeError):
    """A group has no position in a partition that it must not skip."""

    def __init__(self, group: str, partitions: Iterable[tuple[str, int]]) -> None:
        names = ", ".join(f"{topic}[{partition}]" for topic, partition in sorted(partitions))
        super().__init__(
            f"group {group} has no committed offset for {names}: either `pipeline topics apply` "
            "never ran, or the offsets expired and the records since the last commit would be "
            "skipped; run `pipeline topics apply`, which starts them at the first record kept"
        )


class Membership:
    """The consumer that joins the group: as the static member of `slot`, which a restart gets back
    at once, or without a slot as a member that leaves when it closes. Callbacks run inside `poll` and `close`, on the caller's
    thread; `metadata` is valid for the tasks owned since the last of them."""

    def __init__(
        self,
        cluster: Cluster,
        group: str,
        lead: str,
        slot: int | None,
        *,
        on_assigned: Tasks,
        on_revoked: Tasks,
        on_lost: Tasks,
    ) -> None:
        self.group = cluster.group(group)
        self.lead = cluster.real(lead)
        self.metadata: Any = None
        self.generations = 0
        self._epochs: dict[int, int] = {}
        self._assigned, self._revoked, self._lost = on_assigned, on_revoked, on_lost
        # Reads uncommitted, so that `owners` sees through a dead owner's open transaction.
        self._consumer = cluster.member(self.group, slot, isolation_level="read_uncommitted")
        self._consumer.subscribe(
            [self.lead],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    @property
    def tasks(self) -> Sequence[int]:
        """What the group says is ours."""
        return sorted(self._epochs)

    def epoch(self, task: int) -> int | None:
        """Rises with every assignment of the task; None when it is not ours."""
        return self._epochs.get(task)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        at_end = [TopicPartition(p.topic, p.partition, OFFSET_END) for p in partitions]
        consumer.incremental_assign(at_end)
        if at_end:
            consumer.pause(at_end)
        self.metadata = consumer.consumer_group_metadata()
        self.generations += 1
        tasks = [p.partition for p in partitions]
        for task in tasks:
            self._epochs[task] = self.generations
        if tasks:
            self._assigned(tasks)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.metadata = consumer.consumer_group_metadata()
        self._gone([p.partition for p in partitions], self._revoked)
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._gone([p.partition for p in partitions], self._lost)
        consumer.incremental_unassign(partitions)

    def _gone(self, tasks: list[int], tell: Tasks) -> None:
        if tasks:
            tell(tasks)
        for task in tasks:
            self._epochs.pop(task, None)

    def poll(self, timeout: float = 0.0) -> None:
        """Serves the group. Raises KafkaException when the member was fenced by its successor."""
        message = self._consumer.poll(timeout)
        if message is not None and (error := message.error()) is not None:
            if error.fatal():
                raise KafkaException(error)
            log.info("membership of %s: %s", self.group, error)

    def owners(self, tasks: Sequence[int]) -> Mapping[int, Handover]:
        """Who had these tasks last, read through open transactions."""
        found = self._consumer.committed(
            [TopicPartition(self.lead, task) for task in tasks], COMMITTED_TIMEOUT_S
        )
        owners = {p.partition: Handover.read(p.metadata) for p in found}
        return {task: owner for task, owner in owners.items() if owner is not None}

    def fresh_metadata(self) -> Any:
        """Only for the switch: the group's metadata as of now, which may be younger than what we
        own."""
        return self._consumer.consumer_group_metadata()

    def close(self) -> None:
        """Leaves; the revoked callback runs for what is still owned."""
        self._consumer.close()


def committed(
    consumer: Consumer, group: str, partitions: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], TopicPartition]:
    """Stable positions of `group`: waits for open transactions to end.

    Raises:
        MissingOffset: a partition has none, so records could be skipped unseen.
    """
    found = consumer.committed(
        [TopicPartition(topic, partition) for topic, partition in partitions], COMMITTED_TIMEOUT_S
    )
    missing = [(p.topic, p.partition) for p in found if p.error is not None or p.offset < 0]
    if missing:
        raise MissingOffset(group, missing)
    return {(p.topic, p.partition): p for p in found}
