"""What a loop tells of itself on a real broker: only what was committed counts, lag and age are
there as long as something waits, and a worker is ready when its tasks are restored."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException

from pipeline.domain import metrics
from pipeline.domain.meters import Labels, Spread
from pipeline.domain.metrics import Metric
from pipeline.runtime.clock import BrokerClock
from pipeline.runtime.observe import Observe
from pipeline.runtime.stateless import Intake, StatelessWorker
from pipeline.runtime.wire import Wire
from pipeline.stages.accept import AcceptConfig, accept
from tests.broker.loop_world import PEPPER, LoopWorld, loop_world, policy
from tests.broker.test_stateless_loop import ask
from tests.faults.topics_for_tests import until

MESSAGES = 300


@pytest.fixture
def world(kafka: str, prefix: str, tmp_path: Path) -> Iterator[LoopWorld]:
    with loop_world(kafka, prefix, tmp_path) as made:
        yield made


def value(observed: Observe, metric: Metric, labels: Labels = ()) -> float:
    """A number as a reader finds it now, 0 when there is none; of a histogram how many."""
    for series in observed.meters.read():
        if series.metric is metric and series.labels == labels:
            found = series.value
            return sum(found.counts) if isinstance(found, Spread) else found
    return 0


class Aborting:
    """Fails every transaction that has begun to write, as a broker would, until it is told to stop."""

    def __init__(self) -> None:
        self.on = threading.Event()
        self.on.set()

    def __call__(self, step: str) -> None:
        if step == "before_commit" and self.on.is_set():
            raise KafkaException(
                KafkaError(KafkaError._INCONSISTENT, "planned", False, False, True)
            )


def test_fallback_counts_what_it_commits_and_shows_what_waits(world: LoopWorld) -> None:
    waiting = ("accepted.normal", "normal")
    commands = ("command", "sms", "", "normal")
    observed, aborting = Observe(BrokerClock()), Aborting()
    aborting.on.clear()
    worker = world.start(0, observed=observed, on_step=aborting)
    until(lambda: not observed.ready(), 20, "the tasks are restored")
    assert value(observed, metrics.TASKS) == len(worker.tasks) > 0
    assert value(observed, metrics.RESTORES) >= 1
    aborting.on.set()
    world.accept([world.message(number, recipients=MESSAGES) for number in range(MESSAGES)])
    until(lambda: value(observed, metrics.LAG, waiting) == MESSAGES, 20, "all of them wait")
    until(lambda: value(observed, metrics.OLDEST_AGE, waiting) > 1, 10, "they grow old")
    assert value(observed, metrics.EVENTS, commands) == 0
    aborting.on.clear()
    until(lambda: value(observed, metrics.EVENTS, commands) == MESSAGES, 30, "every command")
    until(lambda: value(observed, metrics.LAG, waiting) == 0, 10, "nothing waits")
    assert value(observed, metrics.OLDEST_AGE, waiting) == 0
    world.stop(0)
    assert value(observed, metrics.EVENTS, commands) == len(world.commands())
    found = {
        result: value(observed, metrics.TRANSACTIONS, (result,))
        for result in ("committed", "aborted", "fenced")
    }
    mine = worker.transactions
    assert found["committed"] == mine.commits
    assert found["aborted"] + found["fenced"] == mine.aborts
    assert found["aborted"] > 0
    assert value(observed, metrics.REBUILDS) == mine.rebuilds


def test_accept_counts_what_it_commits_and_shows_what_waits(world: LoopWorld) -> None:
    clock, aborting = BrokerClock(), Aborting()
    aborting.on.clear()
    observed = Observe(clock)
    config = AcceptConfig(policy(), PEPPER, "cluster", world.codec.decode)
    worker = StatelessWorker(
        world.cluster,
        Wire(world.cluster, world.codec),
        "accept",
        lambda record: accept(record, config),
        lambda _record, _detail: [],
        0,
        clock,
        [
            Intake("accept", ("intake", "recipients"), 5),
            Intake("accept-bulk", ("intake.bulk",), 50),
        ],
        static=False,
        on_step=aborting,
        observed=observed,
    )
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    try:
        until(lambda: not observed.ready(), 20, "it is in both groups")
        aborting.on.set()
        ask(world.cluster, range(MESSAGES))
        until(lambda: value(observed, metrics.LAG, ("intake", "")) == MESSAGES, 20, "all wait")
        aborting.on.clear()
        accepted = ("accepted", "", "", "normal")
        until(lambda: value(observed, metrics.EVENTS, accepted) == MESSAGES, 20, "all accepted")
        until(lambda: value(observed, metrics.LAG, ("intake", "")) == 0, 10, "nothing waits")
        assert value(observed, metrics.LAG, ("intake.bulk", "bulk")) == 0
    finally:
        stop.set()
        thread.join(15)
    assert not thread.is_alive()
