"""What a run of the bench found: figures with their targets, as a table and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

Better = Literal["high", "low"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One line. With a `ratio` the target is one of the ratio, else of the value; a line without
    a target is only for reading."""

    name: str
    value: float
    unit: str
    reference: float | None = None
    ratio: float | None = None
    target: float | None = None
    better: Better = "high"

    @property
    def ok(self) -> bool:
        """Whether the target is met."""
        if self.target is None:
            return True
        judged = self.value if self.ratio is None else self.ratio
        return judged >= self.target if self.better == "high" else judged <= self.target

    def as_json(self) -> dict[str, Any]:
        """The entry of `build/bench.json`."""
        found = asdict(self) | {"ok": self.ok}
        del found["better"]
        return {name: _short(value) for name, value in found.items()}


def against(
    name: str, pairs: Sequence[tuple[float, float]], unit: str, target: float | None
) -> Figure:
    """A figure of several rounds, each (ours, the bare loop's) measured one after the other: the
    medians, and the median of the rounds' ratios, which the machine's other work disturbs least.

    Raises:
        ValueError: there is no round, or a bare loop did nothing.
    """
    if not pairs or any(bare <= 0 for _, bare in pairs):
        raise ValueError(f"{name}: every round needs both figures, got {list(pairs)}")
    return Figure(
        name,
        median(ours for ours, _ in pairs),
        unit,
        median(bare for _, bare in pairs),
        median(ours / bare for ours, bare in pairs),
        target,
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie, one of them.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def write(figures: Sequence[Figure], path: Path) -> None:
    """Writes the list of all figures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([one.as_json() for one in figures], indent=2) + "\n")


def show(figures: Sequence[Figure], title: str) -> None:
    """Prints the table."""
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    for column in ("measured", "bare loop", "ratio", "target"):
        table.add_column(column, justify="right")
    table.add_column("")
    for one in figures:
        table.add_row(
            one.name,
            f"{_figure(one.value)} {one.unit}",
            _figure(one.reference),
            "" if one.ratio is None else f"{one.ratio:.2f}",
            _target(one),
            "" if one.target is None else "ok" if one.ok else "MISSED",
        )
    Console(width=110).print(table)


def _target(one: Figure) -> str:
    if one.target is None:
        return ""
    return f"{'at least' if one.better == 'high' else 'at most'} {one.target:g}"


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}"


def _short(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value
