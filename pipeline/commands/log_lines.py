"""Logs, as one JSON object a line or as text for people. They hold no content: of an exception only
its kind and place are kept, unless it is one of ours, whose words we know."""

import json
import logging
import os
import sys
import traceback
from datetime import UTC, datetime
from typing import Final, Literal

VARIABLE: Final = "PIPELINE_LOG"

Form = Literal["json", "text"]

_OURS: Final = ("pipeline.", "confluent_kafka.", "cimpl")


class JsonLines(logging.Formatter):
    """time, level, logger, message; then the line's own `fields`, if it was given any; with an
    exception also error and trace."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        return json.dumps(_line(record), ensure_ascii=False, default=str)


class TextLines(logging.Formatter):
    """The same for people: `name=value` for what is beyond the message."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and one more for each place of an exception."""
        line = _line(record)
        places = line.pop("trace", ())
        time, level, logger, message = (line.pop(name) for name in _FIRST)
        more = "".join(f" {name}={value}" for name, value in line.items() if value is not None)
        first = f"{time} {str(level).upper():8} {logger}: {message}{more}"
        assert isinstance(places, list | tuple)
        return "\n".join([first, *(f"    {place}" for place in places)])


_FIRST: Final = ("time", "level", "logger", "message")


def _line(record: logging.LogRecord) -> dict[str, object]:
    line: dict[str, object] = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
    }
    line |= getattr(record, "fields", {})
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        line["error"] = describe(error)
        line["trace"] = [
            f"{frame.filename}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(error.__traceback__)
        ]
    return line


def describe(error: BaseException) -> str:
    """An exception without what it may quote of a person's message."""
    kind = type(error)
    if f"{kind.__module__}.".startswith(_OURS) or isinstance(error, OSError):
        return f"{kind.__name__}: {error}"
    return kind.__name__


def wanted() -> Form | None:
    """The form that PIPELINE_LOG asks for; None when it asks for none. Read before the settings,
    which say what is wrong with any other value."""
    found = os.environ.get(VARIABLE)
    return "json" if found == "json" else "text" if found == "text" else None


def to_stderr(form: Form = "json", level: int = logging.INFO) -> None:
    """All logs of this process go to stderr, a line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Clients that report every reconnection, or every request with its address, which may hold a
    # password; what matters of it our own loops say.
    for name in ("urllib3", "asyncio", "aiohttp", "clickhouse_connect", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
