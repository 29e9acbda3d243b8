"""`pipeline check FILE`: whether a file of providers, routes and policies is right."""

import os
import sys
from pathlib import Path
from typing import Final

from cyclopts import App
from rich.console import Console
from rich.table import Table

from pipeline.commands.fleet import SIMULATOR_SECRET, SIMULATOR_URL
from pipeline.domain.errors import BadInput
from pipeline.providers import PROVIDERS
from pipeline.settings import Config, load_config, load_settings

app = App(name="check", help="Say whether a file of providers, routes and policies is right.")

BAD: Final = 1
UNABLE: Final = 2


@app.default
def check(file: Path | None = None, /) -> int:
    """Read the file as a stage would, and show what it means.

    Exit status 1: it is wrong, and the text says where and how to mend it.

    Args:
        file: The file; without it the one that PIPELINE_CONFIG names.
    """
    try:
        settings = load_settings(running=False)
    except BadInput as error:
        print(f"pipeline check: {error}", file=sys.stderr)
        return UNABLE
    path = file or settings.config
    if path is None:
        print("pipeline check: name a file, or set PIPELINE_CONFIG to one", file=sys.stderr)
        return UNABLE
    # The simulated provider's address is made by `pipeline up`; here any will do.
    stand_ins = {SIMULATOR_URL: "http://127.0.0.1:8090", SIMULATOR_SECRET: "whsec_" + "A" * 32}
    try:
        config = load_config(path, settings.gateway_url, {**stand_ins, **os.environ})
        _adapters(config)
    except BadInput as error:
        print(f"pipeline check: {error}", file=sys.stderr)
        return BAD
    _show(path, config)
    return 0


def _adapters(config: Config) -> None:
    for account in config.accounts.values():
        if account.adapter not in PROVIDERS:
            raise BadInput(
                f"providers.{account.name}.adapter",
                f"there is no adapter {account.adapter!r}",
                f"use one of {', '.join(sorted(PROVIDERS))}",
            )


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
