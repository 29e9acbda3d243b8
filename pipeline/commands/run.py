"""`pipeline run STAGE`: one worker, until SIGTERM."""

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated, Final, Literal

from cyclopts import App, Parameter

from pipeline.commands import log_lines

app = App(name="run", help="Run one worker of one stage until SIGTERM or Ctrl-C.")
log = logging.getLogger(__name__)

Stage = Literal["accept", "fallback", "dispatch", "gateway", "receipts", "sink"]
Flag = Annotated[bool, Parameter(negative="")]

STOP_S: Final = 9.5
"""How long a worker may take to finish or hand over, within the 10 s that it is given."""

CRASHED: Final = 1
UNABLE: Final = 2


@app.default
def run(stage: Stage, *, slot: int = 0, transient: Flag = False) -> int:
    """Run one worker. It logs to stderr, a JSON object a line (PIPELINE_LOG=text: for people).

    Exit status 0: it was told to stop; 1: it crashed, or could not stop in time; 2: it must not
    run like this, and the last line says why.

    Args:
        stage: Which stage.
        slot: Tells the workers of a stage apart, from 0. A restart in the same slot takes over at
            once what its predecessor held; two processes cannot have the same.
        transient: For workers that come and go: leave the group when stopping.
    """
    log_lines.to_stderr(log_lines.wanted() or "json")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: _told(stop, number, _frame))
    from pipeline.domain.errors import BadInput

    try:
        if slot < 0:
            raise BadInput("--slot", f"{slot} is no slot", "give 0 or more")
        return _work(stage, slot, stop, static=not transient)
    except BadInput as error:
        log.critical("%s", error)
        return UNABLE


def _told(stop: threading.Event, number: int, _frame: FrameType | None) -> None:
    if not stop.is_set():
        watchdog = threading.Timer(STOP_S, _hangs, (number,))
        watchdog.daemon = True
        watchdog.start()
    stop.set()


def _hangs(number: int) -> None:
    log.critical("not finished %.1f s after %s; ending", STOP_S, signal.Signals(number).name)
    sys.stderr.flush()
    os._exit(CRASHED)


def _work(stage: str, slot: int, stop: threading.Event, *, static: bool) -> int:
    # Late, so that a signal during the second that this takes is not missed.
    from pipeline.app import run_stage
    from pipeline.providers import PROVIDERS
    from pipeline.settings import load_config, load_settings

    settings = load_settings()
    config = load_config(
        _config_file(settings.config),
        settings.gateway_url,
        _environment(settings.data_dir),
        PROVIDERS,
    )
    try:
        run_stage(stage, slot, settings, config, stop=stop, static=static)
    except Exception as error:
        if _must_not_run(error):
            log.critical("%s", error)
            return UNABLE
        log.critical("%s: slot %d crashed", stage, slot, exc_info=True)
        return CRASHED
    return 0


def _environment(folder: Path) -> dict[str, str]:
    """Ours, and behind it what `pipeline up` on the same data tells: a policy file may name the
    simulated provider that runs there."""
    from pipeline.settings.environment import running_values

    return {**running_values(folder), **os.environ}


def _must_not_run(error: Exception) -> bool:
    """Whether a person has to mend something first. Imports what few stages need, so only here."""
    from pipeline.domain.errors import BadInput
    from pipeline.runtime.admin import ClusterUnusable, TopicsMismatch
    from pipeline.runtime.clickhouse import WrongTables
    from pipeline.runtime.control import ControlMismatch
    from pipeline.runtime.registry import RegistryRefused, RegistryUnavailable
    from pipeline.runtime.tasks import MissingOffset, SlotTaken

    return isinstance(
        error,
        BadInput
        | SlotTaken
        | TopicsMismatch
        | ControlMismatch
        | MissingOffset
        | WrongTables
        | ClusterUnusable
        | RegistryRefused
        | RegistryUnavailable,
    )


def _config_file(named: Path | None) -> Path:
    from pipeline.domain.errors import BadInput

    if named is None:
        raise BadInput(
            "PIPELINE_CONFIG",
            "it is not set",
            "name the file of providers, routes and policies (deploy/pipeline.yaml is the sample)",
        )
    return named
