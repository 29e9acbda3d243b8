"""The stateless loop on a real broker, with the real accept stage: aborts, moves and poison."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.switches import NONE, Switches
from pipeline.runtime.clock import BrokerClock
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.stateless import Intake, StatelessWorker
from pipeline.runtime.wire import Wire
from pipeline.stages.accept import AcceptConfig, accept
from tests.broker.loop_world import PEPPER, LoopWorld, loop_world, policy
from tests.broker.test_stateful_loop import abort_every
from tests.faults.topics_for_tests import until

Stop = Callable[[], None]


@pytest.fixture
def world(kafka: str, prefix: str, tmp_path: Path) -> Iterator[LoopWorld]:
    with loop_world(kafka, prefix, tmp_path) as made:
        yield made


def start(
    world: LoopWorld,
    slot: int,
    *,
    on_step: Callable[[str], None] = lambda _step: None,
    switches: Switches = NONE,
    break_on: bytes = b"\x00never",
) -> Stop:
    """An accept worker in a thread; the result stops it."""
    config = AcceptConfig(policy(), PEPPER, "cluster", world.codec.decode)

    def answer(record: Any) -> Any:
        if record.value is not None and break_on in record.value:
            raise ZeroDivisionError("a fault of ours")
        return accept(record, config)

    worker = StatelessWorker(
        world.cluster,
        Wire(world.cluster, world.codec),
        "accept",
        answer,
        lambda _record, _detail: [],
        slot,
        BrokerClock(),
        [
            Intake("accept", ("intake", "recipients"), 5),
            Intake("accept-bulk", ("intake.bulk",), 50),
        ],
        static=False,
        switches=switches,
        on_step=on_step,
    )
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()

    def finish() -> None:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()

    return finish


def ask(cluster: Cluster, numbers: range, *, topic: str = "intake", recipients: int = 20) -> None:
    producer = cluster.producer(linger_ms=5)
    for number in numbers:
        body = {
            "to": {"id": f"person-{number % recipients}", "phone": "+4915112345678"},
            "idempotency_key": str(number),
            "content": {"text": f"number {number}"},
        }
        producer.produce(
            cluster.real(topic), json.dumps(body).encode(), b"%d" % (number % recipients)
        )
    assert producer.flush(30) == 0


def accepted(world: LoopWorld) -> list[dict[str, Any]]:
    return world.read(*(f"accepted.{lane}" for lane in ("urgent", "normal", "bulk")))


def test_every_request_is_accepted_once_and_in_order_through_aborts_and_moves(
    world: LoopWorld,
) -> None:
    """G1, G2: every 4th transaction aborts, workers join and leave; the order of a recipient's
    requests survives because an abort rewinds."""
    aborted: list[int] = []
    stops = [start(world, 0, on_step=abort_every(4, aborted))]
    for begin in range(0, 800, 40):
        ask(world.cluster, range(begin, begin + 40))
        if begin == 200:
            stops.append(start(world, 1, on_step=abort_every(4, aborted)))
        if begin == 600:
            stops.pop(0)()
    until(lambda: len(accepted(world)) >= 800, 40, "every request is accepted")
    for stop in stops:
        stop()
    found = accepted(world)
    assert len(aborted) >= 5, "no transaction was aborted, so this tested nothing"
    assert Counter(m["message_id"] for m in found).most_common(1)[0][1] == 1
    assert len(found) == 800
    order: dict[str, list[int]] = {}
    for message in sorted(found, key=lambda m: (m["topic"], m["partition"], m["offset"])):
        order.setdefault(message["recipient_key"], []).append(
            int(message["content"]["text"].removeprefix("number "))
        )
    assert all(numbers == sorted(numbers) for numbers in order.values())


def test_without_a_rewind_records_are_lost(world: LoopWorld) -> None:
    """The mutant shows that the test above would see it."""
    aborted: list[int] = []
    stop = start(world, 0, on_step=abort_every(3, aborted), switches=Switches(no_rewind=True))
    asked = 0
    for _ in range(12):
        before, seen = len(aborted), len(accepted(world))
        ask(world.cluster, range(asked, asked + 20))
        asked += 20
        until(
            lambda n=before, m=seen: len(aborted) > n or len(accepted(world)) >= m + 20, 20, "move"
        )  # type: ignore[misc]
    stop()
    assert aborted
    assert len({m["message_id"] for m in accepted(world)}) < asked


def test_poison_and_our_own_faults_stop_nothing(world: LoopWorld, expected_errors: Any) -> None:
    """Bytes that nobody can read and a record on which our code raises both become dead letters
    with their bytes; the record behind each is accepted."""
    expected_errors.add("pipeline.runtime.stateless: accept: intake")
    stop = start(world, 0, break_on=b"number 5")
    producer = world.cluster.producer()
    for poison in (b"\xc3\x01garbage", b"\x00\x00\x00\x00\x07x", b"{", b"\xff" * 40, None):
        producer.produce(world.cluster.real("intake"), poison, b"1")
    assert producer.flush(10) == 0
    ask(world.cluster, range(10))
    until(lambda: len(accepted(world)) == 9, 20, "the good ones")
    until(lambda: len(world.read("dead-letter")) == 5, 20, "the dead letters")
    stop()
    letters = world.read("dead-letter")
    assert Counter(letter["category"] for letter in letters) == {"unreadable": 4, "internal": 1}
    assert all(letter["raw_value"] for letter in letters)
    (ours,) = [letter for letter in letters if letter["category"] == "internal"]
    assert "ZeroDivisionError" in ours["detail"]


def test_a_bulk_backlog_does_not_delay_the_intake(world: LoopWorld) -> None:
    """B9: a campaign on intake.bulk waits behind what comes by intake."""
    campaign = 60_000
    ask(world.cluster, range(campaign), topic="intake.bulk")
    clock = BrokerClock()
    stop = start(world, 0)
    until(lambda: world.appended("accepted.bulk") > 500, 30, "the campaign runs")
    started = clock.monotonic()
    ask(world.cluster, range(1))
    until(lambda: world.appended("accepted.normal") > 0, 10, "the request")
    took = clock.monotonic() - started
    still_running = world.appended("accepted.bulk") < campaign
    stop()
    assert still_running, "the campaign was over, so this tested nothing"
    assert took < 3.0
