"""What a report says, as data: rows with their figures, bars for its picture, and how complete the
range is. Built from ClickHouse's counts; `report_text.py` and `report_html.py` show it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from pipeline.commands.report_questions import TIMES, Kind, Question

BARS: Final = 20
"""Rows that a picture shows; the table has all of them."""

Value = str | int | float | None
"""Counts and milliseconds are integers, shares of one and money are floats; None: there is none."""


@dataclass(frozen=True, slots=True)
class Completeness:
    """Receipts of a range: `due` ones, those of them that are in (`heard`), and those `not_due` yet.
    `newest_at` is when the newest event of all was appended (ms; 0: there is none)."""

    due: int
    heard: int
    not_due: int
    newest_at: int

    @property
    def share(self) -> float | None:
        """The part of the due receipts that is in; None when none is due."""
        return self.heard / self.due if self.due else None

    @property
    def text(self) -> str:
        """The line that stands under every report."""
        newest = (
            f"The newest event is of {moment(self.newest_at)}."
            if self.newest_at
            else "No event is stored."
        )
        if not self.due and not self.not_due:
            return f"No receipt is due in this range. {newest}"
        if self.share is None:
            return f"No receipt is due yet; {shown('count', self.not_due)} may come. {newest}"
        return (
            f"{shown('share', self.share)} of due receipts are in ({shown('count', self.heard)} of"
            f" {shown('count', self.due)}); {shown('count', self.not_due)} are not due yet. {newest}"
        )


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a picture: `length` of the whole width, the first `part` of it darker (both 0 to
    1), and what stands beside it."""

    label: str
    length: float
    part: float
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """One report. `columns` are the names and kinds of its rows' values, in order; `legend` says
    what bars and their darker parts are."""

    name: str
    title: str
    says: str
    since: int
    by: tuple[str, ...]
    columns: Mapping[str, Kind]
    rows: Sequence[Sequence[Value]]
    legend: str
    bars: Sequence[Bar]
    completeness: Completeness

    def objects(self) -> list[dict[str, Value]]:
        """The rows for programs."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def build(
    question: Question,
    by: tuple[str, ...],
    since: int,
    answer: Sequence[Sequence[Any]],
    completeness: Completeness,
) -> Report:
    """The report of an answer: dimensions first, then counts, in any order of rows."""
    found = []
    for row in answer:
        names = tuple(str(name) for name in row[: len(by)])
        counts = dict(zip(question.counts, row[len(by) :], strict=True))
        found.append((names, _figures(question.name, counts)))
    if by[0] in TIMES:
        found.sort(key=lambda row: row[0])
    else:
        found.sort(key=lambda row: (-(row[1][question.main] or 0), row[0]))
    legend, bars = _picture(question.name, found)
    return Report(
        name=question.name,
        title=question.title,
        says=question.says,
        since=since,
        by=by,
        columns={**dict.fromkeys(by, "text"), **question.figures},
        rows=[(*names, *(figures[name] for name in question.figures)) for names, figures in found],
        legend=legend,
        bars=bars[:BARS],
        completeness=completeness,
    )


_Figures = dict[str, Any]
_Rows = Sequence[tuple[tuple[str, ...], _Figures]]


def _figures(name: str, counts: _Figures) -> _Figures:
    """Everything that follows from the counts of one row."""
    if name == "delivery":
        counts["rate"] = _share(counts["delivered"], counts["handed_over"])
        counts["complete"] = _share(counts["heard"], counts["due"])
    elif name == "fallback":
        counts["saved_share"] = _share(counts["saved"], counts["messages"])
    elif name == "cost":
        counts["cost"] = float(counts["cost"])
        counts["per_delivered"] = _share(counts["cost"], counts["delivered"])
    elif name == "completeness":
        counts["missing"] = counts["due"] - counts["heard"]
        counts["complete"] = _share(counts["heard"], counts["due"])
    return counts


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 6) if whole else None


def _picture(name: str, rows: _Rows) -> tuple[str, list[Bar]]:
    if name == "delivery":
        return "delivered, of what was handed over", [
            _of_whole(names, f["rate"], "of " + shown("count", f["handed_over"]))
            for names, f in rows
        ]
    if name == "completeness":
        return "receipts in, of those due", [
            _of_whole(names, f["complete"], "of " + shown("count", f["due"])) for names, f in rows
        ]
    if name == "funnel":
        return "messages, of all that were accepted", _stages(rows)
    if name == "fallback":
        return "messages that went on; darker: delivered by it", _of_most(
            rows, "messages", "count", "saved"
        )
    if name == "latency":
        return "95 of 100 took at most this long; darker: 50 of 100", _of_most(
            rows, "p95", "ms", "p50"
        )
    if name == "errors":
        return "attempts; darker: in doubt", _of_most(rows, "attempts", "count", "in_doubt")
    return "cost", _of_most(rows, "cost", "money", None)


def _of_whole(names: Sequence[str], share: float | None, text: str) -> Bar:
    label = f"{shown('share', share)} {text}" if share is not None else text
    return Bar(_label(names), share or 0.0, share or 0.0, label)


def _of_most(rows: _Rows, figure: str, kind: Kind, part: str | None) -> list[Bar]:
    most = max((figures[figure] for _, figures in rows), default=0) or 1
    bars = []
    for names, figures in rows:
        inner = figures[part] if part else figures[figure]
        text = shown(kind, figures[figure])
        if part:
            text += f" ({shown(kind, inner)})"
        bars.append(Bar(_label(names), figures[figure] / most, min(1.0, inner / most), text))
    return bars


def _stages(rows: _Rows) -> list[Bar]:
    total = sum(figures["accepted"] for _, figures in rows)
    if not total:
        return []
    bars = []
    for stage in ("accepted", "handed_over", "delivered", "read", "failed", "waiting"):
        count = sum(figures[stage] for _, figures in rows)
        text = f"{shown('count', count)} ({shown('share', count / total)})"
        bars.append(Bar(stage.replace("_", " "), count / total, count / total, text))
    return bars


def _label(names: Sequence[str]) -> str:
    return " · ".join(name or "(none)" for name in names)


def shown(kind: Kind, value: Value) -> str:
    """A value as people read it."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if kind == "share":
        # Never 100 % of what is not all of it.
        percent = value * 100
        return f"{percent:.1f} %" if percent == 100 or percent < 99.95 else "99.9 %"
    if kind == "ms":
        return f"{value / 1000:,.1f} s" if value >= 1000 else f"{value:.0f} ms"
    return f"{value:,.4f}" if kind == "money" else f"{value:,.0f}"


def moment(at: int) -> str:
    """A time in milliseconds since the epoch as people read it, in UTC."""
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
