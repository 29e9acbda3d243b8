"""The real worker of a stage, as `pipeline run` starts it: `python -m bench.worker STAGE`.

With `--profile FILE` every thread's time is written there when it stops (read it with pstats).
"""

import argparse
import cProfile
import logging
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pipeline.app import run_stage
from pipeline.settings import load_config, load_settings


def count(steps: Counter[str]) -> Callable[[str], None]:
    """Counts the steps of transactions."""

    def on_step(step: str) -> None:
        steps[step] += 1

    return on_step


def main() -> None:
    """Settings come from the environment; SIGTERM ends the worker in order."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("stage")
    parser.add_argument("--slot", type=int, default=0)
    parser.add_argument("--profile", type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    settings = load_settings()
    if settings.config is None:
        sys.exit("PIPELINE_CONFIG is not set")
    config = load_config(settings.config, settings.gateway_url)
    profile = cProfile.Profile() if options.profile else None
    if profile is not None:
        profile.enable()
    steps: Counter[str] = Counter()
    run_stage(options.stage, options.slot, settings, config, stop=stop, on_step=count(steps))
    logging.getLogger(__name__).info("transactions: %d", steps["after_commit"])
    if profile is not None:
        profile.disable()
        profile.dump_stats(options.profile)


if __name__ == "__main__":
    main()
