"""`pipeline config`: the settings in effect."""

import json
import os
import sys
from typing import Annotated, Final

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from pipeline.domain.errors import BadInput
from pipeline.local.stack import environment_of
from pipeline.settings import load_settings
from pipeline.settings.environment import describe, running_values

app = App(name="config", help="Print the settings in effect and where each comes from.")

UNABLE: Final = 2
HIDDEN: Final = "(set, not shown)"

Json = Annotated[bool, Parameter(name="--json", negative="")]


@app.default
def config(*, as_json: Json = False) -> int:
    """Print every setting: variable, value, origin and meaning. Secrets are not shown.

    Args:
        as_json: For programs.
    """
    try:
        rows = effective()
    except BadInput as error:
        print(f"pipeline config: {error}", file=sys.stderr)
        return UNABLE
    if as_json:
        print(json.dumps(rows, indent=2))
        return 0
    table = Table("variable", "value", "origin", "meaning", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row["variable"], row["value"], row["origin"], row["meaning"])
    Console(highlight=False).print(table)
    return 0


def effective() -> list[dict[str, str]]:
    """Every setting of this process. Origin: environment, running (the pipeline of `pipeline up`
    on the same data directory) or default.

    Raises:
        BadInput: one of them cannot be meant.
    """
    settings = load_settings()
    values = environment_of(settings)
    running = running_values(settings.data_dir)
    rows = []
    for name, default, meaning, secret in describe():
        origin = "default"
        if os.environ.get(name):
            origin = "environment"
        elif name in running:
            origin = "running"
        value = values.get(name, "")
        if secret and value:
            value = HIDDEN
        rows.append(
            {"variable": name, "value": value or default, "origin": origin, "meaning": meaning}
        )
    return rows
