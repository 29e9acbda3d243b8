"""Dispatch against the real broker and a real HTTP server.

One set of topics for the file; every test has numbers of its own, and looks only at those.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from confluent_kafka import KafkaException

from pipeline.domain import ids
from pipeline.domain.records import Command
from pipeline.domain.turns import Limits
from tests.broker.dispatch_world import (
    PEPPER,
    DispatchWorld,
    account,
    command,
    dispatch_world,
)
from tests.broker.tiny_provider import TinyProvider
from tests.waiting import until

_NUMBERS = itertools.count(1)
Some = Callable[..., list[Command]]


@pytest.fixture(scope="module")
def world(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DispatchWorld]:
    folder: Path = tmp_path_factory.mktemp("dispatch")
    with dispatch_world(kafka, f"t{folder.name}{id(folder):x}.", folder) as made:
        yield made


@pytest.fixture
def provider() -> Iterator[TinyProvider]:
    server = TinyProvider().start()
    yield server
    server.stop()


def some(count: int, **changes: object) -> list[Command]:
    """Commands that no other test has, each to somebody else."""
    return [command(next(_NUMBERS), recipients=1 << 30, **changes) for _ in range(count)]


def sent(provider: TinyProvider, commands: Sequence[Command]) -> list[dict[str, object]]:
    keys = {ids.idempotency_key(c["message_id"], c["step"], c["key_no"]) for c in commands}
    return [request for request in provider.requests if request["key"] in keys]


def test_each_command_is_sent_once_and_ends_in_one_event(
    world: DispatchWorld, provider: TinyProvider
) -> None:
    """The event carries the attempt, its cost and the caller's trace context."""
    commands = some(300)
    running = world.start([account("a", provider.port)])
    world.write(commands)
    events = world.finished(commands, 30)
    running.end()
    assert {(e["topic"], e["result"]) for e in events} == {("dispatched", "accepted")}
    assert len({e["event_id"] for e in events}) == 300
    assert len(provider.requests) == len({r["key"] for r in provider.requests}) == 300
    assert all(e["_headers"][0][0] == "traceparent" for e in events)
    assert all(len(e["attempts"]) == 1 and e["cost"] == 0.05 for e in events)
    assert all(e["_key"].decode() == e["recipient_key"] for e in events)


def test_a_recipients_messages_are_sent_one_at_a_time_in_their_order(
    world: DispatchWorld, provider: TinyProvider
) -> None:
    commands = [command(7_000_000 + n, recipients=5, window_ms=60_000) for n in range(60)]
    running = world.start([account("a", provider.port)])
    world.write(commands)
    world.finished(commands, 30)
    running.end()
    order: dict[str, list[int]] = {}
    for request in provider.requests:
        number = int(str(request["text"]).split()[1])
        order.setdefault(str(number % 5), []).append(number)
    assert all(numbers == sorted(numbers) for numbers in order.values())
    assert len(provider.requests) == 60


def test_nothing_is_sent_after_its_time_or_to_a_suppressed_address(
    world: DispatchWorld, provider: TinyProvider
) -> None:
    late, stopped = some(3, expires_at=1), some(3, address="+4915200000000")
    blocked = ids.address_hash(PEPPER, "acme", "+4915200000000")
    running = world.start(
        [account("a", provider.port)], suppressed=lambda t, hashed, c, k, now: hashed == blocked
    )
    world.write(late + stopped)
    reasons = {e["command_id"]: e["reason"] for e in world.finished(late + stopped)}
    running.end()
    assert {reasons[c["command_id"]] for c in late} == {"expired"}
    assert {reasons[c["command_id"]] for c in stopped} == {"suppressed"}
    assert provider.requests == []


@pytest.mark.parametrize(
    ("digits", "keys", "on_doubt", "topic", "result", "error_class", "requests"),
    [
        ("902", True, "wait", "failed", "refused", "throttle", 1),
        ("903", True, "wait", "failed", "refused", "recipient", 1),
        ("901", True, "wait", "failed", "refused", "transient", 1),
        ("904", True, "wait", "dispatched", "accepted", None, 2),
        ("905", True, "wait", "dispatched", "unknown", "transient", 3),
        ("904", False, "wait", "dispatched", "unknown", "transient", 1),
        ("904", False, "resend", "dispatched", "accepted", None, 2),
        ("905", False, "resend", "dispatched", "unknown", "transient", 2),
    ],
)
def test_an_answer_becomes_what_the_ladder_says(
    world: DispatchWorld,
    provider: TinyProvider,
    digits: str,
    keys: bool,
    on_doubt: str,
    topic: str,
    result: str,
    error_class: str | None,
    requests: int,
) -> None:
    commands = some(1, address=f"+4915200000{digits}", on_doubt=on_doubt)
    running = world.start([account("a", provider.port, keys=keys)])
    world.write(commands)
    (event,) = world.finished(commands)
    running.end()
    assert (event["topic"], event["result"], event["error_class"]) == (topic, result, error_class)
    assert len(provider.requests) == requests
    assert event["resent"] is (on_doubt == "resend")
    assert event["in_doubt"] is (result == "unknown" or event["resent"])
    assert (event["retry_at"] is not None) is (digits == "902")


