"""Brings a cluster to what the catalogue says, and tells a stage whether it is there.

Nothing is ever deleted and no partition count is changed: what differs there is a problem that a
person solves. Positions are written once for each partition of each group, so that a consumer
which finds none knows that something was lost.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from pipeline.domain.records import RECORD_VERSION, Control
from pipeline.runtime import positions
from pipeline.runtime.clock import BrokerClock, Clock, wait
from pipeline.runtime.codec import Codec
from pipeline.runtime.control import differences, read_control, write_control
from pipeline.runtime.kafka import Cluster
from pipeline.topology import CATALOGUE, PARTITIONER, STAGES, Catalogue, Topic

_TIMEOUT_S: Final = positions.TIMEOUT_S


class ClusterUnusable(Exception):
    """The cluster did not do what was asked; the text says what and why."""


class TopicsMismatch(Exception):
    """The cluster is not what the catalogue says; the text says where and what to do."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that `apply` does, for people and programs.

    `action` is create, alter, offsets or control; `subject` a topic, a group or the prefix.
    """

    action: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class Creation:
    """A topic to create. `topic` is the catalogue's."""

    topic: Topic
    partitions: int


@dataclass(frozen=True, slots=True)
class FirstOffsets:
    """Partitions of one topic for which a group has no position yet."""

    group: str
    topic: str
    partitions: tuple[int, ...]
    fresh: bool  # the topic is created in the same plan


@dataclass(frozen=True, slots=True)
class Plan:
    """What separates a cluster from the catalogue. Names are the catalogue's.

    `problems` are what `apply` will not touch; `partitions` is the count of the topics about
    recipients.
    """

    partitions: int
    create: tuple[Creation, ...]
    alter: Mapping[str, Mapping[str, tuple[str, str]]]  # topic: setting: is, shall be
    offsets: tuple[FirstOffsets, ...]
    control: Control | None
    problems: tuple[str, ...]

    @property
    def empty(self) -> bool:
        """Whether the cluster is as it shall be."""
        return not (self.create or self.alter or self.offsets or self.control or self.problems)

    def changes(self) -> list[Change]:
        """What `apply` would do, in its order."""
        found = [
            Change(
                "create",
                creation.topic.name,
                f"{creation.partitions} partitions, {_shown(creation.topic.config)}",
            )
            for creation in self.create
        ]
        for topic, settings in self.alter.items():
            shown = ", ".join(f"{name} {was} -> {to}" for name, (was, to) in settings.items())
            found.append(Change("alter", topic, shown))
        for first in self.offsets:
            shown = f"first position in {len(first.partitions)} partitions of {first.topic}"
            found.append(Change("offsets", first.group, shown))
        if self.control is not None:
            shown = f"{self.control['partitions']} partitions, {self.control['partitioner']}"
            found.append(Change("control", "cluster", shown))
        return found


def _shown(config: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(config.items()))


