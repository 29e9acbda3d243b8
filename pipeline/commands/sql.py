"""`pipeline sql`: a question to ClickHouse, read only."""

import json
import sys
from typing import Annotated, Final

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from pipeline.commands.connections import UNABLE, store_of
from pipeline.domain.errors import BadInput
from pipeline.runtime.clickhouse import Refused, Unavailable
from pipeline.settings import Settings, load_settings

app = App(
    name="sql",
    help="Ask ClickHouse. `events_unique` has every event once, `messages` a line per message.",
)

OK: Final = 0
BAD: Final = 1
SHOWN: Final = 1_000
"""Rows that a table shows; `--json` and `--csv` give all of them."""

Json = Annotated[bool, Parameter(name="--json", negative="")]
Csv = Annotated[bool, Parameter(name="--csv", negative="")]


@app.default
def sql(query: str, /, *, as_json: Json = False, as_csv: Csv = False) -> int:
    """Print the answer to a SELECT as a table.

    Exit status 1: ClickHouse refuses the question; 2: it does not answer.

    Args:
        query: One statement without a FORMAT. Nothing that writes is let through.
        as_json: A list of objects, for programs.
        as_csv: With a line of names, for spreadsheets.
    """
    try:
        print_answer(load_settings(), query, as_json=as_json, as_csv=as_csv)
    except Refused as error:
        print(f"pipeline sql: {error}", file=sys.stderr)
        return BAD
    except (BadInput, Unavailable) as error:
        print(f"pipeline sql: {error}", file=sys.stderr)
        return UNABLE
    return OK


def print_answer(
    settings: Settings, query: str, *, as_json: bool = False, as_csv: bool = False
) -> None:
    """Asks and prints.

    Raises:
        BadInput, Refused, Unavailable
    """
    if as_json and as_csv:
        raise BadInput("--json, --csv", "both are given", "choose one")
    question = query.strip().rstrip(";")
    if not question:
        raise BadInput("query", "it is empty", 'say for example "SELECT count() FROM messages"')
    store = store_of(settings)
    try:
        answer = store.read(question, "CSVWithNames" if as_csv else "JSON")
    finally:
        store.close()
    if as_csv:
        sys.stdout.write(answer.decode())
        return
    found = json.loads(answer or b'{"meta": [], "data": []}')
    if as_json:
        print(json.dumps(found["data"], indent=2, ensure_ascii=False))
        return
    names = [column["name"] for column in found["meta"]]
    table = Table(*names, box=None, pad_edge=False)
    for row in found["data"][:SHOWN]:
        table.add_row(*(_cell(row[name]) for name in names))
    console = Console(highlight=False, markup=False)
    console.print(table)
    if len(found["data"]) > SHOWN:
        console.print(f"{len(found['data']) - SHOWN} more rows; --csv or --json shows all")


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
