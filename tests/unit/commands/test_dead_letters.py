"""What `pipeline dead-letters` understands and shows."""

import json
from typing import Any, cast

import pytest

from pipeline.commands.dead_letters import Wanted, list_, read_since, summary, whole
from pipeline.domain.errors import BadInput
from pipeline.domain.records import DeadLetter
from pipeline.topology import resource

NOW = 1_767_225_700_000


def sample(name: str) -> DeadLetter:
    found = json.loads((resource("schemas") / "examples" / "DeadLetter" / name).read_text())
    for raw in ("raw_key", "raw_value"):
        if found[raw] is not None:
            found[raw] = found[raw].encode("latin-1")
    return cast(DeadLetter, found)


EXHAUSTED, UNREADABLE = sample("exhausted.json"), sample("unreadable.json")


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (Wanted(), (True, True)),
        (Wanted(since=1_767_225_601_000), (True, False)),
        (Wanted(channel="email"), (True, False)),
        (Wanted(channel="sms"), (False, False)),
        (Wanted(error_class="recipient"), (True, False)),
        (Wanted(reason="EVERY STEP"), (True, False)),
        (Wanted(reason="schema"), (False, True)),
        (Wanted(category="undecodable"), (False, True)),
        (Wanted(tenant="acme"), (True, False)),
    ],
)
def test_a_filter_keeps_what_it_names(wanted: Wanted, fits: tuple[bool, bool]) -> None:
    assert (wanted.fits(EXHAUSTED), wanted.fits(UNREADABLE)) == fits


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
    assert read_since(text, NOW) == at


@pytest.mark.parametrize("text", ["yesterday", "0m", "5 minutes", "-3h", "2026-13-01"])
def test_since_that_is_neither_is_refused_with_the_cure(text: str) -> None:
    with pytest.raises(BadInput, match="--since: .*; give 90m"):
        read_since(text, NOW)


def test_the_list_shows_no_content_and_no_bytes() -> None:
    shown = json.dumps([summary(EXHAUSTED), summary(UNREADABLE)])
    assert "maria@example.com" not in shown
    assert "Your invoice" not in shown
    assert "{cut off" not in shown
    assert "every step of the route failed" in shown


def test_show_has_everything_and_bytes_as_text_where_they_are_text() -> None:
    letter: dict[str, Any] = {**UNREADABLE, "raw_key": b"key", "raw_value": b'{"to": 1}\n'}
    assert whole(letter, as_json=False)["raw_value"] == '{"to": 1}\n'
    assert whole(letter, as_json=True)["raw_value_base64"] == "eyJ0byI6IDF9Cg=="
    assert whole(UNREADABLE, as_json=False)["raw_value_base64"] == "wwEAe2N1dCBvZmY="
    assert whole(EXHAUSTED, as_json=False)["message"]["to"]["email"] == "maria@example.com"


def test_an_unknown_class_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert list_(error_class="bad") == 2
    assert "--class: 'bad' is no class; choose one of transient" in capsys.readouterr().err
