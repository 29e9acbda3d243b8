"""`pipeline demo`: everything on this machine, 2,000 messages through it, and what became of them."""

import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import App, Parameter
from pydantic import SecretStr
from rich.console import Console

from pipeline.commands import audit, demo_checks, demo_figures, fleet
from pipeline.commands.demo_evidence import Evidence, gather
from pipeline.commands.demo_run import NotSent, Run, await_stored
from pipeline.commands.demo_view import View, summary
from pipeline.commands.fleet import Fleet, Simulation
from pipeline.commands.report import gather as gather_reports
from pipeline.commands.report_html import page
from pipeline.commands.report_rows import Report
from pipeline.commands.report_text import print_report
from pipeline.commands.up import CANNOT
from pipeline.domain.errors import BadInput, Undecodable
from pipeline.local.kafka import SHORT_LIVED
from pipeline.local.ports import HOST, free_port
from pipeline.local.stack import Stack, settings_for_up
from pipeline.runtime.clickhouse import Refused, Store
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.reader import Reader, Unreachable
from pipeline.settings import Settings, sample_path
from pipeline.simulators.people import Asked, requests

app = App(name="demo", help="Start everything, send messages, print what became of them, stop.")

OK: Final = 0
BAD: Final = 1
UNABLE: Final = 2
INTERRUPTED: Final = 130  # as shells have it
MESSAGES: Final = 2_000
WORKERS: Final = 2
REPORT: Final = Path(".pipeline/demo-report.html")

ORDER: Final = (
    "messages", "rejected", "delivered", "failed", "in_flight", "attempts",
    "fallbacks_by_failure", "fallbacks_by_silence", "timed_out", "retries", "late_receipts",
    "double_deliveries", "in_doubt", "in_doubt_resent", "dead_letters", "provider_requests",
    "provider_repeated_keys", "provider_double_sends", "kafka_events", "clickhouse_events",
    "balanced", "seconds",
)  # fmt: skip
"""The fields of --json (docs/demo.md)."""

SHOWN: Final = ("funnel", "latency")
"""Reports that the terminal shows; the file has all."""

Json = Annotated[Path | None, Parameter(name="--json")]
Flag = Annotated[bool, Parameter(negative="")]


@dataclass(slots=True)
class Result:
    """One run: its figures in the order of `--json`, what is wrong, and what both came from."""

    figures: dict[str, Any]
    problems: list[str]
    evidence: Evidence
    letters: dict[str, int] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)

    @property
    def answers(self) -> dict[int, list[dict[str, Any]]]:
        """What became of each request, by its number."""
        return demo_figures.answers(self.evidence)


@app.default
def demo(
    *,
    messages: int = MESSAGES,
    seed: int = 1,
    json_file: Json = None,
    answers: Path | None = None,
    report: Path = REPORT,
    keep: Flag = False,
) -> int:
    """Start an own Kafka, ClickHouse, simulated providers and two workers of every stage in a
    temporary directory; send, wait for every outcome and late receipt, check everything, stop.

    Exit status 0: everything adds up; 1: something does not; 2: it could not run, and why.

    Args:
        messages: How many requests, repeats and malformed ones among them.
        seed: Decides who is written to and what the providers do: the same seed, the same end.
        json_file: Write the figures here, for programs.
        answers: Write what became of each request here, a JSON object a line.
        report: Write the reports here, as one HTML file.
        keep: Keep the directory, with logs and data.
    """
    console = Console(highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="delivery-demo-"))
    kept = True  # whatever we did not expect leaves its traces
    try:
        with fleet.signals_interrupt():
            result = run(folder, messages, seed, console=console)
        if json_file is not None:
            json_file.write_text(json.dumps(result.figures, indent=2) + "\n", encoding="utf-8")
        if answers is not None:
            answers.write_text(answer_lines(result), encoding="utf-8")
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(page("The demo's messages", result.reports), encoding="utf-8")
        _tell(console, result, folder, report, keep=keep)
        kept = keep or bool(result.problems)
    except (*CANNOT, NotSent, Unreachable, Undecodable, Refused, OSError) as error:
        print(f"pipeline demo: {error}\nLogs are in {folder}", file=sys.stderr)
        return UNABLE
    except (KeyboardInterrupt, fleet.Interrupted):
        console.print("Interrupted; nothing is left running.")
        kept = keep
        return INTERRUPTED
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
    return BAD if result.problems else OK


