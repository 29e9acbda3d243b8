"""Times as people type them."""

import pytest

from pipeline.commands.moments import read_moment
from pipeline.domain.errors import BadInput

NOW = 1_767_225_700_000


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("", 0),
        ("90m", NOW - 90 * 60_000),
        ("7d", NOW - 7 * 86_400_000),
        ("2026-01-01", 1_767_225_600_000),
        ("2026-01-01T01:00+01:00", 1_767_225_600_000),
    ],
)
def test_since_is_a_span_or_a_date(text: str, at: int) -> None:
    assert read_moment(text, NOW, "--since") == at


@pytest.mark.parametrize("text", ["yesterday", "0m", "5 minutes", "-3h", "2026-13-01"])
def test_since_that_is_neither_is_refused_with_the_cure(text: str) -> None:
    with pytest.raises(BadInput, match="--since: .*; give 90m"):
        read_moment(text, NOW, "--since")
