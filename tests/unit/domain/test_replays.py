"""Which dead letters still matter, and what they become."""

import json
from typing import Any, cast

import pytest

from pipeline.domain import ids
from pipeline.domain.records import DeadLetter
from pipeline.domain.replays import WHY, Known, replay, verdict
from pipeline.topology import resource

LETTER = cast(
    DeadLetter,
    json.loads((resource("schemas") / "examples" / "DeadLetter" / "exhausted.json").read_text()),
)
assert LETTER["message"] is not None
NAME = str(LETTER["message_id"])
DEADLINE = LETTER["message"]["deadline"]


def letter(**message: Any) -> DeadLetter:
    """The example, with another message; its attempts are in no doubt."""
    assert LETTER["message"] is not None
    attempts = [{**one, "in_doubt": False} for one in LETTER["attempts"]]
    return cast(
        DeadLetter, {**LETTER, "attempts": attempts, "message": {**LETTER["message"], **message}}
    )


def doubted(on_doubt: str) -> DeadLetter:
    found = letter(on_doubt=on_doubt)
    return {**found, "attempts": [{**found["attempts"][0], "in_doubt": True}]}


@pytest.mark.parametrize(
    ("asked", "known", "now", "said"),
    [
        (letter(), Known(), DEADLINE - 1, ""),
        (letter(), Known(), DEADLINE, "expired"),
        (letter(), Known(reached={NAME}), 0, "delivered"),
        (letter(replay_of="first"), Known(reached={"first"}), 0, "delivered"),
        (letter(), Known(replayed={NAME}, reached={NAME}), DEADLINE, "replayed"),
        (letter(on_doubt="wait"), Known(in_doubt={NAME}), 0, "in_doubt"),
        (doubted("wait"), Known(), 0, "in_doubt"),
        (doubted("resend"), Known(), 0, ""),
        ({**letter(), "message": None}, Known(), 0, "no_message"),
    ],
)
def test_only_what_still_matters_is_replayed(
    asked: DeadLetter, known: Known, now: int, said: str
) -> None:
    found = verdict(asked, known, now)
    assert found == said
    assert not found or WHY[found]


def test_what_is_in_doubt_is_replayed_when_somebody_says_so() -> None:
    assert verdict(doubted("wait"), Known(), 0, in_doubt=True) == ""


def test_a_replay_is_a_message_of_its_own_with_the_same_deadline_and_a_name_for_ever() -> None:
    place: Any = {"topic": "dead-letter", "partition": 3, "offset": 9}
    first, again = replay(LETTER, place, 1_000), replay(LETTER, place, 2_000)
    assert first["message_id"] == again["message_id"] == ids.replay_id(LETTER["dead_letter_id"])
    assert first["message_id"] != NAME
    assert (first["replay_of"], first["source"], first["accepted_at"]) == (NAME, place, 1_000)
    assert (first["deadline"], first["idempotency_hash"]) == (DEADLINE, None)
    assert LETTER["message"] is not None
    kept = {"to", "content", "route", "priority", "campaign", "labels", "recipient_key", "tenant"}
    assert all(first[name] == LETTER["message"][name] for name in kept)  # type: ignore[literal-required]
    with pytest.raises(ValueError, match="without a message"):
        replay({**LETTER, "message": None}, place, 0)
