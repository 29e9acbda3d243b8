"""What `pipeline dead-letters` understands and shows."""

import json
from typing import Any, cast

import pytest

from pipeline.commands.dead_letters import list_, replay, summary, whole
from pipeline.commands.letters import Wanted
from pipeline.domain.records import DeadLetter
from pipeline.topology import resource


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
        (Wanted(names=frozenset({EXHAUSTED["dead_letter_id"]})), (True, False)),
        (Wanted(names=frozenset({str(EXHAUSTED["message_id"]), "x"})), (True, False)),
        (Wanted(names=frozenset({"x"})), (False, False)),
    ],
)
def test_a_filter_keeps_what_it_names(wanted: Wanted, fits: tuple[bool, bool]) -> None:
    assert (wanted.fits(EXHAUSTED), wanted.fits(UNREADABLE)) == fits


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
    assert replay(limit=0) == 2
    assert "--limit: 0 is no count; give 1 or more" in capsys.readouterr().err
