"""How far groups are behind, asked from outside: joins no group, commits nothing, changes nothing."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from pipeline.runtime import positions
from pipeline.runtime.clock import BrokerClock, Clock
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.reader import Unreachable

Place = tuple[str, int]
"""A topic (the catalogue's name) and a partition."""

TIMEOUT_S: Final = positions.TIMEOUT_S
FIRST_S: Final = 10.0
"""How long the first waiting records may take to come; those that did not have no age."""

_SMALL: Final = {"queued_min_messages": 1, "fetch_message_max_bytes": 65_536}
"""One record of each partition is wanted, so no more than that is fetched ahead."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a group stands in one partition.

    `position` is None when it never committed one. `stable` is the first offset that readers of
    committed records do not get yet, `high` the end of the log: between them stands a transaction
    that is not decided. `oldest_at` is the append time (ms) of the first record that the group has
    not worked through, `undecided_at` that of the first record of the open transaction; None where
    there is none.
    """

    group: str
    topic: str
    partition: int
    position: int | None
    low: int
    stable: int
    high: int
    oldest_at: int | None = None
    undecided_at: int | None = None

    @property
    def lag(self) -> int:
        """Offsets between the position and the stable end; markers of transactions count."""
        return max(0, self.stable - max(self.position or 0, self.low))


@dataclass(frozen=True, slots=True)
class Members:
    """A group's state by the coordinator's word, and its members by client and host."""

    state: str
    members: tuple[str, ...]


def standings(
    cluster: Cluster, groups: Mapping[str, Sequence[Place]], clock: Clock | None = None
) -> list[Standing]:
    """Where each group (without prefix) stands in its partitions.

    A record that is being worked on counts as waiting, because its offset is not committed.

    Raises:
        Unreachable: the cluster cannot be asked, or a topic is not there.
    """
    clock = clock or BrokerClock()
    places = sorted({place for found in groups.values() for place in found})
    try:
        admin = cluster.admin()
        low = _ends(cluster, admin, places, _earliest(), IsolationLevel.READ_UNCOMMITTED)
        high = _ends(cluster, admin, places, _latest(), IsolationLevel.READ_UNCOMMITTED)
        stable = _ends(cluster, admin, places, _latest(), IsolationLevel.READ_COMMITTED)
        at = {group: _committed(cluster, group, found) for group, found in groups.items()}
        begun = {
            (group, place): max(at[group].get(place, 0), low[place])
            for group, found in groups.items()
            for place in found
        }
        waiting = {key: start for key, start in begun.items() if start < stable[key[1]]}
        oldest: dict[tuple[str, Place], int] = {}
        for group in groups:
            own = {place: start for (name, place), start in waiting.items() if name == group}
            first = first_records(cluster, own, clock, committed=True)
            oldest |= {(group, place): stamp for place, stamp in first.items()}
        open_from = {place: stable[place] for place in places if stable[place] < high[place]}
        undecided = first_records(cluster, open_from, clock, committed=False)
    except KafkaException as error:
        raise Unreachable(f"{cluster.bootstrap}: {error.args[0].str()}") from error
    return [
        Standing(
            group=group,
            topic=place[0],
            partition=place[1],
            position=at[group].get(place),
            low=low[place],
            stable=stable[place],
            high=high[place],
            oldest_at=oldest.get((group, place)),
            undecided_at=undecided.get(place),
        )
        for group, found in groups.items()
        for place in found
    ]


def members(cluster: Cluster, groups: Collection[str]) -> dict[str, Members]:
    """Who works in each group (without prefix).

    Raises:
        Unreachable
    """
    names = {cluster.group(group): group for group in groups}
    admin = cluster.admin()
    try:
        asked = admin.describe_consumer_groups(sorted(names), request_timeout=TIMEOUT_S)
        found = {names[name]: positions.result(future) for name, future in asked.items()}
    except KafkaException as error:
        raise Unreachable(f"{cluster.bootstrap}: {error.args[0].str()}") from error
    return {
        group: Members(
            str(answer.state.name).lower(),
            tuple(f"{one.client_id} at {one.host}" for one in answer.members),
        )
        for group, answer in found.items()
    }


def first_records(
    cluster: Cluster, starts: Mapping[Place, int], clock: Clock, *, committed: bool
) -> dict[Place, int]:
    """The append time of the first record from each start on; nothing for a partition that has
    none, or did not answer within `FIRST_S`.

    Raises:
        KafkaException
    """
    if not starts:
        return {}
    level = "read_committed" if committed else "read_uncommitted"
    consumer = cluster.consumer(
        cluster.group("status"), enable_partition_eof=True, isolation_level=level, **_SMALL
    )
    found: dict[Place, int] = {}
    left = {(cluster.real(topic), number) for topic, number in starts}
    try:
        consumer.assign(
            [TopicPartition(cluster.real(p[0]), p[1], start) for p, start in starts.items()]
        )
        until = clock.monotonic() + FIRST_S
        while left and clock.monotonic() < until:
            over: set[Place] = set()
            for message in consumer.consume(len(left), 0.2):
                real = (str(message.topic()), int(message.partition() or 0))
                error = message.error()
                if error is None and real in left:
                    found[cluster.logical(real[0]), real[1]] = message.timestamp()[1]
                if error is None or error.code() == KafkaError._PARTITION_EOF:
                    over.add(real)
            over &= left
            left -= over
            if over and left:
                consumer.incremental_unassign([TopicPartition(*place) for place in over])
    finally:
        consumer.close()
    return found


def _earliest() -> Any:
    return OffsetSpec.earliest()  # type: ignore[no-untyped-call]


def _latest() -> Any:
    return OffsetSpec.latest()  # type: ignore[no-untyped-call]


def _ends(
    cluster: Cluster,
    admin: AdminClient,
    places: Sequence[Place],
    which: Any,
    level: IsolationLevel,
) -> dict[Place, int]:
    asked = {TopicPartition(cluster.real(topic), number): which for topic, number in places}
    if not asked:
        return {}
    answers = admin.list_offsets(asked, isolation_level=level, request_timeout=TIMEOUT_S)
    return {
        (cluster.logical(place.topic), place.partition): int(positions.result(future).offset)
        for place, future in answers.items()
    }


def _committed(cluster: Cluster, group: str, places: Sequence[Place]) -> dict[Place, int]:
    """A consumer asks, as in positions.py: the admin client's own request can end the process."""
    consumer = cluster.consumer(cluster.group(group), isolation_level="read_uncommitted")
    try:
        parts = [TopicPartition(cluster.real(topic), number) for topic, number in places]
        answer = consumer.committed(parts, timeout=TIMEOUT_S) if parts else []
    finally:
        consumer.close()
    return {
        (cluster.logical(part.topic), part.partition): part.offset
        for part in answer
        if part.offset >= 0
    }
