"""The worked queries of docs/sql/ and the two views answer what plain Python counts."""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.sql.conftest import QUERIES, Asked
from tests.sql.counted import Attempt, Life, counts, day, exact, grouped, moment, once
from tests.sql.made import DAY

HANDED = ("accepted", "unknown")


def _attempts(lives: Iterable[Life]) -> list[Attempt]:
    return [attempt for life in lives for attempt in life.attempts]


def _latencies(lives: Iterable[Life]) -> list[int]:
    return [life.outcome["latency_ms"] for life in lives if life.outcome]


def _delivered(lives: Iterable[Life]) -> list[Life]:
    return [life for life in lives if life.status == "delivered"]


def test_every_query_is_tested_and_says_which_time_it_goes_by() -> None:
    names = [path.name for path in sorted(QUERIES.glob("*.sql"))]
    tested = re.findall(r'asked\.query\("([^"]+)"\)', Path(__file__).read_text())
    assert names == sorted(set(tested))
    assert len(names) == 10
    for name in names:
        head = [line for line in (QUERIES / name).read_text().splitlines() if line[:2] == "--"]
        assert any(line.startswith(("-- Cohort: ", "-- By occurred time")) for line in head), name


def test_what_was_made_has_every_turn_in_it(asked: Asked) -> None:
    """Or the tests below would compare nothing with nothing."""
    assert {life.status for life in asked.recent} == {
        "delivered", "failed", "dispatched", "rejected",
    }  # fmt: skip
    assert len(asked.lives) > len(asked.recent) > 300
    assert {attempt.receipt for attempt in _attempts(asked.recent)} == {
        "", "read", "delivered", "failed",
    }  # fmt: skip
    assert sum(len(life.hops) for life in asked.recent) > 50
    assert len(once(asked.records)) == len(asked.records)
    words = [value for topic, value in asked.records if topic in ("dispatched", "failed")]
    said = [attempt["attempt_id"] for word in words for attempt in word["attempts"]]
    assert len(set(said)) < len(said)


def test_delivery_rate(asked: Asked) -> None:
    found = []
    handed = [a for a in _attempts(asked.recent) if a.what["result"] in HANDED]
    key = lambda a: (day(a.event["accepted_at"]), a.event["channel"], a.event["country"])  # noqa: E731
    for cell, attempts in grouped(handed, key).items():
        messages = {a.event["message_id"] for a in attempts}
        arrived = {
            a.event["message_id"] for a in attempts if a.receipt in ("delivered", "read")
        }  # fmt: skip
        heard = sum(1 for a in attempts if a.receipt)
        due = max(1, sum(1 for a in attempts if a.due))
        rate = round(len(arrived) / len(messages), 4)
        found.append((*cell, len(messages), len(arrived), rate, round(heard / due, 4)))
    assert asked.query("01_delivery_rate.sql") == found


def test_funnel(asked: Asked) -> None:
    found = []
    taken = [life for life in asked.recent if life.status != "rejected"]
    for priority, lives in grouped(taken, lambda life: life.first["priority"]).items():
        done = _delivered(lives)
        found.append(
            (
                priority,
                len(lives),
                sum(1 for life in lives if life.events["dispatched"]),
                len(done),
                sum(1 for life in done if life.events["read"]),
                sum(1 for life in lives if life.status == "failed"),
                sum(1 for life in lives if life.status in ("accepted", "dispatched")),
            )
        )
    assert asked.query("02_funnel.sql") == found


def test_fallback_and_what_it_saved(asked: Asked) -> None:
    hops = [(life, hop) for life in asked.recent for hop in life.hops]
    saved: dict[Any, int] = defaultdict(int)
    for life, (start, end, why, to) in hops:
        won = life.outcome is not None and life.status == "delivered"
        saved[start, end, why] += bool(won and life.outcome and life.outcome["step"] >= to)
    assert asked.query("03_fallback.sql") == [
        (*hop, count, saved[hop]) for hop, count in counts(hop[:3] for _, hop in hops)
    ]
    assert sum(saved.values()) > 10


