"""One worker of one stage, as `pipeline run` starts it, with a planted bug when a mutant is named.

This is the only way to a switch: the product's own commands know none.
"""

import argparse
import logging
import os
import signal
import sys
import threading
from dataclasses import replace
from typing import Final

from pipeline.app import run_stage
from pipeline.domain.switches import NONE
from pipeline.settings import load_config, load_settings

NICE: Final = 5
"""Providers and brokers stand on machines of their own. Where all share two cores, a pipeline in
need would else starve the provider of the time to send the receipts that it waits for."""


def main() -> int:
    """Connections come from the environment; SIGTERM ends the worker in order."""
    os.nice(NICE)
    parser = argparse.ArgumentParser(description="One worker for the fault tests.")
    parser.add_argument("stage")
    parser.add_argument("slot", type=int)
    parser.add_argument("--mutant", default="")
    parser.add_argument("--guest", action="store_true", help="comes and goes: no static member")
    options = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    switches = replace(NONE, **{options.mutant: True}) if options.mutant else NONE
    settings = load_settings()
    assert settings.config is not None, "PIPELINE_CONFIG is not set"
    config = load_config(settings.config, settings.gateway_url)
    run_stage(
        options.stage,
        options.slot,
        settings,
        config,
        switches,
        stop=stop,
        static=not options.guest,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