def test_a_provider_that_cannot_be_reached_is_skipped(
    world: DispatchWorld, provider: TinyProvider
) -> None:
    """Nothing was sent there, so nothing is in doubt; the next provider has it."""
    commands = some(5)
    running = world.start([account("gone", 1), account("b", provider.port, echoes=False)])
    world.write(commands)
    events = world.finished(commands)
    running.end()
    assert {e["provider"] for e in events} == {"b"}
    assert not any(e["in_doubt"] for e in events)
    assert {a["code"] for e in events for a in e["attempts"]} == {"connect_refused", None}
    references = {r["provider_message_id"]: r for r in world.read("references")}
    for event in events:
        reference = references[event["provider_message_id"]]
        assert reference["message_id"] == event["message_id"]
        assert reference["_key"] == f"b:{event['provider_message_id']}".encode()


def test_bytes_that_are_no_command_are_buried_and_stop_nothing(
    world: DispatchWorld, provider: TinyProvider
) -> None:
    commands = some(3)
    running = world.start([account("a", provider.port)])
    for raw in (b"\xff\x00nonsense", None, b"x" * 950_000):
        world.write_raw(raw)
    world.write(commands)
    world.finished(commands)
    letters = until(lambda: len(found := world.read("dead-letter")) >= 3 and found)
    running.end()
    assert {letter["stage"] for letter in letters} == {"dispatch"}
    assert {letter["raw_value"] and letter["raw_value"][:3] for letter in letters} == {
        b"\xff\x00n",
        None,
        b"xxx",
    }


def test_a_command_that_was_written_twice_is_sent_once(
    world: DispatchWorld, provider: TinyProvider
) -> None:
    """A torn transaction repeats a command under its own id at another offset."""
    commands = some(20)
    running = world.start([account("a", provider.port)])
    world.write(commands + commands)
    world.finished(commands)
    until(lambda: running.worker.repeats == 20)
    world.write(commands)
    until(lambda: running.worker.repeats == 40)
    running.end()
    assert len(provider.requests) == 20
    assert len(world.results(commands)) == 20
    again = world.start([account("a", provider.port)])
    world.write(commands)
    until(lambda: again.worker.repeats == 20)
    again.end()
    assert len(provider.requests) == 20, "the journal knows them after a restart"


def test_a_provider_that_hangs_takes_a_quarter_of_the_slots_at_most(
    world: DispatchWorld, provider: TinyProvider
) -> None:
    other = TinyProvider().start()
    hanging = some(80, address="+4915200000906", country="FR")
    good = some(50)
    running = world.start(
        [
            account("hangs", provider.port, countries=("FR",), timeout_ms=1_500),
            account("works", other.port, countries=("DE",)),
        ],
        limits=Limits(slots=16, share=0.25, waiting=60),
    )
    world.write(hanging)
    until(lambda: len(provider.requests) >= 4)
    world.write(good)
    world.finished(good, 10)
    assert provider.most_running <= 4
    crowded = until(lambda: [e for e in world.results(hanging) if e["code"] == "no_room"])
    assert len(crowded) == 16
    assert all(e["error_class"] == "throttle" and e["retry_at"] for e in crowded)
    running.stop.set()
    running.thread.join(15)
    other.stop()


def test_what_a_fence_leaves_open_is_committed_once(
    world: DispatchWorld, provider: TinyProvider
) -> None:
    """Somebody takes the transactional id: the worker finds out what was committed, keeps the
    answers that it has, and sends nothing again."""
    commands = some(400)
    running = world.start([account("a", provider.port)])
    world.write(commands)
    fenced = 0
    for reached in (60, 120, 180, 240):
        until(lambda reached=reached: len(provider.requests) >= reached)
        intruder = world.cluster.transactional(world.cluster.transactional_id("dispatch", 0))
        try:
            intruder.init_transactions(10)
            fenced += 1
        except KafkaException:
            continue
    world.finished(commands, 30)
    running.end()
    assert fenced > 0
    assert running.worker.transactions.rebuilds > 0, "no transaction was fenced"
    assert len(sent(provider, commands)) == len(commands)


def test_a_stop_waits_for_what_is_in_flight(world: DispatchWorld, provider: TinyProvider) -> None:
    commands = some(8, address="+4915200000907")
    running = world.start([account("a", provider.port)])
    world.write(commands)
    until(lambda: len(sent(provider, commands)) >= 8)
    running.end()
    assert len(world.results(commands)) == 8
    assert len(sent(provider, commands)) == 8
