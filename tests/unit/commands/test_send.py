"""A request's story, told from topics that are read in any order."""

from typing import Any

from pipeline.commands.send import Story

PLACE = ("intake", 3, 7)
OURS = {"topic": "intake", "partition": 3, "offset": 7}
OTHER = {"topic": "intake", "partition": 3, "offset": 8}


def accepted(source: dict[str, Any], message: str) -> tuple[str, int, dict[str, Any]]:
    return ("accepted.normal", 10, {"message_id": message, "source": source})


def outcome(message: str, status: str) -> tuple[str, int, dict[str, Any]]:
    return ("outcomes", 30, {"message_id": message, "status": status, "channel": "sms"})


def test_a_message_is_followed_from_its_place_to_its_outcome():
    story = Story(PLACE)
    assert [line["event"] for line in story.hear(*accepted(OURS, "m1"))] == ["accepted"]
    sent = ("dispatched", 20, {"message_id": "m1", "channel": "sms", "source": OTHER})
    assert story.hear(*sent) == [{"at": 20, "event": "dispatched", "channel": "sms"}]
    story.hear(*outcome("m1", "delivered"))
    assert story.status == "delivered"
    assert story.message_id == "m1"


def test_other_messages_are_not_told():
    story = Story(PLACE)
    story.hear(*accepted(OURS, "m1"))
    assert story.hear(*accepted(OTHER, "m2")) == []
    assert story.hear(*outcome("m2", "failed")) == []
    assert story.status == ""


def test_what_is_read_before_the_message_is_known_is_not_lost():
    story = Story(PLACE)
    assert story.hear(*outcome("m1", "failed")) == []
    lines = story.hear(*accepted(OURS, "m1"))
    assert [line["event"] for line in lines] == ["accepted", "outcomes"]
    assert story.status == "failed"


def test_a_rejection_ends_the_story():
    story = Story(PLACE)
    value = {"message_id": "", "source": OURS, "reason": "invalid", "field": "to.phone"}
    (line,) = story.hear("rejected", 5, value)
    assert line == {"at": 5, "event": "rejected", "reason": "invalid", "field": "to.phone"}
    assert story.status == "rejected"


def test_a_repeat_of_a_known_message_hears_only_of_its_own_rejection():
    story = Story(PLACE)
    story.hear(*accepted(OURS, "m1"))
    stranger = {"message_id": "m1", "source": OTHER, "reason": "duplicate"}
    assert story.hear("rejected", 5, stranger) == []
    assert story.status == ""
    mine = {"message_id": "m1", "source": OURS, "reason": "duplicate"}
    story.hear("rejected", 6, mine)
    assert story.status == "rejected"
