"""What `doctor` thinks of what it finds. Pure: measurements in, findings out."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from pipeline.commands.standing import Row, Trouble
from pipeline.domain.story_words import span

OK: Final = "ok"
WARN: Final = "warn"
FAIL: Final = "fail"

CLOCK_WARN_MS: Final = 1_000
CLOCK_FAIL_MS: Final = 2_000
DISK_WARN: Final = 0.15
DISK_FAIL: Final = 0.05
LAG_WARN: Final = 0.25
LAG_FAIL: Final = 0.5
COPIES: Final = 3
OFFSETS_MINUTES: Final = 2 * 1_440
"""Positions are committed at least daily, so brokers must keep them for longer than that."""

CLICKHOUSE: Final = (25, 8)
"""The oldest server that the client library supports."""

_NEEDED: Final = {"group.min.session.timeout.ms": "a killed worker's tasks wait for longer"}
_OFFSETS: Final = "offsets.retention.minutes"

ASKED: Final = (_OFFSETS,)
"""Broker settings that are looked at besides those of the catalogue."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor: `state` is ok, warn or fail; what is not ok has a cure."""

    name: str
    state: str
    text: str
    cure: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Part:
    """One partition as the brokers describe it; `leader` is -1 when it has none."""

    topic: str
    number: int
    leader: int
    replicas: int
    in_sync: int


def broker_settings(
    wanted: Mapping[str, str], found: Mapping[str, str | None] | None
) -> list[Finding]:
    """The settings that the transactional loops need; each is a number that must not be larger.
    `found` is None when the cluster does not say."""
    name = "broker settings"
    if not found:
        return [
            Finding(
                name,
                WARN,
                "the cluster does not tell them",
                "allow DescribeConfigs on the cluster, or compare by hand: "
                + ", ".join(f"{key} {value}" for key, value in wanted.items()),
            )
        ]
    wrong = []
    for key, value in wanted.items():
        actual = found.get(key)
        if actual is None or int(actual) <= int(value):
            continue
        state = FAIL if key in _NEEDED else WARN
        cost = f": {_NEEDED[key]}" if key in _NEEDED else ""
        wrong.append(
            Finding(name, state, f"{key} is {actual}{cost}", f"set it to {value} on each broker")
        )
    kept = found.get(_OFFSETS)
    if kept is not None and int(kept) < OFFSETS_MINUTES:
        text = f"{_OFFSETS} is {kept}: positions of quiet partitions are forgotten"
        wrong.append(Finding(name, FAIL, text, f"set it to {OFFSETS_MINUTES} or more"))
    return wrong or [Finding(name, OK, "as topics.yaml asks")]


def replication(brokers: int, parts: Sequence[Part]) -> list[Finding]:
    """Leaders, copies in sync, and copies at all; `parts` with the internal topics."""
    name = "replication"
    found = []
    headless = [part for part in parts if part.leader < 0]
    if headless:
        found.append(
            Finding(name, FAIL, f"no leader: {_listed(headless)}", "bring their brokers back")
        )
    thin = [part for part in parts if part.in_sync < part.replicas]
    if thin:
        found.append(
            Finding(
                name,
                FAIL,
                f"{len(thin)} partitions have copies out of sync: {_listed(thin)}",
                "look at the brokers that lag or are down",
            )
        )
    copies = min(COPIES, brokers)
    few = [part for part in parts if part.replicas < copies]
    if few:
        found.append(
            Finding(
                name,
                WARN,
                f"{len(few)} partitions have fewer than {copies} copies: {_listed(few)}",
                "reassign them, and give --replication to pipeline topics apply from the start",
            )
        )
    if found:
        return found
    kept = min((part.replicas for part in parts), default=0)
    alone = "; a lost disk loses everything, which suits one machine" if brokers == 1 else ""
    return [Finding(name, OK, f"{brokers} brokers, {kept} copies or more, all in sync{alone}")]


