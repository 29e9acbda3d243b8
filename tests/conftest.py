"""What every test gets: services that are there or the test fails, and no error swallowed."""

import fcntl
import logging
import os
import shutil
import sys
import tempfile
import threading
import uuid
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

# Tests never touch a developer's configuration.
for _name in [name for name in os.environ if name.startswith("PIPELINE_")]:
    if _name != "PIPELINE_CACHE_DIR":
        del os.environ[_name]
os.environ["PIPELINE_DATA_DIR"] = "/nowhere/set-by-tests"  # and no pipeline of theirs is found


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A folder for servers' data; short, because sockets' and logs' paths grow from it."""
    with tempfile.TemporaryDirectory(prefix="pl-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def kafka(scratch: Path) -> Iterator[str]:
    """Bootstrap servers of a real Kafka: KAFKA_BOOTSTRAP_SERVERS when set, else an embedded one.

    It is shared by the whole run: use `prefix`, and delete your topics.
    """
    named = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if named:
        from pipeline.local.kafka import answers

        assert answers(named, 10.0), f"no Kafka answers at KAFKA_BOOTSTRAP_SERVERS={named}"
        yield named
        return
    from pipeline.local.kafka import SHORT_LIVED, EmbeddedKafka

    with EmbeddedKafka(scratch / "kafka", java=SHORT_LIVED) as broker:
        yield broker.bootstrap


@pytest.fixture(scope="session")
def clickhouse_url(scratch: Path) -> Iterator[str]:
    """A ClickHouse that speaks HTTP: CLICKHOUSE_URL when set, else the embedded engine's front.

    It is shared by the whole run: make a database of your own and drop it.
    """
    named = os.environ.get("CLICKHOUSE_URL")
    if named:
        yield named
        return
    from pipeline.local.clickhouse import EmbeddedClickHouse

    with EmbeddedClickHouse(scratch / "clickhouse") as server:
        yield server.url


_ROOM = "TESTS_ROOM"  # the folder of the locks, for every process of one run


def pytest_configure(config: pytest.Config) -> None:
    """The first process of a run makes the room that all of them share."""
    if not hasattr(config, "workerinput"):
        os.environ[_ROOM] = tempfile.mkdtemp(prefix="pl-room-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """And takes it away."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(_ROOM), ignore_errors=True)


@contextmanager
def _locked(name: str, kind: int) -> Iterator[None]:
    with (Path(os.environ[_ROOM]) / name).open("w") as file:
        fcntl.flock(file, kind)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
    """Where several processes run tests (`make test`), one marked `alone` has the machine to
    itself: it closes the gate, waits until the tests that run have ended, and opens it when it is
    over."""
    with ExitStack() as held:
        if item.get_closest_marker("alone"):
            held.enter_context(_locked("gate", fcntl.LOCK_EX))
            held.enter_context(_locked("room", fcntl.LOCK_EX))
        else:
            with _locked("gate", fcntl.LOCK_EX):
                held.enter_context(_locked("room", fcntl.LOCK_SH))
        return (yield)


@pytest.fixture
def prefix() -> str:
    """A topic prefix that no other test uses."""
    return f"t{uuid.uuid4().hex[:10]}."


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class ExpectedErrors:
    """Error lines that a test provokes on purpose: `expected_errors.add("part of the line")`."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def add(self, part: str) -> None:
        self.parts.append(part)


@pytest.fixture
def expected_errors() -> ExpectedErrors:
    """Lets a test name the error lines that it provokes."""
    return ExpectedErrors()


@pytest.fixture(autouse=True)
def _nothing_swallowed(expected_errors: ExpectedErrors) -> Iterator[None]:
    """Fails a test in which anything logged an error, or an exception ended in nobody's hands."""
    caught = _Errors()
    caught.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    lost: list[str] = []
    former = sys.unraisablehook, threading.excepthook

    def unraisable(event: "sys.UnraisableHookArgs") -> None:
        lost.append(f"unraisable in {event.object!r}: {event.exc_value!r}")

    def in_thread(event: threading.ExceptHookArgs) -> None:
        if event.exc_type is not SystemExit:
            lost.append(f"in thread {event.thread and event.thread.name}: {event.exc_value!r}")

    sys.unraisablehook, threading.excepthook = unraisable, in_thread
    logging.getLogger().addHandler(caught)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(caught)
        sys.unraisablehook, threading.excepthook = former
    wrong = lost + [
        line for line in caught.lines if not any(part in line for part in expected_errors.parts)
    ]
    assert not wrong, "errors that nobody handled:\n  " + "\n  ".join(wrong)
