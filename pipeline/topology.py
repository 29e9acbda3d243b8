"""The map of the pipeline: `topics.yaml`, read once, checked, and spread over lanes and channels.

Names here are the catalogue's, without the prefix that the runtime puts in front.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import yaml

from pipeline.domain import records

STAGES: Final = ("accept", "fallback", "dispatch", "gateway", "receipts", "sink")
"""Every stage that may write or read a topic."""

PROGRAMS: Final = (*STAGES, "clients", "cli", "audit")
"""Everybody that the catalogue may name as a writer or a reader."""

PARTITIONER: Final = "murmur2_random"
"""How a recipient's key finds its partition; the Java clients' default does the same."""

RECORDS: Final[Mapping[str, type]] = MappingProxyType(
    {
        name: kind
        for name, kind in vars(records).items()
        if isinstance(kind, type) and "record_version" in getattr(kind, "__annotations__", {})
    }
)
"""The records that may stand alone in a topic, by name."""

_UNITS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LANE: Final = "{lane}"
_CHANNEL: Final = "{channel}"


class CatalogueError(ValueError):
    """`topics.yaml` says something that cannot be meant; the text names place, cause and cure."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic.

    `records` maps the letters before `:` of a key to the record under it; the only entry of a
    topic with one record is the empty text. `retention_ms` is None where `compact` is true.
    `config` is what the broker is told, as text, complete.
    """

    name: str
    template: str
    key: str
    records: Mapping[str, str]
    shared: bool
    partitions: int
    retention_ms: int | None
    compact: bool
    content: bool
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    purpose: str
    config: Mapping[str, str]
    lane: str | None = None
    channel: str | None = None

    @property
    def record(self) -> str:
        """The topic's one record.

        Raises:
            CatalogueError: the topic has several.
        """
        if len(self.records) != 1:
            raise CatalogueError(f"{self.name} has several records: {sorted(self.records)}")
        return next(iter(self.records.values()))

    @property
    def table(self) -> bool:
        """Whether every reader reads it whole (compacted, one partition), without a position."""
        return self.compact and self.partitions == 1 and not self.shared


@dataclass(frozen=True)
class Catalogue:
    """Every topic by name, in flow order, and who does what with it."""

    topics: Mapping[str, Topic]
    lanes: tuple[str, ...]
    channels: tuple[str, ...]
    partitions: int
    replication: int
    broker: Mapping[str, str]
    leads: Mapping[str, str]

    def __iter__(self) -> Iterator[Topic]:
        return iter(self.topics.values())

    def topic(self, name: str) -> Topic:
        """Raises CatalogueError when there is no such topic."""
        try:
            return self.topics[name]
        except KeyError:
            raise CatalogueError(f"topics.yaml knows no topic {name!r}") from None

    def read_by(self, program: str) -> tuple[Topic, ...]:
        """What a stage or program reads, in flow order."""
        return tuple(topic for topic in self if program in topic.readers)

    def written_by(self, program: str) -> tuple[Topic, ...]:
        """What a stage or program writes, in flow order."""
        return tuple(topic for topic in self if program in topic.writers)

    def lead(self, stage: str) -> str | None:
        """The topic by which a stage with tasks joins its group; None for a stage without."""
        return self.leads.get(stage)

    def changelog(self, stage: str) -> str | None:
        """The compacted topic that a stage alone writes and reads back, or None."""
        name = f"{stage}.changelog"
        return name if name in self.topics else None

    def inputs(self, stage: str) -> tuple[Topic, ...]:
        """What a stage takes record by record: neither tables nor its own lead topic."""
        return tuple(
            topic
            for topic in self.read_by(stage)
            if not topic.table and topic.name != self.lead(stage)
        )

    def tables(self, stage: str) -> tuple[Topic, ...]:
        """What a stage reads whole and keeps in memory."""
        return tuple(topic for topic in self.read_by(stage) if topic.table)

    def groups(self, stage: str) -> Mapping[str, tuple[Topic, ...]]:
        """A stage's consumer groups (without prefix) and the topics in which each has positions.

        A stage is one group, except that accept takes `intake.bulk` in a group of its own, so
        that a campaign does not delay what came by `intake`.
        """
        lead = self.lead(stage)
        topics = self.inputs(stage) + ((self.topic(lead),) if lead else ())
        bulk = tuple(topic for topic in topics if stage == "accept" and topic.name == "intake.bulk")
        groups = {stage: tuple(topic for topic in topics if topic not in bulk)}
        if bulk:
            groups["accept-bulk"] = bulk
        return {group: found for group, found in groups.items() if found}

    @cached_property
    def records(self) -> Mapping[str, tuple[Topic, ...]]:
        """The topics in which each record stands."""
        found: dict[str, list[Topic]] = {}
        for topic in self:
            for record in topic.records.values():
                found.setdefault(record, []).append(topic)
        return {record: tuple(topics) for record, topics in found.items()}


def resource(name: str) -> Path:
    """A file or folder that ships with the pipeline: beside the package in a checkout, inside it
    when installed.

    Raises:
        CatalogueError: it is in neither place.
    """
    package = Path(__file__).resolve().parent
    for folder in (package, package.parent):
        if (folder / name).exists():
            return folder / name
    raise CatalogueError(f"{name} is missing from the installation in {package}; install again")


def duration_ms(text: str) -> int:
    """`3d`, `90s`, `5m` or `72h` in milliseconds.

    Raises:
        ValueError: it is not written like that.
    """
    found = re.fullmatch(r"([1-9][0-9]*)([smhd])", text)
    if found is None:
        raise ValueError(f"{text!r} is not a time like 90s, 5m, 72h or 3d")
    return int(found[1]) * _UNITS[found[2]]


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice: the second one would silently win."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    found: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in found:
            line = key_node.start_mark.line + 1
            raise CatalogueError(f"topics.yaml line {line}: {key!r} is given twice; keep one")
        found[key] = loader.construct_object(value_node, deep=True)
    return found


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


class _Reader:
    """One mapping of the file: takes keys out with their type, then refuses what is left."""

    def __init__(self, place: str, found: object) -> None:
        if not isinstance(found, dict):
            raise CatalogueError(f"topics.yaml: {place} must be a mapping, is {found!r}")
        self.place = place
        self.found: dict[str, Any] = dict(found)

    def fail(self, cause: str) -> CatalogueError:
        return CatalogueError(f"topics.yaml: {self.place}: {cause}")

    def take(self, key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        if key not in self.found and default is None:
            raise self.fail(f"{key} is missing; add it")
        value = self.found.pop(key, default)
        wrong_bool = isinstance(value, bool) and kind is not bool
        if not isinstance(value, kind) or wrong_bool:
            raise self.fail(f"{key} is {value!r}, which has the wrong type")
        return value

    def names(self, key: str, known: tuple[str, ...] = ()) -> tuple[str, ...]:
        value = self.take(key, list)
        for name in value:
            if not isinstance(name, str) or (known and name not in known):
                raise self.fail(f"{key} names {name!r}; known are {', '.join(known)}")
        if not value or len(set(value)) != len(value):
            raise self.fail(f"{key} is empty or names something twice")
        return tuple(value)

    def texts(self, key: str) -> dict[str, str]:
        """Broker settings: the broker's own spelling, values as text."""
        value = self.take(key, dict, {})
        return {
            str(name): str(setting).lower() if isinstance(setting, bool) else str(setting)
            for name, setting in value.items()
        }

    def end(self) -> None:
        if self.found:
            raise self.fail(f"unknown keys {sorted(map(str, self.found))}; remove or correct them")


