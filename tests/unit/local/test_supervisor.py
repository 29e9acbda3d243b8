"""Processes are kept running, ended in order, and never left behind."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.local.supervisor import Supervisor, describe
from tests.waiting import alive, until

SLEEP = [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(600)"]
HANDLER = """
import signal, sys, time
signal.signal(15, lambda *_: sys.exit(7))
print("up", flush=True)
time.sleep(600)
"""
POLITE = [sys.executable, "-c", HANDLER]


@pytest.fixture
def ends() -> list[tuple[str, int]]:
    return []


@pytest.fixture
def supervisor(tmp_path: Path, ends: list[tuple[str, int]]) -> Iterator[Supervisor]:
    made = Supervisor(tmp_path, on_exit=lambda name, status: ends.append((name, status)))
    yield made
    made.stop(2.0)


def _up(tmp_path: Path, name: str, times: int = 1) -> None:
    until(lambda: (tmp_path / f"{name}.log").read_text().count("up") >= times)


def test_a_killed_process_is_started_again_at_once(
    supervisor: Supervisor, tmp_path: Path, ends: list[tuple[str, int]]
) -> None:
    supervisor.add("worker-0", SLEEP)
    _up(tmp_path, "worker-0")
    first = supervisor.pids()["worker-0"]
    os.kill(first, signal.SIGKILL)
    second = until(lambda: (p := supervisor.pids().get("worker-0")) != first and p)
    _up(tmp_path, "worker-0", 2)
    assert alive(int(second))
    assert not alive(first)
    assert ends == [("worker-0", -signal.SIGKILL)]
    row = supervisor.status()[0]
    assert (row.state, row.restarts, row.last_exit) == ("running", 1, -signal.SIGKILL)


def test_who_ends_again_and_again_is_started_with_growing_pauses(
    supervisor: Supervisor, ends: list[tuple[str, int]]
) -> None:
    supervisor.add("broken", [sys.executable, "-c", "raise SystemExit(2)"])
    until(lambda: len(ends) >= 3)
    # 0.1 s, 0.2 s, ...: within a second only a handful of starts, not hundreds.
    assert len(ends) < 10
    assert set(ends) == {("broken", 2)}


def test_stop_passes_sigterm_on_and_leaves_nothing(
    supervisor: Supervisor, tmp_path: Path, ends: list[tuple[str, int]]
) -> None:
    supervisor.add("a", POLITE)
    supervisor.add("b", POLITE)
    _up(tmp_path, "a")
    _up(tmp_path, "b")
    pids = supervisor.pids()
    assert supervisor.stop() == {"a": 7, "b": 7}
    assert not any(alive(pid) for pid in pids.values())
    assert ends == []
    assert supervisor.status() == []


def test_a_stopped_process_does_not_hold_the_rest_back(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    supervisor.add("frozen", POLITE)
    supervisor.add("fine", POLITE)
    _up(tmp_path, "frozen")
    _up(tmp_path, "fine")
    os.kill(supervisor.pids()["frozen"], signal.SIGSTOP)
    assert supervisor.stop(0.5) == {"frozen": -signal.SIGKILL, "fine": 7}


def test_one_can_leave_and_come_back(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.add("third", POLITE)
    _up(tmp_path, "third")
    with pytest.raises(ValueError, match="already there"):
        supervisor.add("third", POLITE)
    assert supervisor.remove("third") == 7
    assert supervisor.remove("third") is None
    supervisor.add("third", POLITE, {"A": "b"})
    assert list(supervisor.pids()) == ["third"]


def test_exit_statuses_in_words() -> None:
    assert describe(-9) == "SIGKILL"
    assert describe(2) == "status 2"
    assert describe(None) == "running"
