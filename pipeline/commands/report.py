"""`pipeline report`: what became of the messages of the last day, without SQL."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import App, Parameter
from rich.console import Console

from pipeline.commands.connections import UNABLE, store_of
from pipeline.commands.moments import read_moment
from pipeline.commands.report_html import page
from pipeline.commands.report_questions import QUESTIONS, STATE, Name
from pipeline.commands.report_rows import Completeness, Report, build
from pipeline.commands.report_text import as_csv, as_object, print_report
from pipeline.domain.errors import BadInput
from pipeline.runtime.clickhouse import Store, Unavailable
from pipeline.settings import load_settings

app = App(
    name="report",
    help="Delivery, funnel, fallback, latency, errors, cost and completeness, as table or page.",
)

OK: Final = 0
TITLE: Final = "Message delivery"

Format = Literal["table", "csv", "json", "html"]
Json = Annotated[bool, Parameter(name="--json", negative="")]


@app.default
def report(
    name: Name | Literal["all"],
    /,
    *,
    since: str = "24h",
    by: str = "",
    format_: Annotated[Format, Parameter(name="--format")] = "table",
    as_json: Json = False,
    out: Path | None = None,
) -> int:
    """Print a report. How complete the range is stands under each.

    Exit status 0: there is an answer, also when nothing happened in the range; 2: there is none,
    and why.

    Args:
        name: Which one; `all` are all of them.
        since: For example 90m, 24h, 7d or 2026-01-31T10:00 (UTC).
        by: What to divide by, with commas between: channel,country. A report's own way if empty;
            a wrong one names those that there are.
        format_: A table with bars, csv for spreadsheets, json for programs, or one HTML file.
        as_json: The same as --format json.
        out: Write to this file instead.
    """
    form = "json" if as_json else format_
    try:
        if name == "all" and by.strip():
            raise BadInput("--by", "it is given for all reports", "name one report")
        if name == "all" and form == "csv":
            raise BadInput("--format", "csv holds one table", "name one report")
        now = int(time.time() * 1000)
        start = _since(since, now)
        names = list(QUESTIONS) if name == "all" else [name]
        chosen = {name: QUESTIONS[name].chosen(by) for name in names}
        store = store_of(load_settings())
        try:
            reports = gather(store, start, chosen)
        finally:
            store.close()
        _give(reports, form, out)
    except (BadInput, Unavailable, OSError) as error:
        print(f"pipeline report: {error}", file=sys.stderr)
        return UNABLE
    return OK


def gather(
    store: Store, since: int, chosen: dict[str, tuple[str, ...]] | None = None
) -> list[Report]:
    """The reports of everything since a time in milliseconds since the epoch; `chosen` are names
    and what each is divided by, all in their own way when it is not given.

    Raises:
        Unavailable: ClickHouse does not answer.
    """
    due, heard, not_due, newest = store.query(STATE, {"since": since})[0]
    completeness = Completeness(int(due), int(heard), int(not_due), int(newest or 0))
    found = []
    for name, by in (chosen or {name: q.by for name, q in QUESTIONS.items()}).items():
        question = QUESTIONS[name]
        answer = store.query(question.text(by), {"since": since})
        found.append(build(question, by, since, answer, completeness))
    return found


def _since(text: str, now: int) -> int:
    start = read_moment(text, now, "--since")
    if start >= now:
        raise BadInput("--since", f"{text!r} is not in the past", "give 90m, 24h or a past date")
    return max(0, start)


def _give(reports: Sequence[Report], form: Format, out: Path | None) -> None:
    if form == "table" and out is None:
        _print(Console(highlight=False), reports)
        return
    if form == "table":
        assert out is not None
        with out.open("w", encoding="utf-8") as file:
            _print(Console(file=file, highlight=False, width=120), reports)
        return
    if form == "csv":
        text = as_csv(reports[0])
    elif form == "json":
        objects = [as_object(report) for report in reports]
        shown = objects[0] if len(objects) == 1 else objects
        text = json.dumps(shown, indent=2, ensure_ascii=False) + "\n"
    else:
        text = page(TITLE if len(reports) > 1 else reports[0].title, reports)
    if out is None:
        sys.stdout.write(text)
    else:
        out.write_text(text, encoding="utf-8")
        print(f"Written to {out}", file=sys.stderr)


def _print(console: Console, reports: Sequence[Report]) -> None:
    for number, one in enumerate(reports):
        if number:
            console.print()
        print_report(console, one)
