"""What the demo shows: progress while it runs, a summary at the end."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from pipeline.commands.demo_figures import Cell, percentile
from pipeline.commands.demo_run import Tally

_SHARE: Final = re.compile(r"(\d+) %")
_EVERY: Final = 0.1  # of all requests, between two lines where there is no terminal
_BARS: Final = ("sent", "accepted", "delivered", "failed", "rejected", "waiting")


class View:
    """Bars in a terminal, a line now and then elsewhere. Use it in a `with` block."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress = Progress(
            TextColumn("{task.description:>24}"),
            BarColumn(40),
            MofNCompleteColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._steps: TaskID | None = None
        self._bars: dict[str, TaskID] = {}
        self._told = -_EVERY
        self._last = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, text: str) -> None:
        """What is being done now; a percentage in it moves the bar."""
        share = _SHARE.search(text)
        if self._steps is None:
            self._steps = self._progress.add_task("", total=100)
        self._progress.update(
            self._steps,
            description=text.strip()[:40],
            completed=int(share[1]) if share else 0,
            visible=not self._bars,
        )
        if not self.console.is_terminal and (share is None or int(share[1]) % 25 == 0):
            if text != self._last:
                self.console.print(text, markup=False, soft_wrap=True)
            self._last = text

    def tally(self, tally: Tally) -> None:
        """How far the run is."""
        if not self._bars:
            if self._steps is not None:
                self._progress.update(self._steps, visible=False)
            for name in _BARS:
                self._bars[name] = self._progress.add_task(name, total=tally.wanted)
        counts = {
            "sent": len(tally.sent),
            "accepted": len(tally.accepted),
            "delivered": len(tally.delivered),
            "failed": len(tally.failed),
            "rejected": len(tally.rejected),
            "waiting": tally.waiting,
        }
        for name, count in counts.items():
            self._progress.update(self._bars[name], completed=count)
        share = (len(tally.sent) + tally.settled) / (2 * max(1, tally.wanted))
        if not self.console.is_terminal and share - self._told >= _EVERY:
            self._told = share
            shown = ", ".join(f"{name} {count}" for name, count in counts.items())
            self.console.print(shown, soft_wrap=True)


def summary(
    console: Console,
    figures: Mapping[str, Any],
    cells: Mapping[tuple[str, str], Cell],
    letters: Mapping[str, int],
    problems: Sequence[str],
) -> None:
    """Everything that a person wants to know of a run."""
    console.print(by_place(cells))
    console.print()
    console.print(totals(figures, letters))
    console.print()
    console.print(
        f"{figures['messages']} messages = {figures['rejected']} rejected +"
        f" {figures['delivered']} delivered + {figures['failed']} failed +"
        f" {figures['in_flight']} in flight",
        soft_wrap=True,
    )
    for problem in problems:
        console.print(f"WRONG: {problem}", markup=False, soft_wrap=True, style="bold red")
    if figures["balanced"]:
        console.print(f"The books balance. ({figures['seconds']:.0f} s)", style="green")
    else:
        console.print("The books do not balance.", style="bold red")


def by_place(cells: Mapping[tuple[str, str], Cell]) -> Table:
    """A line per channel and country, and one per channel."""
    table = Table(box=None, pad_edge=False)
    for name in ("channel", "country"):
        table.add_column(name)
    for name in (
        "sent", "delivered", "failed", "fallback: failure", "silence", "p50", "p95",
    ):  # fmt: skip
        table.add_column(name, justify="right")
    for channel in dict.fromkeys(channel for channel, _ in cells):
        mine = {country: cell for (name, country), cell in cells.items() if name == channel}
        for country, cell in mine.items():
            table.add_row(channel or "(none)", country, *_numbers(cell))
        if len(mine) > 1:
            table.add_row(channel or "(none)", "all", *_numbers(_sum(mine.values())), style="bold")
    return table


def _sum(cells: Any) -> Cell:
    total = Cell()
    for cell in cells:
        total.sent += cell.sent
        total.delivered += cell.delivered
        total.failed += cell.failed
        total.by_failure += cell.by_failure
        total.by_silence += cell.by_silence
        total.latencies = [*(total.latencies or ()), *(cell.latencies or ())]
    return total


def _numbers(cell: Cell) -> list[str]:
    counts = (cell.sent, cell.delivered, cell.failed, cell.by_failure, cell.by_silence)
    times = [
        f"{percentile(cell.latencies, share) / 1000:.1f} s" if cell.latencies else ""
        for share in (0.5, 0.95)
    ]
    return [*map(str, counts), *times]


def totals(figures: Mapping[str, Any], letters: Mapping[str, int]) -> Table:
    """The counters that are about everything."""
    table = Table(box=None, pad_edge=False, show_header=False)
    reasons = ", ".join(f"{name} {count}" for name, count in letters.items())
    provider = (
        f"{figures['provider_requests']} requests, {figures['provider_repeated_keys']} under a"
        f" known key, {figures['provider_double_sends']} sent twice"
    )
    events = (
        f"{sum(figures['kafka_events'].values())} in Kafka,"
        f" {sum(figures['clickhouse_events'].values())} in ClickHouse"
    )
    for name, value in (
        ("double deliveries", f"{figures['double_deliveries']} people got a message twice"),
        ("late receipts", f"{figures['late_receipts']} came after the outcome"),
        ("in doubt", f"{figures['in_doubt']} attempts, {figures['in_doubt_resent']} sent again"),
        ("at the provider", provider),
        ("retries", str(figures["retries"])),
        ("dead letters", f"{figures['dead_letters']} ({reasons})" if reasons else "0"),
        ("events", events),
    ):
        table.add_row(name, value)
    return table
