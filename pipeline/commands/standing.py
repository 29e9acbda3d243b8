"""How the stages stand: lag and age by stage and lane, and what holds a partition up. Pure, over
what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.domain.story_words import span
from pipeline.runtime.lag import Members, Standing
from pipeline.topology import CATALOGUE, STAGES, Catalogue

UNDECIDED_MS: Final = 30_000
"""A transaction that is open for longer is hanging: ours time out after 8 s, and the broker ends
them a second later."""

BLIND_MS: Final = 15_000
"""How far receipts may be behind with listening before windows are said to wait for it."""

Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Row:
    """One consumer group and lane. `share` is how much of its topics' retention the oldest waiting
    record has used: at 1 it is lost. `oldest` names that record's place."""

    stage: str
    lane: str
    workers: int
    lag: int
    oldest_ms: int
    oldest: str
    share: float


@dataclass(frozen=True, slots=True)
class Trouble:
    """What holds a partition up, with the cure."""

    subject: str
    cause: str
    cure: str


def groups_of(
    counts: Mapping[str, int], catalogue: Catalogue = CATALOGUE
) -> dict[str, list[Place]]:
    """The partitions that each consumer group works through; `counts` are partitions by topic.
    Lead topics only say who owns a task, so nothing waits in them."""
    found: dict[str, list[Place]] = {}
    for stage in STAGES:
        lead = catalogue.lead(stage)
        for group, topics in catalogue.groups(stage).items():
            found[group] = [
                (topic.name, number)
                for topic in topics
                if topic.name != lead
                for number in range(counts.get(topic.name, 0))
            ]
    return {group: places for group, places in found.items() if places}


def rows(
    measured: Sequence[Standing],
    working: Mapping[str, Members],
    now: int,
    catalogue: Catalogue = CATALOGUE,
) -> list[Row]:
    """A row for each group and lane, in the order of the stages."""
    by: dict[tuple[str, str], list[Standing]] = {}
    for one in measured:
        by.setdefault((one.group, lane_of(one.topic, catalogue)), []).append(one)
    return [
        _row(group, lane, found, working, now, catalogue) for (group, lane), found in by.items()
    ]


def lane_of(topic: str, catalogue: Catalogue = CATALOGUE) -> str:
    """A topic's lane; empty for those that all lanes share."""
    return catalogue.topic(topic).lane or ("bulk" if topic == "intake.bulk" else "")


def age_ms(one: Standing, now: int) -> int:
    """How long its oldest record has waited."""
    return 0 if one.oldest_at is None else max(0, now - one.oldest_at)


def share_of(one: Standing, now: int, catalogue: Catalogue = CATALOGUE) -> float:
    """How much of the topic's retention that is; 0 where nothing is ever dropped."""
    retention = catalogue.topic(one.topic).retention_ms
    return age_ms(one, now) / retention if retention else 0.0


def troubles(
    measured: Sequence[Standing],
    working: Mapping[str, Members],
    heard: Mapping[int, int],
    partitions: int,
    now: int,
) -> list[Trouble]:
    """Partitions that are stopped, and those whose silences nobody can hear out. `heard` is up to
    when (ms) receipts has listened in each of the `partitions`."""
    found = []
    for group in dict.fromkeys(one.group for one in measured):
        own = [one for one in measured if one.group == group]
        lost = [one for one in own if one.position is None]
        behind = sum(one.lag for one in own)
        if lost:
            found.append(
                Trouble(
                    group,
                    f"it has no position in {_named(lost)}",
                    "run pipeline topics apply, which starts it at the first record kept",
                )
            )
        if behind and not _workers(working, group):
            stage = group.removesuffix("-bulk")
            found.append(
                Trouble(
                    group,
                    f"nobody works, and {behind} offsets wait",
                    f"start it: pipeline run {stage}",
                )
            )
    hanging: dict[Place, Standing] = {}
    for one in measured:
        if one.undecided_at is not None and now - one.undecided_at > UNDECIDED_MS:
            hanging[one.topic, one.partition] = one
    for (topic, number), one in sorted(hanging.items()):
        found.append(
            Trouble(
                f"{topic}[{number}]",
                f"a transaction is open for {span(now - (one.undecided_at or now))}; everything "
                "behind it waits",
                "restart the worker that writes there in its slot, which ends it; else "
                "kafka-transactions.sh find-hanging and abort",
            )
        )
    blind = [n for n in range(partitions) if now - heard.get(n, 0) > BLIND_MS]
    if blind:
        found.append(
            Trouble(
                f"receipts[{_short(blind)}]",
                f"it has not listened for {_since([heard.get(n, 0) for n in blind], now)}, so "
                "windows that end wait for it",
                "start receipts, or add workers",
            )
        )
    return found


def as_dict(row: Row) -> dict[str, Any]:
    """A row for programs; ages in milliseconds."""
    return {
        "stage": row.stage,
        "lane": row.lane,
        "workers": row.workers,
        "lag": row.lag,
        "oldest_age_ms": row.oldest_ms,
        "oldest": row.oldest,
        "share_of_retention": round(row.share, 4),
    }


def _row(
    group: str,
    lane: str,
    found: Sequence[Standing],
    working: Mapping[str, Members],
    now: int,
    catalogue: Catalogue,
) -> Row:
    oldest = max(found, key=lambda one: age_ms(one, now))
    place = f"{oldest.topic}[{oldest.partition}]@{max(oldest.position or 0, oldest.low)}"
    return Row(
        stage=group,
        lane=lane,
        workers=_workers(working, group),
        lag=sum(one.lag for one in found),
        oldest_ms=age_ms(oldest, now),
        oldest=place if oldest.oldest_at is not None else "",
        share=max(share_of(one, now, catalogue) for one in found),
    )


def _workers(working: Mapping[str, Members], group: str) -> int:
    return len(working[group].members) if group in working else 0


def _named(found: Sequence[Standing]) -> str:
    shown = ", ".join(f"{one.topic}[{one.partition}]" for one in found[:3])
    return shown + (f" and {len(found) - 3} more" if len(found) > 3 else "")


def _short(numbers: Sequence[int]) -> str:
    shown = ",".join(map(str, numbers[:4]))
    return shown + ("..." if len(numbers) > 4 else "")


def _since(heard: Sequence[int], now: int) -> str:
    first = min(heard)
    return span(now - first) if first else "a minute or more"
