"""Requests in their own thread: they begin only under the lease, and every one comes back."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from pipeline.domain.ports import HttpReply, HttpRequest
from pipeline.domain.ports_dispatch import Answered, Send, Unclear
from pipeline.runtime.clock import BrokerClock
from pipeline.runtime.inflight import Job, Lease, Requests, Withheld
from tests.waiting import until

REPLY = HttpReply(202, {}, b"{}")


class Gate:
    """A sender whose answers wait for the test."""

    def __init__(self) -> None:
        self.begun: list[HttpRequest] = []
        self.open = threading.Event()
        self.closed = False
        self.fails = False

    async def send(self, request: HttpRequest, timeout_ms: int) -> Answered:
        self.begun.append(request)
        while not self.open.is_set():  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0.005)
        if self.fails:
            raise RuntimeError("a fault in a sender")
        return REPLY

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def lease() -> Lease:
    return Lease(BrokerClock())


@pytest.fixture
def requests(gate: Gate, lease: Lease) -> Iterator[Requests]:
    made = Requests(lambda: gate, BrokerClock(), lease)
    yield made
    made.close()


def job(*, alive: bool = True, expires_at: int = 1 << 50) -> Job:
    send = Send("a", "attempt", 0, 1_000, expires_at)
    return Job(send, HttpRequest("POST", "http://x", {}, b""), lambda: alive, owner=None)


def taken(requests: Requests, count: int) -> list[Job]:
    found: list[Job] = []
    until(lambda: found.extend(requests.take()) or len(found) >= count)
    return found


def test_a_request_begins_under_the_lease_and_comes_back_with_its_answer(
    requests: Requests, gate: Gate, lease: Lease
) -> None:
    lease.renew(BrokerClock().monotonic())
    gate.open.set()
    requests.submit([job(), job()])
    assert [done.answer for done in taken(requests, 2)] == [REPLY, REPLY]


def test_without_a_lease_nothing_begins(requests: Requests, gate: Gate, lease: Lease) -> None:
    requests.submit([job()])
    assert [done.answer for done in taken(requests, 1)] == [Withheld()]
    lease.renew(BrokerClock().monotonic() - 5.001)
    requests.submit([job()])
    assert [done.answer for done in taken(requests, 1)] == [Withheld()]
    lease.renew(BrokerClock().monotonic())
    lease.end()
    requests.submit([job()])
    assert [done.answer for done in taken(requests, 1)] == [Withheld()]
    assert gate.begun == []


def test_a_task_that_is_gone_or_a_command_past_its_time_does_not_begin(
    requests: Requests, gate: Gate, lease: Lease
) -> None:
    lease.renew(BrokerClock().monotonic())
    requests.submit([job(alive=False), job(expires_at=1)])
    assert [done.answer for done in taken(requests, 2)] == [Withheld(), Withheld()]
    assert gate.begun == []


def test_a_fault_in_the_sender_counts_as_possibly_sent(
    requests: Requests, gate: Gate, lease: Lease, expected_errors
) -> None:
    expected_errors.add("sending to a")
    lease.renew(BrokerClock().monotonic())
    gate.fails = True
    gate.open.set()
    requests.submit([job()])
    assert [done.answer for done in taken(requests, 1)] == [Unclear("internal")]


def test_closing_gives_up_what_runs_as_possibly_sent(
    requests: Requests, gate: Gate, lease: Lease
) -> None:
    lease.renew(BrokerClock().monotonic())
    requests.submit([job()])
    until(lambda: gate.begun)
    requests.close()
    assert gate.closed
    assert [done.answer for done in requests.take()] == [Unclear("interrupted")]
