"""What a worker tells of itself, and how it is asked for it."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.domain import metrics
from pipeline.domain.meters import Labels
from pipeline.domain.metrics import Metric
from pipeline.domain.outcomes import Emit
from pipeline.runtime.observe import LIVE_S, LOOK_S, Ages, Observe, Standing, Waiting
from pipeline.runtime.probes import FOLDER, Probes
from tests.waiting import until


class HandClock:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.ms = 1_000_000

    def now(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1_000

    def observe(self, append_ms: int) -> None:
        raise AssertionError("nobody tells this clock the time")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def number(observed: Observe, metric: Metric, labels: Labels = ()) -> object:
    found = {s.labels: s.value for s in observed.meters.read() if s.metric is metric}
    return found.get(labels)


def test_only_what_was_committed_counts_and_is_passed_on(clock: HandClock) -> None:
    told: list[tuple[int, int, int]] = []
    observed = Observe(clock, lambda emits, began, ended: told.append((len(emits), began, ended)))
    message = Emit("accepted.urgent", "r", {"priority": "urgent"})
    observed.committed([message, None, message], 0.25)
    observed.committed([], 0.01)
    observed.ended("aborted")
    assert number(observed, metrics.EVENTS, ("accepted", "", "", "urgent")) == 2
    assert number(observed, metrics.TRANSACTIONS, ("committed",)) == 2
    assert number(observed, metrics.TRANSACTIONS, ("aborted",)) == 1
    assert told == [(2, clock.ms - 250, clock.ms)]


def test_a_fault_in_the_telling_is_said_once_and_stops_nothing(
    clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It runs right after a commit: raising there would undo what cannot be undone."""

    def broken() -> list[Waiting]:
        raise RuntimeError("+4915112345678")

    observed = Observe(clock)
    observed.watch(waiting=broken)
    for _ in range(3):
        observed.committed([Emit("outcomes", "r", {"no": "outcome"})], 0.01)
        clock.ms += int(LOOK_S * 1_000)
        observed.turn()
    assert caplog.messages == ["telemetry is not complete: KeyError"]
    assert number(observed, metrics.TRANSACTIONS, ("committed",)) == 3


# Lag and age


def waiting(done: int, lag: int, read_at: int = 0) -> list[Waiting]:
    return [Waiting("accepted.urgent", 0, done, lag, read_at)]


URGENT = ("accepted.urgent", "urgent")


def test_nothing_waits() -> None:
    assert Ages().look(waiting(5, 0), 1_000) == ({URGENT: 0}, {URGENT: 0.0})


def test_a_record_that_came_after_a_quiet_hour_is_not_an_hour_old() -> None:
    ages = Ages()
    ages.look(waiting(5, 0, read_at=0), 3_600_000)
    lags, found = ages.look(waiting(5, 1, read_at=0), 3_601_000)
    assert lags[URGENT] == 1
    assert found[URGENT] == 1.0


def test_a_backlog_is_as_old_as_the_last_record_that_was_read() -> None:
    """After a stop of an hour: records of an hour ago are read one after the other."""
    ages = Ages()
    ages.look(waiting(5, 900, read_at=1_000), 3_600_000)
    _, found = ages.look(waiting(50, 855, read_at=2_000), 3_601_000)
    assert found[URGENT] == 3_599.0


def test_a_worker_that_stands_still_sees_the_age_grow_whatever_it_has_read() -> None:
    ages = Ages()
    for second in range(10):
        now = 10_000 + second * 1_000
        _, found = ages.look(waiting(5, 3, read_at=now), now)
    assert found[URGENT] == 9.0


def test_partitions_add_up_and_the_oldest_one_speaks() -> None:
    parts = [
        Waiting("delivered", 0, 1, 10, 5_000),
        Waiting("delivered", 1, 1, 5, 9_000),
        Waiting("read", 0, 1, 0, 9_000),
    ]
    lags, ages = Ages().look(parts, 10_000)
    assert lags == {("delivered", ""): 15, ("read", ""): 0}
    assert ages == {("delivered", ""): 5.0, ("read", ""): 0.0}


def test_the_loop_looks_once_a_second(clock: HandClock) -> None:
    looks = 0

    def look() -> list[Waiting]:
        nonlocal looks
        looks += 1
        return waiting(0, looks)

    observed = Observe(clock)
    observed.watch(waiting=look)
    for _ in range(100):
        observed.turn()
    assert number(observed, metrics.LAG, URGENT) == 1
    clock.ms += int(LOOK_S * 1_000)
    observed.turn()
    assert number(observed, metrics.LAG, URGENT) == 2


