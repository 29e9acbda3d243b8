"""Logs as one JSON object a line. They hold no content: of an exception only its kind and place are
kept, unless it is one of ours, whose words we know."""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Final

_OURS: Final = ("pipeline.", "confluent_kafka.", "cimpl")


class JsonLines(logging.Formatter):
    """time, level, logger, message; with an exception also error and trace."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line["error"] = describe(error)
            line["trace"] = [
                f"{frame.filename}:{frame.lineno} {frame.name}"
                for frame in traceback.extract_tb(error.__traceback__)
            ]
        return json.dumps(line, ensure_ascii=False, default=str)


def describe(error: BaseException) -> str:
    """An exception without what it may quote of a person's message."""
    kind = type(error)
    if f"{kind.__module__}.".startswith(_OURS) or isinstance(error, OSError):
        return f"{kind.__name__}: {error}"
    return kind.__name__


def to_stderr(level: int = logging.INFO) -> None:
    """All logs of this process go to stderr, a line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Clients that report every reconnection; what matters of it our own loops say.
    for name in ("urllib3", "asyncio", "aiohttp", "clickhouse_connect"):
        logging.getLogger(name).setLevel(logging.WARNING)
