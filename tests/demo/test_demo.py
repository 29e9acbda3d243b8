"""The demo twice with one seed: once as a function with canaries in it, once as a command."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.commands import demo
from pipeline.commands.demo import ORDER, Result
from pipeline.commands.report_questions import QUESTIONS
from tests.demo import canary, processes
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
MESSAGES, SEED = 300, 11


@pytest.fixture(scope="module")
def seen() -> list[str]:
    """Where the first run left traces of a canary."""
    return []


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, seen: list[str]) -> Result:
    folder = tmp_path_factory.mktemp("demo")
    extra = canary.requests()
    result = demo.run(
        folder, MESSAGES, SEED, extra, inspect=lambda f: seen.extend(canary.traces(f))
    )
    assert processes.of(folder) == {}
    return result


def command(folder: Path, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "demo", *words],
        env={**os.environ, "TMPDIR": str(folder)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_everything_adds_up(first: Result):
    assert first.problems == []
    assert first.figures["balanced"] is True
    assert first.figures["in_flight"] == 0
    assert first.figures["messages"] == MESSAGES + len(canary.requests())


def test_each_request_has_one_answer_and_malformed_ones_name_a_field(first: Result):
    answers = first.answers
    assert all(len(said) == 1 for said in answers.values())
    spoilt = [said[0] for number, said in answers.items() if number >= canary.COLLECTED]
    kinds = [one["status"] for one in spoilt]
    assert kinds.count("rejected") == 2 + 7 + 3
    assert [one["reason"] for one in spoilt].count("duplicate") == 2
    assert all(one["field"] for one in spoilt if one["status"] == "rejected")


def test_the_reports_say_what_was_counted_from_outside(first: Result):
    (funnel,) = [report for report in first.reports if report.name == "funnel"]
    sums = {
        name: sum(int(row[name] or 0) for row in funnel.objects())
        for name in ("accepted", "delivered", "failed", "waiting")
    }
    figures = {name: first.figures[name] for name in ("delivered", "failed")}
    settled = first.figures["delivered"] + first.figures["failed"]
    assert sums == {**figures, "accepted": settled, "waiting": first.figures["in_flight"]}


def test_a_canary_is_found_in_no_event_header_log_or_column(first: Result, seen: list[str]):
    assert first.figures["delivered"] > 0
    assert seen == []


def test_the_command_comes_to_the_same_and_leaves_nothing(first: Result, tmp_path: Path):
    figures, answers = tmp_path / "out.json", tmp_path / "answers.jsonl"
    report = tmp_path / "new" / "report.html"
    temporary = tmp_path / "t"
    temporary.mkdir()
    program = command(
        temporary, "--messages", str(MESSAGES), "--seed", str(SEED),
        "--json", str(figures), "--answers", str(answers),
        "--report", str(report),
    )  # fmt: skip
    output, _ = program.communicate(timeout=300)
    assert program.returncode == 0, output
    assert "The books balance." in output
    for word in ("whatsapp", "p95", "double deliveries", "dead letters", "pipeline up"):
        assert word in output
    assert f"All reports, with pictures: {report}" in output
    assert "of due receipts are in" in output
    assert report.read_text().count("<svg") == len(QUESTIONS)
    assert processes.of(temporary) == {}
    assert list(temporary.iterdir()) == []
    found = json.loads(figures.read_text())
    assert tuple(found) == ORDER
    assert found["messages"] == MESSAGES
    second = {
        line["request"]: line["answers"]
        for line in map(json.loads, answers.read_text().splitlines())
    }
    assert second == {n: said for n, said in first.answers.items() if n < canary.COLLECTED}


def test_a_killed_demo_leaves_no_process(tmp_path: Path):
    program = command(tmp_path, "--messages", "50")
    try:
        until(lambda: any("pipeline run sink" in p for p in processes.of(tmp_path).values()), 120)
    finally:
        program.send_signal(signal.SIGKILL)
        program.communicate()
    until(lambda: not processes.of(tmp_path), 20)
