"""`make faults`: the whole pipeline under load, killed, stopped and cut off, then judged.

    python -m tests.faults.run                     all faults, 25 minutes at most
    python -m tests.faults.run --short             a minute of each kind
    python -m tests.faults.run --mutant NAME       plants a bug; must fail
    python -m tests.faults.run --control NAME      the same plan without the bug; must pass
    python -m tests.faults.run --list-mutants

Exit status: 0 everything held, 1 something did not, 2 the run could not take place.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults import report
from tests.faults.bench_run import Result, as_json, perform
from tests.faults.mutants import FULL, MUTANTS, SHORT

JSON = Path("build/faults.json")


def main() -> int:
    """Parses the command line; see above."""
    parser = argparse.ArgumentParser(description="Faults under load, judged from outside.")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--mutant", default="", choices=["", *MUTANTS], metavar="NAME")
    parser.add_argument("--control", default="", choices=["", *MUTANTS], metavar="NAME")
    parser.add_argument("--list-mutants", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep logs and data")
    options = parser.parse_args()
    console = Console(width=120)
    if options.list_mutants:
        list_mutants(console)
        return 0
    named = options.mutant or options.control
    plan = MUTANTS[named].plan if named else SHORT if options.short else FULL
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    began = time.monotonic()

    def say(text: str) -> None:
        console.print(f"[{time.monotonic() - began:6.1f} s] {text}", highlight=False)

    say(f"{report.machine()}, seed {options.seed}")
    good = False
    try:
        result = perform(plan, folder, say, options.mutant, options.seed)
        good = tell(console, result)
    finally:
        keep = options.keep or not good
        if keep:
            say(f"logs and data are kept in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    say(f"verdict: {'everything held' if good else 'FAILED'}")
    if options.mutant:
        caught = ", ".join(found.check for found in result.broken) or "nothing"
        console.print(f"mutant {options.mutant}: caught by {caught}")
    return 0 if good else 1


def tell(console: Console, result: Result) -> bool:
    """Prints the findings and the table, writes the JSON; whether everything held."""
    console.print(as_json(result), highlight=False)
    for found in result.findings:
        console.print(
            f"{'ok    ' if found.ok else 'FAILED'} {found}",
            style="" if found.ok else "red",
            highlight=False,
            markup=False,
        )
    for story in result.stories:
        console.print(story, highlight=False, markup=False, soft_wrap=True)
    for error in result.errors:
        console.print(f"FAILED {error}", style="red", highlight=False, markup=False)
    lost, doubled = result.count("lost"), result.count("doubled") + result.count("repeated")
    report.show(console, result.lines, lost, doubled, result.sound)
    entries = report.figures(result.lines)
    entries += [
        report.figure(found.check, found.count, "count", f"<= {found.allowed}", found.ok)
        for found in result.findings
    ]
    entries.append(
        report.figure("errors of the run", len(result.errors), "count", "<= 0", not result.errors)
    )
    report.write(JSON, entries)
    for entry in entries:
        if not entry["ok"]:
            console.print(f"not met: {entry}", style="red", highlight=False, markup=False)
    return all(entry["ok"] for entry in entries)


def list_mutants(console: Console) -> None:
    """The table of `make mutants`."""
    table = Table(title="make faults MUTANT=name must fail")
    for name in ("name", "breaks", "the bug"):
        table.add_column(name)
    for mutant in MUTANTS.values():
        table.add_row(mutant.name, mutant.guarantee, mutant.bug)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
