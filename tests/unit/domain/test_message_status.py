"""Status and story from events: the outcome decides, and repeats leave no trace."""

from typing import Any

import pytest

from pipeline.domain.message_status import EVENTS_TOLD, Seen, status_of

ID = "23cfec37-ad82-566a-b792-f8f6f502a25c"
NOW = 1_800_000_000_000


def seen(kind: str, at: int = 0, **said: Any) -> Seen:
    blank: dict[str, Any] = {
        **dict.fromkeys(
            ("channel", "provider", "status", "result", "error_class", "code", "reason"), ""
        ),
        "step": 0,
        "retry_at": None,
        "deadline": None,
        "cost": 0.0,
        "currency": "",
    }
    return Seen(**{**blank, "kind": kind, "occurred_at": NOW + at, **said})


ACCEPTED = seen("accepted", deadline=NOW + 60_000)
DISPATCHED = seen("dispatched", 100, channel="sms", provider="a", result="accepted")
OUTCOME = seen(
    "outcomes", 300, channel="sms", provider="a", status="delivered", cost=0.05, currency="EUR"
)


def told(*events: Seen) -> dict[str, Any]:
    found = status_of(ID, events)
    assert found is not None
    return dict(found)


def test_nothing_known_is_nothing_told():
    assert status_of(ID, []) is None
    assert status_of(ID, [seen("rejected", reason="duplicate")]) is None


@pytest.mark.parametrize(
    ("events", "status", "waits_for"),
    [
        ((ACCEPTED,), "accepted", "turn"),
        ((ACCEPTED, DISPATCHED), "dispatched", "receipt"),
        ((ACCEPTED, seen("failed", 50, channel="sms")), "accepted", "next_step"),
        ((ACCEPTED, DISPATCHED, seen("timed_out", 200, channel="sms")), "dispatched", "next_step"),
        ((ACCEPTED, DISPATCHED, seen("delivered", 200)), "delivered", "outcome"),
        ((ACCEPTED, DISPATCHED, seen("read", 200)), "delivered", "outcome"),
        ((DISPATCHED,), "dispatched", "receipt"),  # the store is behind with one topic
    ],
)
def test_an_open_message_says_what_it_waits_for(
    events: tuple[Seen, ...], status: str, waits_for: str
):
    found = told(*events)
    assert (found["status"], found["final"], found["waits_for"]) == (status, False, waits_for)
    assert found["waits_until"] is None
    assert found["settled_at"] is None


def test_a_retry_says_until_when():
    found = told(ACCEPTED, seen("failed", 50, channel="sms", retry_at=NOW + 2_500))
    assert (found["waits_for"], found["waits_until"]) == ("retry", "2027-01-15T08:00:02.500Z")


def test_the_outcome_has_the_last_word_whatever_comes_after():
    late = seen("late_receipts", 900, channel="email", provider="b")
    found = told(ACCEPTED, DISPATCHED, OUTCOME, late)
    assert found["status"] == "delivered"
    assert found["final"] is True
    assert (found["channel"], found["provider"], found["cost"]) == ("sms", "a", 0.05)
    assert found["waits_for"] is None
    assert found["settled_at"] == "2027-01-15T08:00:00.300Z"
    assert found["deadline"] == "2027-01-15T08:01:00.000Z"
    assert [line["event"] for line in found["events"]] == [
        "accepted", "dispatched", "outcomes", "late_receipts",
    ]  # fmt: skip
    failed = told(ACCEPTED, seen("outcomes", 1, status="failed", reason="deadline"))
    assert (failed["status"], failed["reason"]) == ("failed", "deadline")


def test_an_opt_out_is_an_end_and_a_duplicate_is_not():
    refused = told(ACCEPTED, seen("rejected", 5, reason="opted_out"))
    assert (refused["status"], refused["final"], refused["reason"]) == (
        "rejected", True, "opted_out",
    )  # fmt: skip
    repeated = told(
        ACCEPTED, DISPATCHED, seen("accepted", 400), seen("rejected", 401, reason="duplicate")
    )
    assert repeated["status"] == "dispatched"
    assert repeated["accepted_at"] == "2027-01-15T08:00:00.000Z"
    assert [line["event"] for line in repeated["events"]] == ["accepted", "dispatched"]


def test_the_story_says_what_an_event_says_and_is_bounded():
    line = told(ACCEPTED, DISPATCHED)["events"][1]
    assert line == {
        "at": "2027-01-15T08:00:00.100Z",
        "event": "dispatched",
        "step": 0,
        "channel": "sms",
        "provider": "a",
        "result": "accepted",
    }
    many = told(ACCEPTED, *[seen("failed", n) for n in range(EVENTS_TOLD + 10)], OUTCOME)
    assert len(many["events"]) == EVENTS_TOLD
    assert many["events"][-1]["event"] == "outcomes"
