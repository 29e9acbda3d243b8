"""`pipeline dead-letters`: what could not be processed or had no step left, read from its topic, and
sent again."""

import base64
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from pipeline.commands.connections import UNABLE, Unable
from pipeline.commands.letters import Heard, Wanted, find, letters
from pipeline.commands.moments import read_moment
from pipeline.commands.replay import LIMIT, Replayed
from pipeline.commands.replay import run as run_replay
from pipeline.domain.errors import BadInput, ErrorClass
from pipeline.domain.records import DeadLetter
from pipeline.domain.replays import WHY
from pipeline.runtime.clickhouse import Unavailable
from pipeline.runtime.reader import Unreachable
from pipeline.runtime.registry import RegistryRefused, RegistryUnavailable
from pipeline.settings import load_settings

app = App(name="dead-letters", help="See what could not be processed, and why; send it again.")

OK: Final = 0
BAD: Final = 1
SHOWN: Final = 20
"""Replays that are named on the screen."""

_COLUMNS: Final = ("id", "when", "stage", "trouble", "reason", "class", "channel", "message")

Json = Annotated[bool, Parameter(name="--json", negative="")]


@app.command(name="list")
def list_(
    *,
    since: str = "",
    channel: str = "",
    error_class: Annotated[str, Parameter(name="--class")] = "",
    reason: str = "",
    category: str = "",
    tenant: str = "",
    limit: int = 100,
    as_json: Json = False,
) -> int:
    """List dead letters, the newest first, and count them by trouble.

    Args:
        since: For example 90m, 24h, 7d or 2026-01-31T10:00 (UTC); all that are kept when empty.
        channel: Of this channel only.
        error_class: Of this class only: transient, recipient, content ...
        reason: Whose reason has this text in it.
        category: Of this kind of trouble only, as the list shows it.
        tenant: Of this tenant only.
        limit: How many to show; all are counted.
        as_json: For programs; all of them, without content.
    """
    try:
        wanted = _wanted(since, channel, error_class, reason, category, tenant)
        found = sorted(
            find(load_settings(), wanted, _progress(as_json)),
            key=lambda letter: -letter["occurred_at"],
        )
    except _CANNOT as error:
        print(f"pipeline dead-letters: {error}", file=sys.stderr)
        return UNABLE
    if as_json:
        print(json.dumps([summary(letter) for letter in found], indent=2, ensure_ascii=False))
    else:
        _show_list(found, limit)
    return OK


@app.command
def show(dead_letter_id: str, /, *, as_json: Json = False) -> int:
    """Print one dead letter with everything in it: content, attempts, raw bytes.

    Args:
        dead_letter_id: As `list` shows it, or the id of its message.
        as_json: For programs; raw bytes in Base64.
    """
    try:
        found = [
            letter
            for letter in find(load_settings(), Wanted(), _progress(as_json))
            if dead_letter_id in {letter["dead_letter_id"], letter["message_id"]}
        ]
    except _CANNOT as error:
        print(f"pipeline dead-letters: {error}", file=sys.stderr)
        return UNABLE
    if not found:
        print(f"pipeline dead-letters: no dead letter has the id {dead_letter_id}", file=sys.stderr)
        return BAD
    for letter in found:
        print(json.dumps(whole(letter, as_json=as_json), indent=2, ensure_ascii=False))
    return OK


@app.command
def replay(
    *names: str,
    since: str = "",
    channel: str = "",
    error_class: Annotated[str, Parameter(name="--class")] = "",
    reason: str = "",
    category: str = "",
    tenant: str = "",
    limit: int = LIMIT,
    dry_run: Annotated[bool, Parameter(name="--dry-run", negative="")] = False,
    in_doubt: Annotated[bool, Parameter(name="--in-doubt", negative="")] = False,
    as_json: Json = False,
) -> int:
    """Send dead letters again, each as a new message that names the one it replays.

    Left out is what has expired, was delivered since, was replayed before, may have been sent
    although it must be sent at most once, or holds no message. Running it twice sends nothing
    twice. Exit status 1: no dead letter fits.

    Args:
        names: Ids of dead letters or of their messages; all that fit the options when left out.
        since: For example 90m, 24h, 7d or 2026-01-31T10:00 (UTC); all that are kept when empty.
        channel: Of this channel only.
        error_class: Of this class only: transient, provider, recipient ...
        reason: Whose reason has this text in it.
        category: Of this kind of trouble only, as the list shows it.
        tenant: Of this tenant only.
        limit: How many to replay at most.
        dry_run: Only say what would be replayed.
        in_doubt: Also what may have reached the person (an unknown answer, on_doubt wait).
        as_json: For programs.
    """
    console = Console(stderr=True, highlight=False)
    try:
        if limit < 1:
            raise BadInput("--limit", f"{limit} is no count", "give 1 or more")
        wanted = _wanted(since, channel, error_class, reason, category, tenant, frozenset(names))
        settings = load_settings()
        with _bar(console, as_json=as_json) as bar:
            found = run_replay(
                settings,
                letters(settings, wanted, bar.heard, bar.total),
                limit=limit,
                dry_run=dry_run,
                in_doubt=in_doubt,
                say=bar.say,
            )
    except (*_CANNOT, Unable, Unavailable) as error:
        print(f"pipeline dead-letters: {error}", file=sys.stderr)
        return UNABLE
    if as_json:
        print(json.dumps(found.as_dict(), indent=2))
    else:
        _show_replayed(found)
    return OK if found.fitting else BAD


