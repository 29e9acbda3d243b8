"""Where groups stand, asked and written from outside of the groups."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Final, TypeVar

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from pipeline.runtime.clock import Clock, wait
from pipeline.runtime.kafka import Cluster

TIMEOUT_S: Final = 15.0
POLL_S: Final = 0.05

_AT_WORK: Final = (KafkaError.NON_EMPTY_GROUP, KafkaError.UNKNOWN_MEMBER_ID)
_PASSING: Final = (
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
)

T = TypeVar("T")
Place = tuple[str, int]


class GroupAtWork(Exception):
    """Positions cannot be written while the group has members."""


def result(future: "Future[T]") -> T:
    """What an admin request came to.

    Raises:
        KafkaException: nothing good, or nothing in time.
    """
    try:
        return future.result(timeout=TIMEOUT_S)
    except TimeoutError as error:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from error


def patiently(clock: Clock, ask: Callable[[], T]) -> T:
    """Asks again while a new topic or a coordinator is still on its way.

    Raises:
        KafkaException: it did not come, or something else is wrong.
    """
    deadline = clock.monotonic() + TIMEOUT_S
    while True:
        try:
            return ask()
        except KafkaException as error:
            cause = error.args[0]
            passing = cause.retriable() or cause.code() in _PASSING
            if not passing or clock.monotonic() > deadline:
                raise
        wait(POLL_S)


def known(
    cluster: Cluster, clock: Clock, groups: Mapping[str, Sequence[Place]]
) -> Mapping[str, set[Place]]:
    """Of the partitions asked for, those in which each group has a position; names are the
    cluster's.

    A consumer asks, because the admin client's request ends the process (a null pointer in
    librdkafka) when the group's coordinator is still loading, as it is on a new broker. It reads
    uncommitted, so that a dead worker's open transaction keeps nobody waiting.

    Raises:
        KafkaException: the cluster cannot be asked.
    """
    found: dict[str, set[Place]] = {}
    for group, places in groups.items():
        if not places:
            found[group] = set()
            continue
        consumer = cluster.consumer(group, isolation_level="read_uncommitted")
        wanted = [TopicPartition(*place) for place in places]
        try:
            answer = patiently(clock, lambda c=consumer, w=wanted: c.committed(w, TIMEOUT_S))  # type: ignore[misc]
        finally:
            consumer.close()
        found[group] = {(p.topic, p.partition) for p in answer if p.offset >= 0}
    return found


def log_starts(admin: AdminClient, clock: Clock, places: Iterable[Place]) -> Mapping[Place, int]:
    """The first offset that each log still holds.

    Raises:
        KafkaException: the cluster cannot be asked.
    """
    request = {TopicPartition(*place): OffsetSpec.earliest() for place in places}  # type: ignore[no-untyped-call]
    if not request:
        return {}

    def ask() -> Mapping[Place, int]:
        answers = admin.list_offsets(request, request_timeout=TIMEOUT_S)
        return {
            (place.topic, place.partition): result(future).offset
            for place, future in answers.items()
        }

    return patiently(clock, ask)


def write(admin: AdminClient, clock: Clock, group: str, places: Mapping[Place, int]) -> None:
    """Writes a group's positions.

    Raises:
        GroupAtWork: the group has members.
        KafkaException: the cluster refuses.
    """

    def ask() -> None:
        wanted = [TopicPartition(*place, offset) for place, offset in places.items()]
        answers = admin.alter_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(group, wanted)], request_timeout=TIMEOUT_S
        )
        (future,) = answers.values()
        for place in result(future).topic_partitions or ():
            if place.error is not None:
                raise KafkaException(place.error)

    try:
        patiently(clock, ask)
    except KafkaException as error:
        if error.args[0].code() in _AT_WORK:
            raise GroupAtWork(
                f"group {group} is at work, so its first positions cannot be written; stop that "
                "stage, wait until its session is over (6 s), apply again and start it"
            ) from error
        raise
