"""Times as people type them."""

import re
from datetime import UTC, datetime

from pipeline.domain.errors import BadInput
from pipeline.topology import duration_ms


def read_moment(text: str, now: int, option: str) -> int:
    """A time in the past, in milliseconds since the epoch; 0 for an empty text.

    Raises:
        BadInput: it is neither a span nor a date; names `option`.
    """
    if not text:
        return 0
    if re.fullmatch(r"[0-9]+[smhd]", text):
        try:
            return now - duration_ms(text)
        except ValueError:
            pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(
            option, f"{text!r} is no time", "give 90m, 24h, 7d or 2026-01-31T10:00"
        ) from None
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)
