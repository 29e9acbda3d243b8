"""How reports are built and drawn."""

import io

import pytest
from rich.console import Console

from pipeline.commands.report_html import page
from pipeline.commands.report_questions import QUESTIONS
from pipeline.commands.report_rows import BARS, Completeness, build, shown
from pipeline.commands.report_text import as_csv, print_report

COMPLETE = Completeness(due=1000, heard=987, not_due=12, newest_at=1_767_225_600_000)


def _delivery(*rows, by=("channel",)):
    return build(QUESTIONS["delivery"], by, 0, rows, COMPLETE)


def test_rates_follow_from_counts_and_nothing_divides_by_zero():
    found = _delivery(("sms", 4, 3, 2, 1), ("voice", 0, 0, 0, 0))
    assert found.objects() == [
        {"channel": "sms", "handed_over": 4, "delivered": 3, "rate": 0.75, "complete": 0.5},
        {"channel": "voice", "handed_over": 0, "delivered": 0, "rate": None, "complete": None},
    ]
    assert [bar.length for bar in found.bars] == [0.75, 0.0]


def test_rows_stand_by_size_and_those_of_a_time_in_its_order():
    rows = [("b", 1, 1, 1, 1), ("a", 1, 1, 1, 1), ("c", 9, 1, 1, 1)]
    assert [row[0] for row in _delivery(*rows).rows] == ["c", "a", "b"]
    assert [row[0] for row in _delivery(*rows, by=("day",)).rows] == ["a", "b", "c"]


def test_a_picture_has_a_limit_and_a_table_has_none():
    found = _delivery(*((f"{n:03}", 1, 1, 1, 1) for n in range(100)))
    assert (len(found.bars), len(found.rows)) == (BARS, 100)


def test_a_funnel_is_one_picture_of_all_rows():
    rows = [("urgent", 6, 5, 4, 1, 1, 1), ("bulk", 4, 3, 1, 0, 1, 2)]
    found = build(QUESTIONS["funnel"], ("priority",), 0, rows, COMPLETE)
    assert [(bar.label, bar.length) for bar in found.bars] == [
        ("accepted", 1.0), ("handed over", 0.8), ("delivered", 0.5), ("read", 0.1),
        ("failed", 0.2), ("waiting", 0.3),
    ]  # fmt: skip


def test_completeness_in_words():
    assert COMPLETE.text == (
        "98.7 % of due receipts are in (987 of 1,000); 12 are not due yet."
        " The newest event is of 2026-01-01 00:00:00 UTC."
    )
    assert Completeness(0, 0, 5, 0).text == "No receipt is due yet; 5 may come. No event is stored."
    assert Completeness(0, 0, 0, 0).text == "No receipt is due in this range. No event is stored."


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("share", 1.0, "100.0 %"),
        ("share", 0.99999, "99.9 %"),  # not all of it
        ("share", None, ""),
        ("ms", 999, "999 ms"),
        ("ms", 61_250, "61.2 s"),
        ("money", 1234.5, "1,234.5000"),
        ("count", 12_345, "12,345"),
    ],
)
def test_values_as_people_read_them(kind, value, text):
    assert shown(kind, value) == text


def test_a_name_from_outside_is_text_wherever_it_is_shown():
    """A campaign's name is the caller's: it may look like markup."""
    found = _delivery(('<script>"x"</script>[bold]', 2, 1, 1, 1), by=("campaign",))
    text = page("<b>", [found])
    assert "<script>" not in text
    assert text.count("&lt;script&gt;") == 2
    assert "<b>" not in text
    console = Console(file=io.StringIO(), width=120)
    print_report(console, found)
    assert console.file.getvalue().count('<script>"x"</script>[bold]') == 2  # type: ignore[attr-defined]
    assert as_csv(found).splitlines()[1].startswith('"<script>""x""</script>[bold]",2,1,')


def test_bars_are_as_long_as_they_say():
    found = _delivery(("half", 2, 1, 1, 1), ("all", 4, 4, 1, 1))
    console = Console(file=io.StringIO(), width=120)
    print_report(console, found)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    drawn = {line.split()[0]: line.count("█") for line in lines if "█" in line}
    assert drawn == {"all": 30, "half": 15}
    assert 'class="part" x="0" y="62" width="50.00%"' in page("t", [found])


def test_an_empty_report_is_a_page_too():
    assert "Nothing in this range." in page("t", [_delivery()])
