"""`pipeline up`: the whole pipeline on this machine, until Ctrl-C."""

import sys
import time
from collections.abc import Sequence
from typing import Annotated, Final

from cyclopts import App, Parameter
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.commands import fleet
from pipeline.commands.fleet import Fleet, Simulation
from pipeline.domain.errors import BadInput
from pipeline.local import cache, clickhouse, kafka
from pipeline.local.ports import PortTaken, claim
from pipeline.local.stack import CLICKHOUSE_PORT, KAFKA_PORT, Stack, settings_for_up
from pipeline.local.supervisor import Status, describe
from pipeline.providers import PROVIDERS
from pipeline.runtime.admin import ClusterUnusable, TopicsMismatch
from pipeline.runtime.clickhouse import Unavailable, WrongTables
from pipeline.runtime.control import ControlMismatch
from pipeline.runtime.registry import RegistryRefused, RegistryUnavailable
from pipeline.settings import Settings, load_config, sample_path
from pipeline.topology import STAGES

app = App(name="up", help="Run every stage on this machine until Ctrl-C.")

GATEWAY_PORT: Final = 8080
SIMULATOR_PORT: Final = 8090
UNABLE: Final = 2
REFRESH_S: Final = 1.0

CANNOT: Final = (
    BadInput, PortTaken, cache.Unavailable, kafka.StartError, clickhouse.StartError,
    ClusterUnusable, TopicsMismatch, ControlMismatch, Unavailable, WrongTables, RegistryRefused,
    RegistryUnavailable, fleet.NotReady,
)  # fmt: skip
"""Everything that a person has to mend; each text says what and how."""


@app.default
def up(
    *,
    workers: int = 2,
    port: Annotated[int | None, Parameter(name="--port")] = None,
    kafka_port: int = KAFKA_PORT,
    clickhouse_port: int = CLICKHOUSE_PORT,
    simulator_port: int = SIMULATOR_PORT,
) -> int:
    """Run Kafka, ClickHouse and the workers of every stage; a worker that dies is started again.

    KAFKA_BOOTSTRAP_SERVERS and CLICKHOUSE_URL name your own servers instead of embedded ones.
    PIPELINE_CONFIG names your providers, routes and policies; without it there are simulated
    providers that misbehave, with windows of seconds. Data stays in PIPELINE_DATA_DIR (.pipeline).

    Exit status 0: Ctrl-C or SIGTERM ended it; 2: it could not run, and why.

    Args:
        workers: Of each stage.
        port: Where webhooks come in (8080, or PIPELINE_GATEWAY_PORT); 0 takes a free one.
        kafka_port: Of the embedded Kafka; 0 takes a free one.
        clickhouse_port: Of the embedded ClickHouse; 0 takes a free one.
        simulator_port: Of the simulated provider; 0 takes a free one.
    """
    console = Console(highlight=False)
    try:
        with fleet.signals_interrupt():
            _run(console, workers, port, (kafka_port, clickhouse_port, simulator_port))
    except CANNOT as error:
        print(f"pipeline up: {error}", file=sys.stderr)
        return UNABLE
    except (KeyboardInterrupt, fleet.Interrupted):
        console.print("Stopped; nothing is left running.")
    return 0


def _run(console: Console, workers: int, port: int | None, ports: tuple[int, int, int]) -> None:
    if not 1 <= workers <= 64:
        raise BadInput("--workers", f"{workers}", "give 1 to 64")
    settings = settings_for_up()
    wanted = settings.gateway_port if port is None else port
    settings = settings.model_copy(
        update={
            "config": (settings.config or sample_path("demo.yaml")).absolute(),
            "gateway_port": claim(wanted, "The gateway", "--port"),
        }
    )
    simulation = _simulation(settings, ports[2])
    _check(settings, simulation)
    stack = Stack(settings, ports[0], ports[1])
    runs: Fleet | None = None
    try:
        console.print("Starting ...")
        settings = stack.start(lambda text: console.print(text, markup=False))
        fleet.prepare(settings)
        runs = Fleet(settings, workers, simulation)
        runs.start_simulator()
        runs.start_workers()
        runs.await_ready()
        console.print(*_addresses(runs), sep="\n", markup=False, soft_wrap=True)
        _watch(console, runs)
    finally:
        with fleet.undisturbed():
            console.print("Stopping ...")
            if runs is not None:
                runs.stop()
            stack.stop()