# Alive and ready


def test_alive_is_a_loop_that_turns(clock: HandClock) -> None:
    observed = Observe(clock)
    clock.ms += int(LIVE_S * 1_000) - 1
    assert observed.live() == ""
    clock.ms += 1
    assert "has not turned for 60 s" in observed.live()
    observed.turn()
    assert observed.live() == ""


def test_ready_is_a_member_whose_tasks_are_restored_or_who_has_none(clock: HandClock) -> None:
    observed = Observe(clock)
    assert observed.ready() == "starting"
    standing = Standing(joined=False, owned=0)
    observed.watch(standing=lambda: standing)
    assert observed.ready() == "not in its group yet"
    standing = Standing(joined=True, owned=2, taking=1)
    assert observed.ready() == "1 tasks are being restored"
    standing = Standing(joined=True, owned=0)
    assert observed.ready() == ""
    clock.ms += int(LIVE_S * 1_000)
    assert "has not turned" in observed.ready()


# The port


class Served:
    def __init__(self, probes: Probes) -> None:
        self.probes, self.kafka = probes, True

    def get(self, path: str) -> tuple[int, str]:
        address = f"http://127.0.0.1:{self.probes.port}{path}"
        try:
            with urllib.request.urlopen(address, timeout=5) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


@pytest.fixture
def observed(clock: HandClock) -> Observe:
    made = Observe(clock)
    made.watch(standing=lambda: Standing(joined=True, owned=3))
    return made


@pytest.fixture
def served(observed: Observe, tmp_path: Path) -> Iterator[Served]:
    answers: list[Served] = []
    probes = Probes(observed, "accept", 1, ("127.0.0.1", 0), tmp_path, lambda: answers[0].kafka)
    answers.append(Served(probes))
    try:
        yield answers[0]
    finally:
        probes.close()


def test_metrics_are_prometheus_text_with_stage_and_slot(served: Served, observed: Observe) -> None:
    observed.committed([Emit("accepted.urgent", "r", {"priority": "urgent"})], 0.25)
    status, text = served.get("/metrics")
    assert status == 200
    lines = text.splitlines()
    who = 'stage="accept",slot="1"'
    assert (
        f'delivery_events_total{{{who},kind="accepted",channel="",provider="",priority="urgent"}} 1'
        in lines
    )
    assert f"delivery_tasks{{{who}}} 3" in lines
    assert f'delivery_commit_seconds_bucket{{{who},le="0.1"}} 0' in lines
    assert f'delivery_commit_seconds_bucket{{{who},le="0.25"}} 1' in lines
    assert f'delivery_commit_seconds_bucket{{{who},le="+Inf"}} 1' in lines
    assert f"delivery_commit_seconds_sum{{{who}}} 0.25" in lines
    helped = [line.split()[2] for line in lines if line.startswith("# HELP")]
    typed = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert helped == typed
    assert len(set(helped)) == len(helped)


def test_a_label_value_cannot_break_out_of_its_line(served: Served, observed: Observe) -> None:
    observed.ended('a"b\\c\nd')
    assert 'result="a\\"b\\\\c\\nd"} 1' in served.get("/metrics")[1]


def test_ready_needs_kafka_and_alive_does_not(served: Served, clock: HandClock) -> None:
    assert served.get("/readyz") == (200, "ready\n")
    served.kafka = False
    assert served.get("/readyz") == (503, "Kafka does not answer\n")
    assert served.get("/healthz") == (200, "ok\n")
    clock.ms += int(LIVE_S * 1_000)
    assert served.get("/healthz")[0] == 503
    assert served.get("/else")[0] == 404


def test_where_it_listens_stands_in_the_data_directory_while_it_does(
    observed: Observe, tmp_path: Path
) -> None:
    probes = Probes(observed, "sink", 0, ("0.0.0.0", 0), tmp_path, lambda: True)
    file = tmp_path / FOLDER / "sink-0.json"
    try:
        (target,) = json.loads(file.read_text())
        assert target["targets"] == [f"127.0.0.1:{probes.port}"]
    finally:
        probes.close()
    assert not file.exists()


def test_who_asks_and_says_nothing_holds_nobody_up(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.probes.port)) as silent:
        silent.send(b"GET /met")
        assert until(lambda: served.get("/healthz")[0] == 200, 3)
