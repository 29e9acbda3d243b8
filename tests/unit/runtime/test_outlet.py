"""A way out that is slow, broken or closed holds nobody up, and everything is counted."""

import threading
import time
from collections.abc import Sequence

from pipeline.runtime.outlet import BATCH, Outlet
from tests.waiting import until


def end(outlet: Outlet[int]) -> None:
    outlet.stop()
    outlet.join(10)


def test_everything_arrives_in_order_in_batches() -> None:
    came: list[list[int]] = []

    def deliver(batch: Sequence[int]) -> bool:
        came.append(list(batch))
        return True

    outlet = Outlet("numbers", deliver, every_s=0.01)
    total = 3 * BATCH + 1
    for number in range(total):
        outlet.put([number])
    end(outlet)
    assert [number for batch in came for number in batch] == list(range(total))
    assert max(map(len, came)) <= BATCH
    assert (outlet.exported, outlet.failed, outlet.dropped) == (total, 0, 0)


def test_what_a_slow_taker_leaves_no_room_for_is_dropped_and_counted() -> None:
    begun, go = threading.Event(), threading.Event()

    def deliver(batch: Sequence[int]) -> bool:
        begun.set()
        return go.wait(10)

    outlet = Outlet("numbers", deliver, room=10, every_s=0.01)
    outlet.put([1])
    assert begun.wait(5)
    for number in range(100):  # returns at once each time, or this would never end
        outlet.put([number])
    assert outlet.dropped == 90
    go.set()
    end(outlet)
    assert outlet.exported == 11


def test_a_taker_that_refuses_or_raises_is_said_once_and_asked_again(caplog) -> None:
    answers = ["no", "raise", "raise", "yes"]

    def deliver(batch: Sequence[int]) -> bool:
        answer = answers.pop(0)
        if answer == "raise":
            raise ConnectionError("+4915112345678")
        return answer == "yes"

    outlet = Outlet("numbers", deliver, every_s=0.01)
    for done in range(1, 5):
        outlet.put([1, 2])
        until(lambda done=done: outlet.failed + outlet.exported == 2 * done)
    end(outlet)
    assert (outlet.failed, outlet.exported) == (6, 2)
    assert caplog.messages == ["numbers are not taken", "numbers are taken again"]
    assert "4915112345678" not in caplog.text


def test_a_taker_that_never_returns_does_not_stop_the_end() -> None:
    begun, go = threading.Event(), threading.Event()

    def deliver(batch: Sequence[int]) -> bool:
        begun.set()
        return go.wait(30)

    outlet = Outlet("numbers", deliver, every_s=0.01)
    outlet.put([1])
    assert begun.wait(5)
    outlet.stop()
    outlet.join(0.2)  # not longer: the worker has 10 s for all
    assert outlet.exported == 0
    go.set()
    until(lambda: outlet.exported == 1)


def test_who_did_not_take_things_lately_is_not_waited_for() -> None:
    begun, go = threading.Event(), threading.Event()
    calls = 0

    def deliver(batch: Sequence[int]) -> bool:
        nonlocal calls
        calls += 1
        if calls > 1:
            begun.set()
            go.wait(30)
        return False

    outlet = Outlet("numbers", deliver, every_s=0.01)
    outlet.put([1])
    until(lambda: outlet.failed == 1)
    outlet.put([2])
    assert begun.wait(5)
    asked = time.monotonic()
    end(outlet)
    assert time.monotonic() - asked < 5
    assert outlet.failed == 1
    go.set()
    until(lambda: outlet.failed == 2)
