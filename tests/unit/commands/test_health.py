"""What the doctor thinks of what it finds."""

import pytest

from pipeline.commands import health
from pipeline.commands.health import Finding, Part
from pipeline.commands.standing import Row, Trouble
from pipeline.topology import CATALOGUE

SESSION = "group.min.session.timeout.ms"
CLEANUP = "transaction.abort.timed.out.transaction.cleanup.interval.ms"


def brief(found: list[Finding]) -> list[tuple[str, str]]:
    assert all(bool(one.cure) == (one.state != "ok") for one in found)
    return [(one.state, one.text) for one in found]


def test_broker_settings_that_are_small_enough_are_fine() -> None:
    exact = dict(CATALOGUE.broker)
    assert {SESSION, CLEANUP} <= set(exact)
    assert brief(
        health.broker_settings(exact, {**exact, "offsets.retention.minutes": "10080"})
    ) == [("ok", "as topics.yaml asks")]
    assert brief(health.broker_settings(exact, dict.fromkeys(exact, "1"))) == [
        ("ok", "as topics.yaml asks")
    ]


def test_a_broker_setting_that_is_too_large_is_named_with_its_value() -> None:
    found = {SESSION: "30000", CLEANUP: "10000", "offsets.retention.minutes": "60"}
    states = brief(health.broker_settings(dict(CATALOGUE.broker), found))
    assert [state for state, _ in states] == ["fail", "warn", "fail"]
    assert f"{SESSION} is 30000: a killed worker's tasks wait for longer" in states[0]
    assert f"{CLEANUP} is 10000" in states[1]
    ((state, text),) = brief(health.broker_settings(dict(CATALOGUE.broker), None))
    assert (state, text) == ("warn", "the cluster does not tell them")


def test_replication_is_judged_by_leaders_copies_in_sync_and_copies() -> None:
    whole = [Part("a", number, 1, 3, 3) for number in range(2)]
    assert brief(health.replication(3, whole))[0][0] == "ok"
    assert brief(health.replication(1, [Part("a", 0, 1, 1, 1)]))[0][0] == "ok"
    wrong = [*whole, Part("b", 0, -1, 3, 0), Part("c", 0, 1, 3, 2), Part("d", 4, 1, 1, 1)]
    assert brief(health.replication(3, wrong)) == [
        ("fail", "no leader: b[0]"),
        ("fail", "2 partitions have copies out of sync: b[0], c[0]"),
        ("warn", "1 partitions have fewer than 3 copies: d[4]"),
    ]


@pytest.mark.parametrize(
    ("ahead", "state", "text"),
    [
        (0, "ok", "0 ms ahead of ours"),
        (-900, "ok", "900 ms behind ours"),
        (1_500, "warn", "1.5 s ahead of ours"),
        (-120_000, "fail", "2m 0s behind ours"),
    ],
)
def test_a_clock_that_differs_fails_at_two_seconds(ahead: int, state: str, text: str) -> None:
    assert brief([health.clock("it", ahead)]) == [(state, text)]


@pytest.mark.parametrize(
    ("free", "total", "state", "text"),
    [
        (50 << 30, 100 << 30, "ok", "50 GiB free of 100 GiB"),
        (10 << 30, 100 << 30, "warn", "10 GiB free of 100 GiB"),
        (3 << 40, 100 << 40, "fail", "3.0 TiB free of 100.0 TiB"),
        (0, 0, "ok", "0 B free of 0 B"),
    ],
)
def test_a_disk_fails_when_it_is_nearly_full(free: int, total: int, state: str, text: str) -> None:
    assert brief([health.disk("it", free, total)]) == [(state, text)]


@pytest.mark.parametrize(
    ("version", "state"),
    [("26.4.1.1", "ok"), ("25.8.2", "ok"), ("25.7.9", "warn"), ("24.12", "warn"), ("odd", "warn")],
)
def test_an_old_clickhouse_is_a_warning(version: str, state: str) -> None:
    assert health.clickhouse_version(version).state == state


ONE, TWO = (1, ("001_a.sql", "x")), (2, ("002_b.sql", "y"))


@pytest.mark.parametrize(
    ("applied", "state", "text"),
    [
        (dict([ONE, TWO]), "ok", "2 files applied"),
        (dict([ONE]), "warn", "not applied: 002_b.sql"),
        (None, "fail", "they were never made"),
        (dict([ONE, TWO, (3, ("003_c.sql", "z"))]), "fail", "newer than this program (003_c.sql)"),
        ({1: ("001_a.sql", "changed"), 2: TWO[1]}, "fail", "001_a.sql was changed after"),
    ],
)
def test_the_tables_are_of_this_version(applied: object, state: str, text: str) -> None:
    found = health.migrations(dict([ONE, TWO]), applied)  # type: ignore[arg-type]
    assert found.state == state
    assert text in found.text


def test_topics_that_differ_fail_with_the_command_that_mends_them() -> None:
    assert brief(health.topics([], [])) == [("ok", "as topics.yaml says")]
    problem, change = health.topics(["x has 3 partitions"], ["create a", "b", "c", "d"])
    assert (problem.state, problem.text) == ("fail", "x has 3 partitions")
    assert change.text == "not as topics.yaml says: create a; b; c and 1 more"
    assert change.cure == "run pipeline topics apply"


def row(share: float) -> Row:
    return Row("sink", "", 1, 5, 3_600_000, "delivered[1]@7", share)


def test_lag_fails_at_half_of_the_retention_and_warns_at_a_quarter() -> None:
    assert brief(health.lag([row(0.0), row(0.249)]))[0][0] == "ok"
    said = "sink: delivered[1]@7 has waited 1h 0m, {} of its retention"
    assert brief(health.lag([row(0.1), row(0.25), row(0.5)])) == [
        ("warn", said.format("25%")),
        ("fail", said.format("50%")),
    ]
    assert brief(health.lag([]))[0][0] == "ok"


def test_what_holds_a_partition_up_fails() -> None:
    assert brief(health.stages([]))[0][0] == "ok"
    assert brief(health.stages([Trouble("fallback", "nobody works", "start it")])) == [
        ("fail", "fallback: nobody works")
    ]