_CANNOT: Final = (BadInput, Unreachable, RegistryRefused, RegistryUnavailable)


def _wanted(
    since: str,
    channel: str,
    error_class: str,
    reason: str,
    category: str,
    tenant: str,
    names: frozenset[str] = frozenset(),
) -> Wanted:
    if error_class and error_class not in set(ErrorClass):
        known = ", ".join(ErrorClass)
        raise BadInput("--class", f"{error_class!r} is no class", f"choose one of {known}")
    return Wanted(
        since=read_moment(since, int(time.time() * 1000), "--since"),
        channel=channel,
        error_class=error_class,
        reason=reason,
        category=category,
        tenant=tenant,
        names=names,
    )


def summary(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter without content, address or bytes."""
    hidden = {"message", "raw_key", "raw_value"}
    return {name: value for name, value in letter.items() if name not in hidden}


def whole(letter: Mapping[str, Any], *, as_json: bool) -> dict[str, Any]:
    """A dead letter with everything; bytes as text where they are text, unless for programs."""
    found = dict(letter)
    for name in ("raw_key", "raw_value"):
        raw = found[name]
        if raw is None:
            continue
        text = _text(raw)
        if as_json or text is None:
            del found[name]
            found[f"{name}_base64"] = base64.b64encode(raw).decode()
        else:
            found[name] = text
    return found


def _text(raw: bytes) -> str | None:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() or text.strip().isprintable() else None


def _when(at: int) -> str:
    try:
        return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(at)


def _show_list(found: list[DeadLetter], limit: int) -> None:
    console = Console(highlight=False, markup=False)
    table = Table(*_COLUMNS, box=None, pad_edge=False)
    for letter in found[:limit]:
        table.add_row(
            letter["dead_letter_id"],
            _when(letter["occurred_at"]),
            letter["stage"],
            letter["category"],
            letter["reason"],
            letter["error_class"] or "",
            letter["channel"],
            letter["message_id"] or "",
        )
    if found:
        console.print(table)
    if len(found) > limit:
        console.print(f"{len(found) - limit} more; --limit shows more, --json all")
    counted = Counter(letter["category"] for letter in found)
    console.print(
        f"{len(found)} dead letters"
        + "".join(f"; {name}: {count}" for name, count in counted.most_common()),
        soft_wrap=True,
    )


def _progress(as_json: bool) -> Heard:
    """Progress goes to a person's terminal, and nowhere else."""
    if as_json or not sys.stderr.isatty():
        return lambda _: None
    console = Console(stderr=True, highlight=False)
    read = 0

    def heard(more: int) -> None:
        nonlocal read
        read += more
        console.print(f"{read} records read", end="\r")

    return heard


def _show_replayed(found: Replayed) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if not found.fitting:
        console.print("No dead letter fits; nothing was replayed.")
        return
    word = "would be replayed" if found.dry_run else "replayed"
    shown = found.messages[:SHOWN]
    for letter, message, again in shown:
        console.print(f"{letter}: {message} as {again}")
    if len(found.messages) > len(shown):
        console.print(f"{len(found.messages) - len(shown)} more; --json names all")
    console.print(f"{found.fitting} dead letters fit; {len(found.messages)} {word}")
    for verdict, count in found.refused.most_common():
        console.print(f"{count} {WHY[verdict]}")
    if found.limited:
        console.print("There are more behind the limit; run it again, or raise --limit.")


@dataclass(slots=True)
class _Bar:
    """A progress bar on a person's terminal."""

    progress: Progress
    task: TaskID

    def total(self, offsets: int) -> None:
        self.progress.update(self.task, total=offsets)

    def heard(self, more: int) -> None:
        self.progress.advance(self.task, more)

    def say(self, text: str) -> None:
        self.progress.update(self.task, description=text)


@contextmanager
def _bar(console: Console, *, as_json: bool) -> Iterator[_Bar]:
    shown = not as_json and console.is_terminal
    with Progress(console=console, transient=True, disable=not shown) as progress:
        yield _Bar(progress, progress.add_task("reading dead letters", total=None))
