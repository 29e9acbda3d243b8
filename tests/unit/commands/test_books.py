"""The books balance only when they do: each check on hand-made figures, and its negative."""

from collections.abc import Iterable
from typing import Any, cast

import pytest

from pipeline.commands import books
from pipeline.commands.books import Problem, Report
from pipeline.domain.records import Ledger


def ledger(**counts: int) -> Ledger:
    found: dict[str, Any] = {
        "record_version": 1,
        "tenant": "",
        "partition": 0,
        "positions": {"accepted.urgent": 10},
        **dict.fromkeys(books.COUNTS, 0),
    }
    return cast(Ledger, found | counts)


GOOD = ledger(opened=6, duplicates=2, repeats=1, refused=1, settled=4, open=2)


def texts(problems: Iterable[Problem]) -> list[str]:
    return [problem.text for problem in problems]


def test_every_accepted_event_is_in_the_ledger() -> None:
    assert texts(books.check_accepted({0: GOOD}, {0: 9}, {})) == []


def test_a_repeat_of_ours_may_be_in_any_count_of_the_ledger() -> None:
    """One that repeats a refused message is refused again; its row stands there once."""
    twice = ledger(opened=6, duplicates=2, repeats=0, refused=2)
    assert texts(books.check_accepted({0: twice}, {0: 9}, {0: 1})) == []
    assert texts(books.check_accepted({0: twice}, {0: 9}, {}))


@pytest.mark.parametrize("rows", [0, 8, 10, 11])
def test_another_number_of_rows_is_a_problem(rows: int) -> None:
    (problem,) = books.check_accepted({0: GOOD}, {0: rows}, {})
    assert problem.partition == 0
    assert f"{rows} accepted events" in problem.text
    assert "opened 6" in problem.text


def test_rows_of_a_task_without_a_ledger_are_a_problem() -> None:
    assert texts(books.check_accepted({}, {3: 1}, {}))
    assert texts(books.check_accepted({}, {3: 0}, {})) == []


def test_opened_is_settled_and_open() -> None:
    assert texts(books.check_opened({0: GOOD})) == []
    assert texts(books.check_opened({0: ledger(opened=6, settled=4, open=1)}))
    assert texts(books.check_opened({0: ledger(opened=6, settled=7, open=-1)}))


def test_outcomes_are_what_is_settled() -> None:
    assert texts(books.check_outcomes({0: GOOD}, {0: GOOD}, {0: 4})) == []
    assert texts(books.check_outcomes({0: GOOD}, {0: GOOD}, {0: 3}))
    assert texts(books.check_outcomes({0: GOOD}, {0: GOOD}, {0: 5}))
    assert texts(books.check_outcomes({}, {}, {1: 1}))


def test_outcomes_may_be_written_while_we_look() -> None:
    later = ledger(opened=6, settled=6, open=0)
    found = {
        rows: texts(books.check_outcomes({0: GOOD}, {0: later}, {0: rows})) for rows in range(8)
    }
    assert [rows for rows, problems in found.items() if not problems] == [4, 5, 6]


def test_a_record_without_a_row_is_named() -> None:
    kafka = {f"e{number:02}": number % 2 for number in range(60)}
    problems = list(books.check_sets("failed", kafka, {"e00": 0}))
    assert [(p.topic, p.partition, p.text) for p in problems] == [
        ("failed", 0, "29 records have no row in ClickHouse"),
        ("failed", 1, "30 records have no row in ClickHouse"),
    ]
    assert problems[0].ids[0] == "e02"
    assert all(len(problem.ids) == books.SHOWN for problem in problems)
    assert list(books.check_sets("failed", kafka, kafka)) == []


def test_a_row_without_a_record_is_named() -> None:
    (problem,) = books.check_strangers("failed", {"e1": 0, "e2": 1}, {"e1": 0})
    assert (problem.partition, problem.ids) == (1, ("e2",))
    assert list(books.check_strangers("failed", {"e1": 0}, {"e1": 0})) == []


def test_messages_are_those_that_were_opened() -> None:
    assert texts(books.check_messages({0: GOOD}, 6, 2, ())) == []
    assert texts(books.check_messages({0: GOOD}, 7, 3, ())) == []
    assert texts(books.check_messages({0: GOOD}, 5, 1, ()))
    assert texts(books.check_messages({0: GOOD}, 8, 3, ()))


def test_no_more_messages_lack_an_outcome_than_are_open() -> None:
    assert texts(books.check_messages({0: GOOD}, 6, 3, ())) == []
    assert texts(books.check_messages({0: GOOD}, 6, 4, ()))


def test_an_outcome_of_a_message_that_was_never_accepted_is_named() -> None:
    (problem,) = books.check_messages({0: GOOD}, 6, 2, ["m2", "m1"])
    assert problem.ids == ("m1", "m2")


def test_the_state_holds_as_many_open_messages_as_the_books_say() -> None:
    assert texts(books.check_states({0: GOOD}, {0: 2})) == []
    assert texts(books.check_states({0: GOOD}, {0: 1}))
    assert texts(books.check_states({0: GOOD}, {}))
    assert texts(books.check_states({}, {4: 1}))


def test_a_report_balances_when_it_has_no_problem() -> None:
    report = Report(totals=books.totals({0: GOOD, 1: GOOD}))
    assert report.balanced
    assert report.as_dict()["opened"] == 12
    report.problems.append(Problem("missing", "failed", 1, "1 record", ("e1",)))
    assert not report.balanced
    assert report.as_dict()["problems"][0]["ids"] == ["e1"]