@dataclass(frozen=True)
class _Defaults:
    partitions: int
    replication: int
    config: Mapping[str, str]
    compacted: Mapping[str, str]
    compacted_content: Mapping[str, str]


def load(text: str) -> Catalogue:
    """Read a catalogue.

    Raises:
        CatalogueError: with place, cause and cure.
    """
    try:
        whole = _Reader("the file", yaml.load(text, Loader=_Loader))  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise CatalogueError(f"topics.yaml is not YAML: {error}") from error
    lanes, channels = whole.names("lanes"), whole.names("channels")
    reader = _Reader("defaults", whole.take("defaults", dict))
    defaults = _Defaults(
        partitions=reader.take("partitions", int),
        replication=reader.take("replication", int),
        config=reader.texts("config"),
        compacted=reader.texts("compacted"),
        compacted_content=reader.texts("compacted_content"),
    )
    reader.end()
    if defaults.partitions < 1 or defaults.replication < 1:
        raise reader.fail("partitions and replication must be 1 or more")
    topics: dict[str, Topic] = {}
    for template, entry in whole.take("topics", dict).items():
        for topic in _topics(
            _Reader(f"topic {template}", entry), template, lanes, channels, defaults
        ):
            if topics.setdefault(topic.name, topic) is not topic:
                raise CatalogueError(f"topics.yaml: {topic.name} comes from two entries; keep one")
    leads = {}
    for stage, entry in whole.take("tasks", dict, {}).items():
        reader = _Reader(f"tasks {stage}", entry)
        leads[stage] = reader.take("lead", str)
        reader.end()
        lead = topics.get(leads[stage])
        if lead is None or stage not in lead.readers or not lead.shared:
            raise reader.fail("lead must be a topic with shared partitions that the stage reads")
    broker = whole.texts("broker")
    whole.end()
    return Catalogue(
        topics=MappingProxyType(topics),
        lanes=lanes,
        channels=channels,
        partitions=defaults.partitions,
        replication=defaults.replication,
        broker=MappingProxyType(broker),
        leads=MappingProxyType(leads),
    )


