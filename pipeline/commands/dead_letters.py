"""`pipeline dead-letters`: what could not be processed or had no step left, read from its topic."""

import base64
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from pipeline.commands.connections import UNABLE, codec_of, reader_of
from pipeline.commands.moments import read_moment
from pipeline.domain.errors import BadInput, ErrorClass, Undecodable
from pipeline.domain.outcomes import Inbound
from pipeline.domain.records import DeadLetter
from pipeline.runtime.reader import Unreachable
from pipeline.runtime.registry import RegistryRefused, RegistryUnavailable
from pipeline.settings import Settings, load_settings

app = App(name="dead-letters", help="See what could not be processed, and why.")

OK: Final = 0
BAD: Final = 1
TOPIC: Final = "dead-letter"
_COLUMNS: Final = ("id", "when", "stage", "trouble", "reason", "class", "channel", "message")

Json = Annotated[bool, Parameter(name="--json", negative="")]
Heard = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters; empty texts mean any. `since` in milliseconds since the epoch."""

    since: int = 0
    channel: str = ""
    error_class: str = ""
    reason: str = ""
    category: str = ""
    tenant: str = ""

    def fits(self, letter: DeadLetter) -> bool:
        """Whether it is one of these; a reason is found anywhere in the letter's."""
        return (
            letter["occurred_at"] >= self.since
            and self.channel in {"", letter["channel"]}
            and self.error_class in {"", letter["error_class"] or ""}
            and self.category in {"", letter["category"]}
            and self.tenant in {"", letter["tenant"]}
            and self.reason.lower() in letter["reason"].lower()
        )


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
        if error_class and error_class not in set(ErrorClass):
            known = ", ".join(ErrorClass)
            raise BadInput("--class", f"{error_class!r} is no class", f"choose one of {known}")
        wanted = Wanted(
            since=read_moment(since, int(time.time() * 1000), "--since"),
            channel=channel,
            error_class=error_class,
            reason=reason,
            category=category,
            tenant=tenant,
        )
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


_CANNOT: Final = (BadInput, Unreachable, RegistryRefused, RegistryUnavailable)


def find(settings: Settings, wanted: Wanted, heard: Heard = lambda _: None) -> Iterator[DeadLetter]:
    """The dead letters in the topic that fit; one that came again under its own id once.

    Raises:
        BadInput, Unreachable, RegistryUnavailable: the topic cannot be read.
    """
    codec = codec_of(settings)
    seen: set[str] = set()
    with reader_of(settings) as reader:
        ranges = reader.ranges([TOPIC])
        if wanted.since:
            # a letter is appended after what it tells of
            ranges = reader.since(ranges, wanted.since)
        for record in reader.read(ranges, heard):
            try:
                letter: Any = codec.decode_as("DeadLetter", record.value)
            except Undecodable as error:
                letter = _unreadable(record, error)
            if letter["dead_letter_id"] not in seen and wanted.fits(letter):
                seen.add(letter["dead_letter_id"])
                yield letter


def _unreadable(record: Inbound, error: Undecodable) -> DeadLetter:
    """A dead letter that is itself no record: it is shown like the others."""
    return {
        "record_version": 1,
        "dead_letter_id": f"{record.topic}:{record.partition}:{record.offset}",
        "tenant": "",
        "message_id": None,
        "recipient_key": None,
        "stage": "",
        "category": "undecodable",
        "reason": error.code,
        "error_class": None,
        "detail": error.detail,
        "channel": "",
        "provider": "",
        "priority": "",
        "occurred_at": record.timestamp,
        "source": {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
        },
        "message": None,
        "attempts": [],
        "raw_key": record.key,
        "raw_value": record.value,
    }


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