def clock(name: str, ahead_ms: int) -> Finding:
    """The local clock against another one; `ahead_ms` is how much the other is ahead."""
    text = f"{span(abs(ahead_ms))} {'behind' if ahead_ms < 0 else 'ahead of'} ours"
    if abs(ahead_ms) <= CLOCK_WARN_MS:
        return Finding(name, OK, text)
    state = WARN if abs(ahead_ms) <= CLOCK_FAIL_MS else FAIL
    return Finding(name, state, text, "let NTP set the clocks of this machine and of the servers")


def disk(name: str, free: int, total: int) -> Finding:
    """Room on a disk, in bytes."""
    share = free / total if total else 1.0
    text = f"{_size(free)} free of {_size(total)}"
    if share >= DISK_WARN:
        return Finding(name, OK, text)
    return Finding(name, WARN if share >= DISK_FAIL else FAIL, text, "make room, or add a disk")


def clickhouse_version(version: str) -> Finding:
    """Whether the client library supports the server."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) >= CLICKHOUSE:
        return Finding("ClickHouse", OK, f"version {version}")
    least = ".".join(map(str, CLICKHOUSE))
    return Finding("ClickHouse", WARN, f"version {version}", f"update it to {least} or newer")


def migrations(
    known: Mapping[int, tuple[str, str]], applied: Mapping[int, tuple[str, str]] | None
) -> Finding:
    """The tables' version: name and checksum of each numbered file, by number. `applied` is None
    where no tables were ever made."""
    name = "ClickHouse tables"
    if applied is None:
        return Finding(name, FAIL, "they were never made", "start the sink, which makes them")
    newer = sorted(set(applied) - set(known))
    if newer:
        text = f"they are newer than this program ({applied[newer[-1]][0]})"
        return Finding(name, FAIL, text, "update the program")
    changed = [number for number in applied if applied[number][1] != known[number][1]]
    if changed:
        text = f"{known[changed[0]][0]} was changed after it had been applied"
        return Finding(name, FAIL, text, "put the change in a new file")
    left = [known[number][0] for number in sorted(set(known) - set(applied))]
    if left:
        text = f"not applied: {', '.join(left)}"
        return Finding(name, WARN, text, "restart the sink, which applies them")
    return Finding(name, OK, f"{len(known)} files applied")


def topics(problems: Sequence[str], changes: Sequence[str]) -> list[Finding]:
    """What separates the cluster from the catalogue."""
    name = "topics"
    found = [Finding(name, FAIL, problem, "see docs/topics.md") for problem in problems]
    if changes:
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        text = f"not as topics.yaml says: {'; '.join(changes[:3])}{more}"
        found.append(Finding(name, FAIL, text, "run pipeline topics apply"))
    return found or [Finding(name, OK, "as topics.yaml says")]


def lag(rows: Sequence[Row]) -> list[Finding]:
    """Lag as a share of retention: at 1 the oldest record is gone before it was read."""
    name = "lag"
    found = [
        Finding(
            name,
            FAIL if row.share >= LAG_FAIL else WARN,
            f"{row.stage} {row.lane}".rstrip()
            + f": {row.oldest} has waited {span(row.oldest_ms)}, {row.share:.0%} of its retention",
            "add workers, or see why they stand; raise the topic's retention.ms meanwhile",
        )
        for row in rows
        if row.share >= LAG_WARN
    ]
    if found:
        return found
    most = max((row.share for row in rows), default=0.0)
    return [Finding(name, OK, f"the oldest waiting record has used {most:.1%} of its retention")]


def stages(found: Sequence[Trouble]) -> list[Finding]:
    """What holds partitions up, hanging transactions included."""
    wrong = [Finding("stages", FAIL, f"{one.subject}: {one.cause}", one.cure) for one in found]
    return wrong or [Finding("stages", OK, "nothing is held up; no transaction hangs")]


def _listed(parts: Sequence[Part]) -> str:
    shown = ", ".join(f"{part.topic}[{part.number}]" for part in parts[:3])
    return shown + (f" and {len(parts) - 3} more" if len(parts) > 3 else "")


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB" if size < 1024 else f"{size / 1024:.1f} PiB"
