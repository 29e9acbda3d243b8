"""Reports as one HTML page that needs nothing else: pictures are inline SVG, there is no script and
no address in it, and it follows the reader's choice of dark or light and the width of the screen.

Bars are drawn in percent of the width while text keeps its size, so that a phone shows the same.
"""

from collections.abc import Sequence
from html import escape
from typing import Final

from pipeline.commands.report_rows import Bar, Report, moment, shown

_ROW: Final = 40  # pixels for a label and the bar beneath it

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2330; --dim: #5b6475; --page: #ffffff; --line: #d9dde5;
  --track: #eef0f4; --bar: #8fc7a4; --part: #1f7a46; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --dim: #a0a8b8; --page: #14171d;
  --line: #333a47; --track: #222833; --bar: #2f6b48; --part: #63c78c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .25rem; }
p { margin: .25rem 0; }
.says, figcaption { color: var(--dim); font-size: .9rem; }
nav a { color: inherit; margin-right: .75rem; white-space: nowrap; }
figure { margin: 1rem 0; }
svg { display: block; width: 100%; }
svg text { fill: var(--ink); font-size: 14px; }
.track { fill: var(--track); } .bar { fill: var(--bar); } .part { fill: var(--part); }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem; }
th, td { padding: .3rem .9rem .3rem 0; text-align: left; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
.number { text-align: right; }
.complete { border-left: 4px solid var(--part); padding-left: .75rem; margin: .75rem 0; }
"""


def page(title: str, reports: Sequence[Report]) -> str:
    """A whole page with one section for each report; all are of one range."""
    links = "".join(
        f'<a href="#{escape(report.name)}">{escape(report.title)}</a>' for report in reports
    )
    first = reports[0]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n"
        f'<p class="says">Since {moment(first.since)}. Times are UTC.</p>\n'
        + (f"<nav>{links}</nav>\n" if len(reports) > 1 else "")
        + "".join(_section(report) for report in reports)
        + "</main>\n</body>\n</html>\n"
    )


def _section(report: Report) -> str:
    divided = escape(", ".join(report.by))
    body = _picture(report) + _table(report) if report.rows else "<p>Nothing in this range.</p>\n"
    return (
        f'<section id="{escape(report.name)}">\n'
        f"<h2>{escape(report.title)} by {divided}</h2>\n"
        f'<p class="says">{escape(report.says)}</p>\n'
        f"{body}"
        f'<p class="complete">{escape(report.completeness.text)}</p>\n</section>\n'
    )


def _picture(report: Report) -> str:
    drawn = "".join(_bar(number, bar) for number, bar in enumerate(report.bars))
    name = escape(f"{report.title}: {report.legend}", quote=True)
    return (
        f'<figure>\n<svg role="img" aria-label="{name}" height="{_ROW * len(report.bars)}">\n'
        f"{drawn}</svg>\n<figcaption>{escape(report.legend)}</figcaption>\n</figure>\n"
    )


def _bar(number: int, bar: Bar) -> str:
    top = number * _ROW
    rects = "".join(
        f'<rect class="{name}" x="0" y="{top + 22}" width="{share:.2%}" height="10" rx="2"/>'
        for name, share in (("track", 1.0), ("bar", bar.length), ("part", bar.part))
    )
    return (
        f'<text x="0" y="{top + 16}">{escape(bar.label)}</text>'
        f'<text x="100%" y="{top + 16}" text-anchor="end">{escape(bar.text)}</text>{rects}\n'
    )


def _table(report: Report) -> str:
    kinds = list(report.columns.values())
    marks = ["" if kind == "text" else ' class="number"' for kind in kinds]
    head = "".join(
        f"<th{mark}>{escape(name.replace('_', ' '))}</th>"
        for mark, name in zip(marks, report.columns, strict=True)
    )
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td{mark}>{escape(shown(kind, value))}</td>"
            for mark, kind, value in zip(marks, kinds, row, strict=True)
        )
        + "</tr>\n"
        for row in report.rows
    )
    return f'<div class="table"><table>\n<tr>{head}</tr>\n{rows}</table></div>\n'