def test_latency_by_priority(asked: Asked) -> None:
    found = []
    for priority, lives in grouped(
        _delivered(asked.recent), lambda life: life.first["priority"]
    ).items():
        times = _latencies(lives)
        found.append((priority, len(lives), *(exact(times, share) for share in (0.5, 0.95, 0.99))))
    assert asked.query("04_latency.sql") == found


def test_errors_by_class(asked: Asked) -> None:
    wrong = [
        (
            attempt.event["channel"],
            attempt.what["provider"],
            attempt.what["error_class"] or attempt.refusal["error_class"],
            attempt.what["code"] or attempt.refusal["code"],
        )
        for attempt in _attempts(asked.lives.values())
        if attempt.what["started_at"] > asked.now - 7 * DAY
        and (attempt.what["result"] != "accepted" or attempt.receipt == "failed")
    ]
    assert asked.query("05_errors.sql") == [(*cell, count) for cell, count in counts(wrong)]


def test_slowest_countries(asked: Asked) -> None:
    found = []
    for country, lives in grouped(
        _delivered(asked.recent), lambda life: life.first["country"]
    ).items():
        times = _latencies(lives)
        moved = sum(1 for life in lives if life.hops)
        found.append((country, len(lives), exact(times, 0.5), exact(times, 0.95), moved))
    found = [row for row in found if row[1] >= 10]
    found.sort(key=lambda row: (-row[3], row[0]))
    assert asked.query("06_slowest_countries.sql") == found[:10]
    assert found


def test_late_and_double_deliveries(asked: Asked) -> None:
    late = [
        event for event in once(asked.records)
        if event["kind"] == "late_receipts" and event["occurred_at"] > asked.now - 7 * DAY
    ]  # fmt: skip
    found = []
    for channel, events in grouped(late, lambda event: event["channel"]).items():
        twice = [event for event in events if event["reached_before"]]
        reached = sum(1 for event in events if event["reason"] in ("delivered", "read"))
        cost = round(sum(event["cost"] for event in twice), 6)
        people = len({event["message_id"] for event in twice})
        found.append((channel, "EUR", len(events), reached, people, cost))
    assert [(*row[:5], float(row[5])) for row in asked.query("07_late_and_double.sql")] == found
    assert sum(row[4] for row in found) > 0


def test_cost_of_a_delivered_message(asked: Asked) -> None:
    paid: dict[str, float] = defaultdict(float)
    for attempt in _attempts(asked.recent):
        if attempt.what["currency"]:
            paid[attempt.event["channel"]] += attempt.what["cost"]
    found = []
    won = grouped(_delivered(asked.recent), lambda life: (life.outcome or {}).get("channel", ""))
    for channel, cost in sorted(paid.items()):
        many = len(won.get(channel, ()))
        found.append((channel, "EUR", round(cost, 6), many, round(round(cost, 6) / many, 6)))
    answer = [(*row[:2], float(row[2]), *row[3:]) for row in asked.query("08_cost.sql")]
    assert answer == found


def test_dead_letters_by_reason(asked: Asked) -> None:
    letters = [
        event for event in once(asked.records)
        if event["kind"] == "dead_letter" and event["occurred_at"] > asked.now - 7 * DAY
    ]  # fmt: skip
    cell = lambda e: (e["stage"], e["category"], e["reason"], e["channel"])  # noqa: E731
    times = {
        key: (min(e["occurred_at"] for e in found), max(e["occurred_at"] for e in found))
        for key, found in grouped(letters, cell).items()
    }
    assert asked.query("09_dead_letters.sql") == [
        (*key, count, moment(times[key][0]), moment(times[key][1]))
        for key, count in counts(map(cell, letters))
    ]


