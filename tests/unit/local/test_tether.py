"""A child never outlives the process that started it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.local import tether
from tests.waiting import alive, until

# A parent that starts a child by the module under test and then waits to be killed.
PARENT = """
import sys, threading
from pathlib import Path
from pipeline.local import tether
def start():
    child = tether.spawn([sys.executable, "-c", "import time; time.sleep(600)"], log=Path(sys.argv[1]))
    print(child.pid, flush=True)
thread = threading.Thread(target=start)  # a thread that ends must not take the child along
thread.start(); thread.join()
sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_dies_with_its_killed_parent(tmp_path: Path, number: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd(),
    )  # fmt: skip
    assert parent.stdout is not None
    assert parent.stdin is not None
    child = int(parent.stdout.readline())
    until(lambda: b"sleep" in Path(f"/proc/{child}/cmdline").read_bytes())
    assert alive(child)
    parent.send_signal(number)
    parent.wait(10)
    until(lambda: not alive(child))
    parent.stdout.close()
    parent.stdin.close()


def test_the_process_id_is_the_programs_own(tmp_path: Path) -> None:
    child = tether.spawn(
        [sys.executable, "-c", "import os; print(os.getpid(), os.environ['WORD'])"],
        log=tmp_path / "deep" / "log",
        env={"WORD": "heard"},
    )
    assert child.wait(10) == 0
    assert (tmp_path / "deep" / "log").read_text() == f"{child.pid} heard\n"


def test_ctrl_c_reaches_only_the_parent(tmp_path: Path) -> None:
    child = tether.spawn(["sleep", "600"], log=tmp_path / "log")
    assert os.getsid(child.pid) == child.pid
    assert tether.stop(child) == -signal.SIGTERM


def test_who_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    program = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    child = tether.spawn([sys.executable, "-c", program], log=tmp_path / "log")
    until(lambda: (tmp_path / "log").read_text() == "up\n")
    assert tether.stop(child, patience_s=0.2) == -signal.SIGKILL


def test_a_program_that_is_not_there_says_so(tmp_path: Path) -> None:
    child = tether.spawn(["/nowhere/program"], log=tmp_path / "log")
    assert child.wait(10) != 0
    assert "No such file" in (tmp_path / "log").read_text()
