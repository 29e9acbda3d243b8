"""`pipeline report` says what plain Python counts, in every format, and says plainly what it cannot."""

import csv
import io
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pipeline.commands.report import gather, report
from pipeline.commands.report_questions import QUESTIONS
from pipeline.runtime.clickhouse import Store
from tests.sql.conftest import Asked
from tests.sql.counted import Attempt, day, exact, grouped

SINCE = "7d"


@pytest.fixture(autouse=True)
def _connected(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLICKHOUSE_URL", asked.url)


@pytest.fixture
def rows(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[dict[str, Any]]]:
    def found(name: Any, by: str = "") -> list[dict[str, Any]]:
        assert report(name, since=SINCE, by=by, as_json=True) == 0
        return list(json.loads(capsys.readouterr().out)["rows"])

    return found


def _handed(asked: Asked) -> list[Attempt]:
    return [a for life in asked.recent for a in life.attempts if a.what["result"] != "refused"]


def test_delivery_over_days(asked: Asked, rows: Any) -> None:
    found = []
    for at, attempts in grouped(_handed(asked), lambda a: day(a.event["accepted_at"])).items():
        messages = {a.event["message_id"] for a in attempts}
        arrived = {a.event["message_id"] for a in attempts if a.receipt in ("delivered", "read")}
        due, heard = sum(a.due for a in attempts), sum(1 for a in attempts if a.receipt)
        found.append({
            "day": at, "handed_over": len(messages), "delivered": len(arrived),
            "rate": round(len(arrived) / len(messages), 6), "complete": round(heard / due, 6),
        })  # fmt: skip
    assert rows("delivery", by="day") == found


def test_funnel_by_tenant(asked: Asked, rows: Any) -> None:
    taken = [life for life in asked.recent if life.status != "rejected"]
    found = {
        tenant: [
            len(lives),
            sum(life.status == "delivered" for life in lives),
            sum(life.status == "failed" for life in lives),
            sum(life.status == "dispatched" for life in lives),
        ]
        for tenant, lives in grouped(taken, lambda life: life.first["tenant"]).items()
    }
    assert {
        row["tenant"]: [row["accepted"], row["delivered"], row["failed"], row["waiting"]]
        for row in rows("funnel", by="tenant")
    } == found


def test_fallback_by_reason(asked: Asked, rows: Any) -> None:
    hops = [(hop[2], life, hop[3]) for life in asked.recent for hop in life.hops]
    found = {
        why: [
            len(moved),
            sum(
                life.status == "delivered" and (life.outcome or {})["step"] >= to
                for _, life, to in moved
            ),
        ]
        for why, moved in grouped(hops, lambda hop: hop[0]).items()
    }
    answer = rows("fallback", by="why")
    assert {row["why"]: [row["messages"], row["saved"]] for row in answer} == found
    assert [row["messages"] for row in answer] == sorted(
        (row["messages"] for row in answer), reverse=True
    )


def test_latency_by_country(asked: Asked, rows: Any) -> None:
    done = [life for life in asked.recent if life.outcome and life.status == "delivered"]
    found = {}
    for country, lives in grouped(done, lambda life: life.first["country"]).items():
        times = [life.outcome["latency_ms"] for life in lives if life.outcome]
        found[country] = [len(lives), *(exact(times, share) for share in (0.5, 0.95, 0.99))]
    answer = rows("latency", by="country")
    assert {row["country"]: [*row.values()][1:] for row in answer} == found


def test_errors_by_channel_and_class(asked: Asked, rows: Any) -> None:
    start = asked.now - 7 * 86_400_000
    wrong = [
        a for life in asked.lives.values() for a in life.attempts
        if a.what["started_at"] > start and (a.what["result"] != "accepted" or a.receipt == "failed")
    ]  # fmt: skip
    key = lambda a: (a.event["channel"], a.what["error_class"] or a.refusal["error_class"])  # noqa: E731
    found = {
        cell: [
            len(attempts),
            len({a.event["message_id"] for a in attempts}),
            sum(a.what["in_doubt"] for a in attempts),
        ]
        for cell, attempts in grouped(wrong, key).items()
    }
    answer = rows("errors", by="channel, class")
    assert {(row["channel"], row["class"]): [*row.values()][2:] for row in answer} == found


def test_cost_is_never_summed_over_currencies(asked: Asked, rows: Any) -> None:
    cost: dict[str, float] = {}
    for life in asked.recent:
        campaign = life.first["campaign"] or ""
        cost[campaign] = cost.get(campaign, 0) + life.cost
    answer = rows("cost", by="campaign")
    assert {row["campaign"]: row["cost"] for row in answer} == pytest.approx(cost, abs=1e-6)
    for row in answer:
        assert row["currency"] == "EUR"
        assert row["per_delivered"] == pytest.approx(row["cost"] / row["delivered"], abs=1e-6)


def test_completeness_stands_under_every_report(
    asked: Asked, rows: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    handed = _handed(asked)
    due, heard = sum(a.due for a in handed), sum(1 for a in handed if a.receipt)
    assert report("all", since=SINCE) == 0
    said = " ".join(capsys.readouterr().out.split())
    line = f"of due receipts are in ({heard} of {due}); {len(handed) - due} are not due yet."
    assert said.count(line) == len(QUESTIONS)
    answer = rows("completeness")
    assert sum(row["due"] for row in answer) == due
    assert sum(row["missing"] for row in answer) == due - heard > 0


def test_csv_has_the_rows_of_json(rows: Any, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = rows("delivery")
    assert report("delivery", since=SINCE, format_="csv") == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [[*line] for line in lines[:1]] == [[*wanted[0]]]
    assert [line["rate"] for line in lines] == [str(row["rate"]) for row in wanted]


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "rect":
            assert self.open.pop() == tag

    handle_startendtag = handle_starttag


def test_a_page_of_all_needs_nothing_from_outside(tmp_path: Path) -> None:
    file = tmp_path / "all.html"
    assert report("all", since=SINCE, format_="html", out=file) == 0
    text, found = file.read_text(encoding="utf-8"), _Page()
    found.feed(text)
    assert found.open == []
    names = [tag for tag, _ in found.tags]
    assert names.count("svg") == names.count("table") == len(QUESTIONS)
    assert not {"script", "link", "img", "iframe"} & set(names)
    for _, attributes in found.tags:
        assert str(attributes.get("href", "#")).startswith("#")
        assert "src" not in attributes
    assert "url(" not in text
    assert "//" not in text
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_a_range_without_anything_is_said_and_is_no_failure(
    asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report("all", since="1m") == 0
    said = capsys.readouterr().out
    assert said.count("Nothing in this range.") == len(QUESTIONS)
    assert "No receipt is due in this range. The newest event is of" in said
    assert report("delivery", since="1m", format_="html") == 0
    assert "Nothing in this range." in capsys.readouterr().out
    assert report("delivery", since="1m", as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"by": "colour"}, "--by: delivery has no 'colour'; choose of tenant, channel,"),
        ({"by": "channel,channel"}, "--by: a name is given twice"),
        ({"by": "channel,"}, "--by: delivery has no ''"),
        ({"since": "yesterday"}, "--since: 'yesterday' is no time"),
        ({"since": "2999-01-01"}, "--since: '2999-01-01' is not in the past"),
        ({"out": Path("/nowhere/at/all")}, "No such file or directory: '/nowhere/at/all'"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    words: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report("delivery", **{"since": SINCE, **words}) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.out == ""


def test_all_reports_fit_no_single_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert report("all", format_="csv") == 2
    assert report("all", by="channel") == 2
    assert "name one report" in capsys.readouterr().err


def test_a_database_that_does_not_answer_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLICKHOUSE_URL", "http://127.0.0.1:9/none")
    assert report("funnel") == 2
    assert capsys.readouterr().err.startswith("pipeline report: no answer")


def test_every_dimension_of_every_report_is_sql(asked: Asked) -> None:
    """All at once: a report divided by everything that it knows."""
    store = Store(asked.url)
    chosen = {
        name: question.chosen(",".join(question.dimensions)) for name, question in QUESTIONS.items()
    }
    for found in gather(store, asked.now - 7 * 86_400_000, chosen):
        assert set(found.by) == set(QUESTIONS[found.name].dimensions)
        assert all(len(row) == len(found.columns) for row in found.rows)
        assert found.rows
        assert found.bars
    store.close()
