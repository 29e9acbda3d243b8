"""Reports for a terminal, and as CSV and JSON."""

import csv
import io
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.commands.report_rows import Report, moment, shown

WIDTH = 30
_EIGHTHS = " ▏▎▍▌▋▊▉"


def print_report(console: Console, report: Report) -> None:
    """Title, table, bars, and how complete it is."""
    divided = ", ".join(report.by)
    console.print(
        f"{report.title} by {divided}, since {moment(report.since)}", style="bold", soft_wrap=True
    )
    if not report.rows:
        console.print("Nothing in this range.")
    else:
        console.print(_table(report))
        console.print()
        console.print(_bars(report))
        console.print(f"({report.legend})", style="dim")
    console.print(report.says, style="dim", soft_wrap=True)
    console.print(report.completeness.text, soft_wrap=True)


def _table(report: Report) -> Table:
    table = Table(box=None, pad_edge=False)
    for name, kind in report.columns.items():
        table.add_column(name.replace("_", " "), justify="left" if kind == "text" else "right")
    for row in report.rows:
        cells = zip(report.columns.values(), row, strict=True)
        table.add_row(*(Text(shown(kind, value)) for kind, value in cells))
    return table


def _bars(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for bar in report.bars:
        drawn = Text(_drawn(bar.part), style="green")
        rest = max(0, len(_drawn(bar.length)) - len(drawn.plain))
        drawn.append("░" * rest, style="green")
        table.add_row(Text(bar.label), drawn, Text(bar.text))
    return table


def _drawn(share: float) -> str:
    """A bar of so much of the width, in eighths of a character."""
    whole, rest = divmod(round(share * WIDTH * 8), 8)
    return ("█" * whole + (_EIGHTHS[rest] if rest else "")).rstrip()


def as_csv(report: Report) -> str:
    """A line of names, then a line per row, with figures as they are: shares of one, milliseconds,
    money in whole units."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(report.columns)
    writer.writerows(report.rows)
    return text.getvalue()


def as_object(report: Report) -> dict[str, Any]:
    """Everything for programs; times in milliseconds since the epoch."""
    complete = report.completeness
    return {
        "report": report.name,
        "says": report.says,
        "since": report.since,
        "by": list(report.by),
        "rows": report.objects(),
        "completeness": {
            "due": complete.due,
            "heard": complete.heard,
            "not_due": complete.not_due,
            "share": complete.share,
            "newest_at": complete.newest_at,
            "text": complete.text,
        },
    }
