"""`pipeline check FILE`: whether a file of providers, routes and policies is right."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from pipeline.commands.fleet import SIMULATOR_SECRET, SIMULATOR_URL
from pipeline.domain.errors import BadInput
from pipeline.providers import PROVIDERS
from pipeline.settings import Config, check_config, load_settings
from pipeline.settings.document import Misplaced

app = App(name="check", help="Say whether a file of providers, routes and policies is right.")

OK: Final = 0
BAD: Final = 1
UNABLE: Final = 2

Json = Annotated[bool, Parameter(name="--json", negative="")]


@app.default
def check(file: Path | None = None, /, *, as_json: Json = False) -> int:
    """Read the file as a stage would: show what it means, or every mistake in it, a line each with
    file, line, field, cause and cure.

    Exit status 1: something in it is wrong; 2: there is no file to read.

    Args:
        file: The file; without it the one that PIPELINE_CONFIG names.
        as_json: For programs.
    """
    try:
        settings = load_settings(running=False)
        path = file or settings.config
        if path is None:
            raise BadInput("FILE", "none is given", "name a file, or set PIPELINE_CONFIG to one")
        config, problems = check_config(path, settings.gateway_url, environment(), PROVIDERS)
    except BadInput as error:
        print(f"pipeline check: {error}", file=sys.stderr)
        return UNABLE
    if as_json:
        print(json.dumps({"file": str(path), "problems": [_as_dict(one) for one in problems]}))
    elif config is not None:
        _show(path, config)
    for problem in () if as_json else problems:
        print(problem, file=sys.stderr)
    return BAD if problems else OK


def environment() -> dict[str, str]:
    """What a policy file is checked with: the environment, and a stand-in for the simulated
    provider, whose address is only made by `pipeline up`."""
    stand_ins = {SIMULATOR_URL: "http://127.0.0.1:8090", SIMULATOR_SECRET: "whsec_" + "A" * 32}
    return {**stand_ins, **os.environ}


def _as_dict(problem: Misplaced) -> dict[str, str | int]:
    return {
        "file": problem.file,
        "line": problem.line,
        "field": problem.path,
        "cause": problem.cause,
        "cure": problem.cure,
    }


def _show(path: Path, config: Config) -> None:
    console = Console(highlight=False)
    providers = Table("provider", "channel", "countries", "keys", box=None, pad_edge=False)
    for account in config.accounts.values():
        keys = "honoured" if account.capabilities.honours_keys else "not honoured"
        countries = ", ".join(account.countries) or "all"
        providers.add_row(account.name, account.channel, countries, keys)
    console.print(providers)
    routes = [*config.policy.rules]
    for number, rule in enumerate(routes, 1):
        steps = " > ".join(step.channel for step in rule.steps)
        console.print(f"route {number}: {steps}", markup=False)
    steps = " > ".join(step.channel for step in config.policy.default_route)
    console.print(f"otherwise: {steps}", markup=False)
    console.print(f"{path} is right.", markup=False, soft_wrap=True)