def test_the_story_of_one_message(asked: Asked) -> None:
    settled = [life for life in asked.recent if life.outcome]
    slowest = min(settled, key=lambda life: (-_latencies([life])[0], life.first["message_id"]))
    told = [event for events in slowest.events.values() for event in events]
    found = asked.query("10_story.sql")
    said = [(row[0], row[1], row[2], row[3]) for row in found]
    assert sorted(said) == sorted(
        (
            moment(event.get("occurred_at", event.get("accepted_at"))),
            event["kind"],
            event.get("step", 0),
            event.get("channel", ""),
        )
        for event in told
    )
    assert [row[0] for row in found] == sorted(row[0] for row in found)
    assert len(found) >= 4


def test_messages_has_a_row_for_each_message(asked: Asked) -> None:
    answer = {
        row["message_id"]: row
        for row in asked.ask("SELECT * FROM messages ORDER BY tenant, message_id")
    }
    assert answer.keys() == asked.lives.keys()
    for name, life in asked.lives.items():
        row, outcome, first = answer[name], life.outcome or {}, life.first
        assert row["status"] == life.status
        for field in ("priority", "country", "tenant", "recipient_key", "labels"):
            assert row[field] == first[field]
        assert row["campaign"] == (first["campaign"] or "")
        assert row["accepted_at"] == moment(first["accepted_at"])
        for field, kind in (
            ("dispatched_at", "dispatched"), ("delivered_at", "delivered"), ("read_at", "read"),
            ("timed_out_at", "timed_out"), ("settled_at", "outcomes"), ("late_at", "late_receipts"),
        ):  # fmt: skip
            at = life.first_at(kind)
            assert row[field] == (None if at is None else moment(at)), field
        if outcome:
            for field in ("channel", "provider", "reason", "step", "latency_ms"):
                assert row[field] == outcome[field]
        assert row["steps"] == [step for step, _ in life.steps]
        assert row["channels"] == [channel for _, channel in life.steps]
        assert row["left_for"] == [hop[2] for hop in life.hops]
        assert row["fallbacks"] == len(life.hops)
        assert row["fallback_reason"] == (life.hops[0][2] if life.hops else "")
        assert row["attempts"] == len(life.attempts)
        assert float(row["cost"]) == pytest.approx(life.cost, abs=1e-9)
        twice = [e for e in life.events["late_receipts"] if e["reached_before"]]
        assert row["reached_twice"] == len(twice)
        assert float(row["cost_twice"]) == pytest.approx(sum(e["cost"] for e in twice), abs=1e-9)
        repeats = [e for e in life.events["rejected"] if e["code"] == "duplicate"]
        assert row["duplicates"] == len(repeats)


def test_attempts_has_a_row_for_each_attempt(asked: Asked) -> None:
    answer = {row["attempt_id"]: row for row in asked.ask("SELECT * FROM attempts")}
    wanted = {a.what["attempt_id"]: a for a in _attempts(asked.lives.values())}
    assert answer.keys() == wanted.keys()
    for name, attempt in wanted.items():
        row = answer[name]
        for field in ("provider", "requests", "latency_ms", "result", "in_doubt", "resent"):
            assert row[field] == attempt.what[field]
        for field in ("error_class", "code", "provider_message_id"):
            assert row[field] == (attempt.what[field] or "")
        for field in ("message_id", "command_id", "step", "try_no", "channel", "country"):
            assert row[field] == attempt.event[field]
        assert row["started_at"] == moment(attempt.what["started_at"])
        assert float(row["cost"]) == attempt.what["cost"]
        assert row["receipt"] == attempt.receipt
        assert bool(row["receipt_due"]) == attempt.due
        for field, kind in (("delivered_at", "delivered"), ("read_at", "read"), ("refused_at", "failed")):  # fmt: skip
            times = [said["occurred_at"] for said in attempt.receipts if said["kind"] == kind]
            assert row[field] == (moment(min(times)) if times else None)
