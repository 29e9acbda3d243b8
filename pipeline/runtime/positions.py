"""Where groups stand, asked and written from outside of the groups."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Final, TypeVar

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from pipeline.runtime.clock import Clock, wait

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


def known(admin: AdminClient, clock: Clock, groups: Sequence[str]) -> Mapping[str, set[Place]]:
    """The partitions for which each group has a position; names are the cluster's.

    Raises:
        KafkaException: the cluster cannot be asked.
    """

    def ask(group: str) -> "Future[ConsumerGroupTopicPartitions]":
        answers = admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(group)], request_timeout=TIMEOUT_S
        )
        (future,) = answers.values()
        return future

    def read(future: "Future[ConsumerGroupTopicPartitions]") -> set[Place]:
        places = result(future).topic_partitions or ()
        return {(place.topic, place.partition) for place in places if place.offset >= 0}

    found: dict[str, set[Place]] = {}
    for group, future in [(group, ask(group)) for group in groups]:
        try:
            found[group] = read(future)
        except KafkaException:
            found[group] = patiently(clock, lambda name=group: read(ask(name)))  # type: ignore[misc]
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
