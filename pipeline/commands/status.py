"""`pipeline status`: how the stages stand now."""

import json
import sys
import time
from typing import Annotated, Final

from cyclopts import App, Parameter
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.commands.connections import UNABLE
from pipeline.commands.measure import Measured, measure
from pipeline.domain.errors import BadInput
from pipeline.domain.story_words import clock, span
from pipeline.runtime.reader import Unreachable
from pipeline.runtime.registry import RegistryRefused, RegistryUnavailable
from pipeline.settings import Settings, load_settings

app = App(name="status", help="Say how the stages stand: workers, lag, oldest waiting message.")

OK: Final = 0
BAD: Final = 1
EVERY_S: Final = 2.0

Json = Annotated[bool, Parameter(name="--json", negative="")]
Watch = Annotated[bool, Parameter(name="--watch", negative="")]

_CANNOT: Final = (BadInput, Unreachable, RegistryRefused, RegistryUnavailable)


@app.default
def status(*, watch: Watch = False, as_json: Json = False) -> int:
    """Print a line for each stage and lane: its workers, how many offsets wait, how long the oldest
    of them does, and what holds partitions up.

    Exit status 1: a partition is stopped, or nobody can hear its silences out.

    Args:
        watch: Again every two seconds, until Ctrl-C.
        as_json: For programs; with --watch one line each time.
    """
    try:
        settings = load_settings()
        if watch:
            return _watch(settings, as_json=as_json)
        found = measure(settings)
    except _CANNOT as error:
        print(f"pipeline status: {error}", file=sys.stderr)
        return UNABLE
    if as_json:
        print(json.dumps(found.as_dict(), indent=2))
    else:
        Console(highlight=False, soft_wrap=True).print(shown(found))
    return BAD if found.troubles else OK


def _watch(settings: Settings, *, as_json: bool) -> int:
    try:
        if as_json:
            while True:
                print(json.dumps(measure(settings).as_dict()), flush=True)
                time.sleep(EVERY_S)
        with Live(console=Console(highlight=False), auto_refresh=False) as live:
            while True:
                live.update(shown(measure(settings)), refresh=True)
                time.sleep(EVERY_S)
    except KeyboardInterrupt:
        return OK


def shown(found: Measured) -> RenderableType:
    """What people see."""
    table = Table(
        "stage", "lane", "workers", "waiting", "oldest", "of retention", "first", box=None,
        pad_edge=False,
    )  # fmt: skip
    for row in found.rows:
        share = f"{row.share:.1%}" if row.share >= 0.001 else ""
        age = span(row.oldest_ms) if row.oldest else ""
        table.add_row(
            row.stage, row.lane, str(row.workers), str(row.lag), age, share, Text(row.oldest)
        )
    oldest = max(found.rows, key=lambda row: row.oldest_ms, default=None)
    lines = [Text(f"at {clock(found.at)} UTC; waiting counts offsets, transactions' markers too")]
    if oldest is not None and oldest.oldest:
        lines.append(Text(f"oldest waiting: {oldest.oldest}, for {span(oldest.oldest_ms)}"))
    lines += [Text(f"{one.subject}: {one.cause}; {one.cure}") for one in found.troubles]
    return Group(table, *lines)
