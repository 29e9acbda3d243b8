"""Measures a running pipeline for `status` and `doctor`."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.commands import standing
from pipeline.commands.connections import cluster_of, codec_of
from pipeline.domain.errors import Undecodable
from pipeline.runtime.lag import Members, Standing, members, standings
from pipeline.runtime.reader import Reader
from pipeline.settings import Settings
from pipeline.topology import CATALOGUE

PROGRESS: Final = "progress"
LISTENED_MS: Final = 60_000
"""How far back receipts' word on its listening is looked for; it writes several times a second."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One look at a pipeline. `heard` is up to when (ms) receipts has listened, by partition."""

    at: int
    standings: Sequence[Standing]
    members: Mapping[str, Members]
    heard: Mapping[int, int]
    partitions: int

    @property
    def rows(self) -> list[standing.Row]:
        """By stage and lane."""
        return standing.rows(self.standings, self.members, self.at)

    @property
    def troubles(self) -> list[standing.Trouble]:
        """What holds partitions up."""
        return standing.troubles(self.standings, self.members, self.heard, self.partitions, self.at)

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "at": self.at,
            "stages": [standing.as_dict(row) for row in self.rows],
            "troubles": [
                {"subject": one.subject, "cause": one.cause, "cure": one.cure}
                for one in self.troubles
            ],
        }


def measure(settings: Settings) -> Measured:
    """Looks at every stage.

    Raises:
        BadInput, Unreachable, RegistryRefused, RegistryUnavailable
    """
    cluster = cluster_of(settings)
    with Reader(cluster) as reader:
        counts = reader.partitions([topic.name for topic in CATALOGUE])
        heard = _heard(settings, reader)
    groups = standing.groups_of(counts)
    found = standings(cluster, groups)
    return Measured(
        at=int(time.time() * 1000),
        standings=found,
        members=members(cluster, list(groups)),
        heard=heard,
        partitions=counts.get(CATALOGUE.lead("receipts") or "", 0),
    )


def _heard(settings: Settings, reader: Reader) -> dict[int, int]:
    codec = codec_of(settings)
    since = int(time.time() * 1000) - LISTENED_MS
    heard: dict[int, int] = {}
    for record in reader.read(reader.since(reader.ranges([PROGRESS]), since)):
        try:
            said = codec.decode_as("Progress", record.value)
        except Undecodable:
            continue
        heard[said["partition"]] = min(said["callbacks_through"], said["joined_through"])
    return heard