def run(
    folder: Path,
    messages: int,
    seed: int,
    extra: Sequence[Asked] = (),
    console: Console | None = None,
    inspect: Callable[[Fleet], None] = lambda _: None,
) -> Result:
    """One whole run in `folder`; `extra` requests come last. `inspect` may look around after the
    end, while everything still runs. Nothing is left running.

    Raises:
        BadInput, PortTaken, StartError, Unavailable, NotReady, NotSent, Unreachable: it could not
            be done; the text says why.
    """
    if not 1 <= messages <= 1_000_000:
        raise BadInput("--messages", f"{messages}", "give 1 to 1000000")
    began = time.monotonic()
    simulation = Simulation(
        script=sample_path("simulator.yaml").absolute(),
        ledger=folder / "simulator" / "ledger.jsonl",
        port=free_port(),
        seed=seed,
    )
    stack = Stack(settings_of(folder), 0, 0, SHORT_LIVED)
    runs: Fleet | None = None
    with View(console or Console(quiet=True)) as view:
        try:
            view.step("Starting Kafka and ClickHouse")
            settings = stack.start(view.step)
            view.step("Making topics and tables")
            runs = Fleet(settings, WORKERS, simulation)
            runs.start_simulator()
            fleet.prepare(settings)
            view.step(f"Starting {WORKERS} workers of every stage")
            runs.start_workers()
            runs.await_ready()
            work = Run(runs, fleet.codec_of(settings), view.tally)
            work.go([*requests(seed, messages), *extra])
            result = _judge(work, settings, simulation.ledger, view)
            inspect(runs)
        finally:
            with fleet.undisturbed():
                view.step("Stopping")
                if runs is not None:
                    runs.stop(5.0)
                stack.stop()
    result.figures["seconds"] = round(time.monotonic() - began, 1)
    return result


def settings_of(folder: Path) -> Settings:
    """Nothing of the machine's own configuration: everything is embedded and in `folder`."""
    return settings_for_up(
        bootstrap="",
        security_protocol="PLAINTEXT",
        clickhouse_url=SecretStr(""),
        registry_url="",
        prefix="delivery.",
        config=sample_path("demo.yaml").absolute(),
        data_dir=folder,
        pepper=SecretStr(""),
        reference_keys=SecretStr(""),
        gateway_host=HOST,
        gateway_port=free_port(),
        public_url="",
    )


def _judge(work: Run, settings: Settings, ledger: Path, view: View) -> Result:
    """Reads everything anew, from outside, and counts."""
    view.step("Counting")
    store = Store(settings.clickhouse_url.get_secret_value())
    cluster = Cluster(
        settings.bootstrap, settings.prefix, settings.security, settings.group_protocol
    )
    codec, keys = fleet.codec_of(settings), settings.reference_key_table

    def stored() -> int:
        return int(store.query("SELECT count() FROM events_unique")[0][0])

    with Reader(cluster) as reader:
        sent = work.tally.sent
        evidence = gather(sent, reader, codec, store, ledger, keys)
        wanted = sum(len(found) for found in evidence.records.values())
        if sum(evidence.stored.values()) < wanted:
            await_stored(stored, wanted, lambda: view.step("Waiting for ClickHouse"))
            evidence = gather(sent, reader, codec, store, ledger, keys)
    view.step("Writing the report")
    began = min((value["accepted_at"] for value in evidence.of("accepted")), default=0)
    reports = gather_reports(store, began)
    store.close()
    figures = demo_figures.figures(evidence)
    problems = demo_checks.check(evidence, figures)
    books = audit.run(settings, full=True)
    problems += [f"audit: {problem.topic}: {problem.text}" for problem in books.problems]
    figures["balanced"] = books.balanced and not problems
    figures["seconds"] = 0.0
    letters = Counter(value["reason"] for value in evidence.of("dead_letter"))
    return Result(
        figures={name: figures[name] for name in ORDER},
        problems=problems,
        evidence=evidence,
        letters=dict(letters.most_common()),
        reports=reports,
    )


def answer_lines(result: Result) -> str:
    """`--answers`: a line per request, in their order."""
    return "".join(
        json.dumps({"request": number, "answers": said}) + "\n"
        for number, said in sorted(result.answers.items())
    )


def _tell(console: Console, result: Result, folder: Path, report: Path, *, keep: bool) -> None:
    cells = demo_figures.cells(result.evidence)
    console.print()
    summary(console, result.figures, cells, result.letters, result.problems)
    console.print()
    for one in result.reports:
        if one.name in SHOWN:
            print_report(console, one)
            console.print()
    if keep or result.problems:
        console.print(f"Logs, data and the provider's ledger are in {folder}", soft_wrap=True)
    console.print(
        f"All reports, with pictures: {report.absolute()}\n"
        "Where next: `pipeline up` runs the same and stays; then `pipeline send`, `pipeline sql`,\n"
        "`pipeline audit` and `pipeline dead-letters list` in another terminal. docs/demo.md says\n"
        "what each figure means, deploy/pipeline.yaml how to name providers of your own.",
        markup=False,
        soft_wrap=True,
    )