def _records(reader: _Reader) -> Mapping[str, str]:
    value = reader.take("record", (str, dict))
    found = {"": value} if isinstance(value, str) else dict(value)
    for record in found.values():
        if record not in RECORDS:
            raise reader.fail(
                f"record {record!r} is not in pipeline/domain/records.py; known are "
                f"{', '.join(sorted(RECORDS))}"
            )
    return MappingProxyType(found)


def _config(
    reader: _Reader, defaults: _Defaults, retention_ms: int | None, content: bool
) -> Mapping[str, str]:
    config = dict(defaults.config)
    if retention_ms is None:
        config["cleanup.policy"] = "compact"
        config |= defaults.compacted
        if content:
            config |= defaults.compacted_content
    else:
        config |= {"cleanup.policy": "delete", "retention.ms": str(retention_ms)}
    return MappingProxyType(config | reader.texts("config"))


def _topics(
    reader: _Reader,
    template: str,
    lanes: tuple[str, ...],
    channels: tuple[str, ...],
    defaults: _Defaults,
) -> Iterator[Topic]:
    if not re.fullmatch(r"[a-z][a-z.-]*", re.sub(r"\{(lane|channel)\}", "x", template)):
        raise reader.fail("a name is made of a-z, `.`, `-`, {lane} and {channel}")
    retention = reader.take("retention", str)
    try:
        retention_ms = None if retention == "compact" else duration_ms(retention)
    except ValueError as error:
        raise reader.fail(f"retention: {error}, nor `compact`") from None
    partitions = reader.take("partitions", (int, str))
    if partitions != "shared" and (not isinstance(partitions, int) or partitions < 1):
        raise reader.fail(f"partitions is {partitions!r}; give `shared` or a number from 1")
    content = reader.take("content", bool, False)
    purpose = reader.take("purpose", str)
    key = reader.take("key", str)
    found = _records(reader)
    writers, readers = reader.names("writers", PROGRAMS), reader.names("readers", PROGRAMS)
    config = _config(reader, defaults, retention_ms, content)
    reader.end()
    for channel in channels if _CHANNEL in template else (None,):
        for lane in lanes if _LANE in template else (None,):
            yield Topic(
                name=template.replace(_CHANNEL, channel or "").replace(_LANE, lane or ""),
                template=template,
                key=key,
                records=found,
                shared=partitions == "shared",
                partitions=defaults.partitions if partitions == "shared" else partitions,
                retention_ms=retention_ms,
                compact=retention_ms is None,
                content=content,
                writers=writers,
                readers=readers,
                purpose=purpose,
                config=config,
                lane=lane,
                channel=channel,
            )


CATALOGUE: Final = load(resource("topics.yaml").read_text(encoding="utf-8"))
"""The catalogue that ships with the pipeline."""