class Admin:
    """Compares and changes one cluster.

    `partitions` (of the topics about recipients) and `replication` serve where nothing exists yet;
    None leaves them to the control record and the catalogue. `timeout_s` is how long the brokers
    may take to answer at all.
    """

    def __init__(
        self,
        cluster: Cluster,
        codec: Codec,
        pepper_fingerprint: str,
        partitions: int | None = None,
        replication: int | None = None,
        catalogue: Catalogue = CATALOGUE,
        clock: Clock | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        self._cluster = cluster
        self._codec = codec
        self._fingerprint = pepper_fingerprint
        self._partitions = partitions
        self._replication = replication or catalogue.replication
        self._catalogue = catalogue
        self._clock = clock or BrokerClock()
        self._timeout_s = timeout_s
        self._admin = cluster.admin()

    def plan(self, stage: str | None = None) -> Plan:
        """What has to be done; of one stage's topics and groups only, when it is given.

        Raises:
            ClusterUnusable: the cluster cannot be asked.
        """
        try:
            return self._plan(stage)
        except KafkaException as error:
            raise ClusterUnusable(f"{self._cluster.bootstrap}: {error.args[0]}") from error

    def apply(self, plan: Plan) -> None:
        """Does what the plan says, except for its problems. Doing it twice does no harm.

        Raises:
            ClusterUnusable: the cluster refused something; what was done before stays.
        """
        try:
            self._create(plan.create)
            self._alter(plan.alter)
            self._commit(plan.offsets)
            if plan.control is not None:
                write_control(self._cluster, self._codec, plan.control)
        except positions.GroupAtWork as error:
            raise ClusterUnusable(str(error)) from error
        except KafkaException as error:
            raise ClusterUnusable(f"{self._cluster.bootstrap}: {error.args[0]}") from error

    def _plan(self, stage: str | None) -> Plan:
        existing = {
            self._cluster.logical(name): len(metadata.partitions)
            for name, metadata in self._admin.list_topics(timeout=self._timeout_s).topics.items()
            if name.startswith(self._cluster.prefix) and metadata.error is None
        }
        found = read_control(self._cluster, self._codec)
        expected = self._expected(found)
        topics = [
            topic
            for topic in self._catalogue
            if stage is None or stage in topic.readers or stage in topic.writers
        ]
        shared = (found or expected)["partitions"]
        counts = {topic.name: shared if topic.shared else topic.partitions for topic in topics}
        problems = [] if found is None else differences(found, expected)
        problems += [
            f"{self._cluster.real(name)} has {existing[name]} partitions instead of {count}; a "
            "partition count is never changed in place: use a new prefix and drain"
            for name, count in counts.items()
            if existing.get(name, count) != count
        ]
        return Plan(
            partitions=shared,
            create=tuple(
                Creation(topic, counts[topic.name])
                for topic in topics
                if topic.name not in existing
            ),
            alter=self._alterations([topic for topic in topics if topic.name in existing]),
            offsets=self._missing_offsets(
                STAGES if stage is None else (stage,),
                {name: existing.get(name, count) for name, count in counts.items()},
                existing,
            ),
            control=expected if found is None else None,
            problems=tuple(problems),
        )

    def _expected(self, found: Control | None) -> Control:
        partitions = self._partitions
        if partitions is None:
            partitions = self._catalogue.partitions if found is None else found["partitions"]
        return {
            "record_version": RECORD_VERSION,
            "tenant": "",
            "partitions": partitions,
            "partitioner": PARTITIONER,
            "pepper_fingerprint": self._fingerprint,
            "created_at": self._clock.now(),
        }

    def _alterations(self, topics: Sequence[Topic]) -> Mapping[str, Mapping[str, tuple[str, str]]]:
        if not topics:
            return {}
        names = {self._cluster.real(topic.name): topic for topic in topics}
        answers = self._admin.describe_configs(
            [ConfigResource(ResourceType.TOPIC, name) for name in names],
            request_timeout=_TIMEOUT_S,
        )
        found: dict[str, Mapping[str, tuple[str, str]]] = {}
        for resource, future in answers.items():
            topic = names[resource.name]
            entries = positions.result(future)
            wrong = {
                name: (entries[name].value if name in entries else "unknown", value)
                for name, value in topic.config.items()
                if name not in entries or entries[name].value != value
            }
            if wrong:
                found[topic.name] = wrong
        return {topic.name: found[topic.name] for topic in topics if topic.name in found}

    def _missing_offsets(
        self, stages: Iterable[str], counts: Mapping[str, int], existing: Mapping[str, int]
    ) -> tuple[FirstOffsets, ...]:
        wanted = {
            group: topics
            for stage in stages
            for group, topics in self._catalogue.groups(stage).items()
        }
        known = positions.known(
            self._cluster,
            self._clock,
            {
                self._cluster.group(group): [
                    (self._cluster.real(topic.name), partition)
                    for topic in topics
                    if topic.name in existing
                    for partition in range(counts[topic.name])
                ]
                for group, topics in wanted.items()
            },
        )
        missing = []
        for group, topics in wanted.items():
            places = known[self._cluster.group(group)]
            for topic in topics:
                partitions = tuple(
                    partition
                    for partition in range(counts[topic.name])
                    if (self._cluster.real(topic.name), partition) not in places
                )
                if partitions:
                    fresh = topic.name not in existing
                    missing.append(FirstOffsets(group, topic.name, partitions, fresh))
        return tuple(missing)

    def _create(self, creations: Sequence[Creation]) -> None:
        if not creations:
            return
        counts = {
            self._cluster.real(creation.topic.name): creation.partitions for creation in creations
        }
        answers = self._admin.create_topics(
            [
                NewTopic(
                    self._cluster.real(creation.topic.name),
                    num_partitions=creation.partitions,
                    replication_factor=self._replication,
                    config=dict(creation.topic.config),
                )
                for creation in creations
            ],
            operation_timeout=_TIMEOUT_S,
        )
        for future in answers.values():
            try:
                positions.result(future)
            except KafkaException as error:
                # Somebody else was faster; the next plan says whether it came out the same.
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
        self._await(counts)

    def _await(self, counts: Mapping[str, int]) -> None:
        """Returns when every partition has a leader: only then can positions be written."""
        deadline = self._clock.monotonic() + _TIMEOUT_S
        while True:
            topics = self._admin.list_topics(timeout=_TIMEOUT_S).topics
            led = {
                name
                for name in counts
                if name in topics
                and sum(part.leader >= 0 for part in topics[name].partitions.values())
                == len(topics[name].partitions)
                != 0
            }
            if led == set(counts):
                return
            if self._clock.monotonic() > deadline:
                late = ", ".join(sorted(set(counts) - led)[:5])
                raise ClusterUnusable(f"no leader after {_TIMEOUT_S:.0f} s for {late}")
            wait(positions.POLL_S)

    def _alter(self, alter: Mapping[str, Mapping[str, tuple[str, str]]]) -> None:
        if not alter:
            return
        answers = self._admin.incremental_alter_configs(
            [
                ConfigResource(
                    ResourceType.TOPIC,
                    self._cluster.real(topic),
                    incremental_configs=[
                        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                        for name, (_, value) in settings.items()
                    ],
                )
                for topic, settings in alter.items()
            ],
            request_timeout=_TIMEOUT_S,
        )
        for future in answers.values():
            positions.result(future)

    def _commit(self, firsts: Sequence[FirstOffsets]) -> None:
        """A new topic begins at 0; of an older one the first records may be gone already."""
        groups: dict[str, dict[positions.Place, int]] = {}
        for first in firsts:
            places = [(self._cluster.real(first.topic), number) for number in first.partitions]
            starts = (
                dict.fromkeys(places, 0)
                if first.fresh
                else positions.log_starts(self._admin, self._clock, places)
            )
            groups.setdefault(self._cluster.group(first.group), {}).update(starts)
        for group, starts in groups.items():
            positions.write(self._admin, self._clock, group, starts)


def verify(
    cluster: Cluster,
    codec: Codec,
    pepper_fingerprint: str,
    stage: str,
    catalogue: Catalogue = CATALOGUE,
) -> int:
    """The shared partition count, when everything that a stage reads and writes is as the catalogue
    says; it must not start otherwise.

    Raises:
        TopicsMismatch: it is not; the text names the first differences and the cure.
        ClusterUnusable: the cluster cannot be asked.
    """
    plan = Admin(cluster, codec, pepper_fingerprint, catalogue=catalogue).plan(stage)
    if not plan.empty:
        wrong = list(plan.problems)
        wrong += [f"{change.action} {change.subject}: {change.detail}" for change in plan.changes()]
        more = f" (and {len(wrong) - 5} more)" if len(wrong) > 5 else ""
        cure = "solve these first" if plan.problems else "run `pipeline topics apply` first"
        raise TopicsMismatch(f"{'; '.join(wrong[:5])}{more}; {cure}")
    return plan.partitions