def _simulation(settings: Settings, port: int) -> Simulation | None:
    assert settings.config is not None
    if not fleet.needs_simulator(settings.config):
        return None
    return Simulation(
        script=sample_path("simulator.yaml").absolute(),
        ledger=settings.data_dir.absolute() / "simulator" / "ledger.jsonl",
        port=claim(port, "The simulated provider", "--simulator-port"),
    )


def _check(settings: Settings, simulation: Simulation | None) -> None:
    """A mistake in the file is said here, not by a dozen workers."""
    import os

    assert settings.config is not None
    environment = {**os.environ, **(simulation.environment() if simulation else {})}
    load_config(settings.config, settings.gateway_url, environment, PROVIDERS)


def _addresses(runs: Fleet) -> list[str]:
    settings = runs.settings
    topic = f"{settings.prefix}intake"
    to = '{"to":{"phone":"+4915112345678"},"content":{"text":"Hello"},"priority":"urgent"}'
    lines = [
        "",
        f"Kafka        {settings.bootstrap}",
        f"ClickHouse   {settings.clickhouse_url.get_secret_value().rpartition('@')[2]}",
        f"Gateway      http://{settings.gateway_host}:{settings.gateway_port}/callbacks/<provider>",
    ]
    if runs.simulation is not None:
        lines.append(f"Providers    simulated, at {runs.simulation.url}")
    lines += [
        f"Policies     {settings.config}",
        f"Data, logs   {settings.data_dir}, {runs.supervisor.logs}",
        "",
        "In another terminal:",
        "  pipeline send --to +4915112345678 --text Hello --wait",
        f"  echo '{to}' | kcat -P -b {settings.bootstrap} -t {topic}",
        '  pipeline sql "SELECT status, channel, count() FROM messages GROUP BY ALL"',
        "  pipeline audit",
        "  pipeline dead-letters list",
        "",
    ]
    return lines


def _watch(console: Console, runs: Fleet) -> None:
    """Shows a line per stage until a signal comes."""
    if not console.is_terminal:
        console.print("Running; Ctrl-C or SIGTERM stops everything in order.")
        told: dict[str, int] = {}
        while True:
            for row in runs.supervisor.status():
                if row.restarts > told.get(row.name, 0):
                    told[row.name] = row.restarts
                    console.print(f"{row.name} ended ({describe(row.last_exit)}), started again")
            time.sleep(REFRESH_S)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(Group(table(runs.supervisor.status()), _HINT), refresh=True)
            time.sleep(REFRESH_S)


_HINT: Final = Text("Ctrl-C stops everything in order.", style="dim")


def table(rows: Sequence[Status]) -> Table:
    """A line per stage."""
    shown = Table("stage", "workers", "restarts", "up", "last end", box=None, pad_edge=False)
    names = [*STAGES, *dict.fromkeys(r.name for r in rows if r.name == fleet.SIMULATOR)]
    for stage in names:
        mine = [row for row in rows if row.name == stage or row.name.startswith(f"{stage}-")]
        running = [row for row in mine if row.state == "running"]
        ends = [row for row in mine if row.last_exit is not None]
        shown.add_row(
            stage,
            f"{len(running)} of {len(mine)}",
            str(sum(row.restarts for row in mine)),
            duration(min((row.up_s for row in running), default=0.0)),
            _last_end(ends),
            style="" if len(running) == len(mine) else "bold red",
        )
    return shown


def _last_end(rows: Sequence[Status]) -> str:
    return ", ".join(f"{row.name} {describe(row.last_exit)}" for row in rows)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
