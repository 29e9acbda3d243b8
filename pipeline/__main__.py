"""The one program: `pipeline COMMAND`, or `python -m pipeline COMMAND`.

Every command is imported when it is asked for, so that a worker starts with what its stage needs.
"""

import os
import sys
from typing import Final

COMMANDS: Final = {
    "demo": "Start everything, send 2,000 messages, print what became of them, stop everything.",
    "up": "Run every stage on this machine until Ctrl-C.",
    "send": "Send one message through the running pipeline.",
    "status": "Say how the stages stand: workers, lag, oldest waiting message.",
    "doctor": "Say whether what the pipeline stands on is as it must be.",
    "trace": "Tell one message's story: what happened, why, what it waits for.",
    "audit": "Compare fallback's ledger, Kafka and ClickHouse.",
    "sql": "Ask ClickHouse: a SELECT over events and messages.",
    "report": "Delivery, funnel, fallback, latency, errors, cost: tables, charts, one HTML file.",
    "dead-letters": "List, show and replay what could not be processed or delivered.",
    "topics": "Compare the cluster with topics.yaml, and create what it lacks.",
    "keys": "Make a key for the HTTP API.",
    "openapi": "Print the OpenAPI document of the HTTP API.",
    "check": "Say whether a file of providers, routes and policies is right.",
    "config": "Print the settings in effect and where each comes from.",
    "run": "Run one worker of one stage.",
    "simulate": "Simulated providers over real HTTP, with scripted faults.",
}
"""What each command is for; `pipeline/commands/` has a file for each, with `_` for `-`."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0, 1 (it ran and the answer is bad) or 2 (it
    could not run, and why)."""
    words = sys.argv[1:] if arguments is None else arguments
    from cyclopts import App, CycloptsError

    if os.environ.get("PIPELINE_LOG"):
        from pipeline.commands import log_lines

        if form := log_lines.wanted():
            log_lines.to_stderr(form)

    app = App(name="pipeline", help="Message delivery over several channels on Kafka.")
    for name, meaning in COMMANDS.items():
        module = f"pipeline.commands.{name.replace('-', '_')}"
        app.command(f"{module}:app", name=name, help=meaning)
    try:
        result = app(words, exit_on_error=False, result_action="return_value")
    except CycloptsError:
        return 2  # it has said why
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.exit(main())
