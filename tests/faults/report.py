"""What a fault run says: a table for people, build/faults.json for programs."""

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

P95_S: Final = 5.0
MOST_S: Final = 15.0
ENOUGH: Final = 20
"""Recoveries from which a test's own 95th percentile says something; all tests together always
have to meet it."""


@dataclass(slots=True)
class Line:
    """One test: `wanted` faults of a kind, how many really happened, and the recoveries."""

    test: str
    wanted: int
    done: int = 0
    in_flight: int = 0
    recoveries: list[float | None] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def happened(self) -> bool:
        """A run that tested nothing fails: every fault struck, and met work in flight."""
        return self.done >= self.wanted and self.in_flight >= self.wanted

    @property
    def recovered(self) -> bool:
        own = len(self.recoveries) < ENOUGH or self.p95 <= P95_S
        return own and self.most <= MOST_S

    @property
    def p95(self) -> float:
        return percentile(self.recoveries, 0.95)

    @property
    def most(self) -> float:
        return percentile(self.recoveries, 1.0)


def percentile(values: Sequence[float | None], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed; what never ended is
    infinitely long. 0 without values."""
    ordered = sorted(float("inf") if value is None else value for value in values)
    if not ordered:
        return 0.0
    rank = -(-len(ordered) * share // 1)
    return ordered[max(0, min(len(ordered), int(rank)) - 1)]


def figure(name: str, value: float, unit: str, target: str, ok: bool) -> dict[str, Any]:
    """One entry of the JSON report; what is infinite is written as null."""
    shown = None if value == float("inf") else round(value, 3)
    return {"name": name, "value": shown, "unit": unit, "target": target, "ok": ok}


def figures(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Faults that happened and recoveries, test by test and together."""
    found = []
    for line in lines:
        target = f">= {line.wanted}"
        counts = {"faults": line.done, "with work in flight": line.in_flight}
        for name, count in counts.items():
            ok = count >= line.wanted
            found.append(figure(f"{line.test}: {name}", count, "count", target, ok))
        found += _recovery(f"{line.test}: ", line.recoveries, len(line.recoveries) >= ENOUGH)
    return found + _recovery("", pooled(lines), True)


def pooled(lines: Sequence[Line]) -> list[float | None]:
    """The recoveries of all tests."""
    return [value for line in lines for value in line.recoveries]


def _recovery(test: str, values: Sequence[float | None], enough: bool) -> list[dict[str, Any]]:
    if not values:
        return []
    p95, most = percentile(values, 0.95), percentile(values, 1.0)
    found = [figure(f"{test}recovery max", most, "s", f"<= {MOST_S:.0f}", most <= MOST_S)]
    if enough:
        found.append(figure(f"{test}recovery p95", p95, "s", f"<= {P95_S:.0f}", p95 <= P95_S))
    return found


def show(console: Console, lines: Sequence[Line], lost: int, doubled: int, sound: bool) -> None:
    """The table. Everything went on under one load and was judged as a whole, so `lost`,
    `doubled` and the oracle's verdict are those of the whole run in every line."""
    table = Table(title="Faults under load")
    for name in ("test", "faults", "in flight", "lost", "doubled", "p95", "max", "verdict"):
        left = name in ("test", "verdict")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for line in lines:
        good = line.happened and line.recovered and sound
        shown = [f"{value:.1f} s" if line.recoveries else "" for value in (line.p95, line.most)]
        table.add_row(
            line.test,
            f"{line.done} of {line.wanted}",
            str(line.in_flight),
            str(lost),
            str(doubled),
            *shown,
            "ok" if good else "FAILED",
        )
    console.print(table)
    for line in lines:
        for note in line.notes[:10]:
            console.print(f"  {line.test}: {note}", style="yellow", highlight=False)


def write(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    """The JSON report, a list of name, value, unit, target and ok."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(entries), indent=2) + "\n")


def machine() -> str:
    """Where a run took place; numbers mean little without it."""
    return f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
