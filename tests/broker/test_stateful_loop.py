"""The stateful loop on a real broker, with the real fallback stage: what it reads it answers once,
whoever owns the task."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from pipeline.domain.records import Event, Message
from pipeline.domain.switches import Switches
from pipeline.runtime.tasks import SlotLock, SlotTaken
from tests.broker.loop_world import LoopWorld, loop_world, policy
from tests.faults.topics_for_tests import until


@pytest.fixture
def world(kafka: str, prefix: str, tmp_path: Path) -> Iterator[LoopWorld]:
    with loop_world(kafka, prefix, tmp_path) as made:
        yield made


def abort_every(nth: int, aborted: list[int]) -> Callable[[str], None]:
    """Fails every nth transaction just before its commit, as a broker would."""
    count = 0

    def step(name: str) -> None:
        nonlocal count
        if name == "before_commit":
            count += 1
            if count % nth == 0:
                aborted.append(count)
                cause = KafkaError(KafkaError._INCONSISTENT, "planned", False, False, True)
                raise KafkaException(cause)

    return step


def event(message: Message, kind: str, **changes: Any) -> Event:
    from pipeline.domain.drafts import blank_event

    blank = blank_event(
        f"{kind}-{message['message_id']}",
        kind,
        message["tenant"],
        message["message_id"],
        message["recipient_key"],
    )
    origin = "dispatch" if kind == "dispatched" else "receipts"
    return {**blank, "origin": origin, **changes}  # type: ignore[typeddict-item]


def take(world: LoopWorld, message: Message, command: dict[str, Any], at: int) -> None:
    """Dispatch's word that a provider took the command."""
    word = event(
        message,
        "dispatched",
        command_id=command["command_id"],
        result="accepted",
        provider="sim",
        occurred_at=at,
    )
    world.write("dispatched", "Event", [word])


def test_aborts_and_moves_neither_lose_nor_double_nor_reorder(world: LoopWorld) -> None:
    """Every 4th transaction of both workers aborts while a third joins and leaves: one command a
    first message of each recipient, in the order of the recipient's partition."""
    aborted: list[int] = []
    workers = [world.start(slot, on_step=abort_every(4, aborted)) for slot in (0, 1)]
    recipients = 400
    messages = [world.message(number, recipients) for number in range(1_200)]
    for start in range(0, 600, 60):
        world.accept(messages[start : start + 60])
    third = world.start(2, static=False, on_step=abort_every(4, aborted))
    until(lambda: bool(third.tasks), 20, "the third worker has tasks")
    for start in range(600, 1_200, 60):
        world.accept(messages[start : start + 60])
    world.accept(messages[:100])  # repeats of the same records, as a torn transaction leaves them
    world.stop(2)

    def opened() -> int:
        ledgers: dict[int, dict[str, Any]] = {}
        for entry in world.read("fallback.changelog"):
            if "opened" in entry:
                ledgers[entry["partition"]] = entry
        return sum(ledger["opened"] + ledger["repeats"] for ledger in ledgers.values())

    until(lambda: sum(len(w.tasks) for w in workers) == 8, 20, "two workers have all tasks")
    until(lambda: opened() == 1_300, 30, "every record is in the books")
    commands = world.commands()
    assert len(aborted) >= 5, "no transaction was aborted, so this tested nothing"
    firsts = {m["recipient_key"]: m["message_id"] for m in reversed(messages)}
    assert Counter(c["message_id"] for c in commands) == Counter(firsts.values())
    assert {c["recipient_key"] for c in commands} == set(firsts)


def test_the_next_message_of_a_recipient_goes_when_the_one_before_was_handed_over(
    world: LoopWorld,
) -> None:
    """G4: turns follow the order of `accepted`, across channels, through a move of the task."""
    world.start(0)
    messages = [
        world.message(number, 1, route=[{"channel": c, "window_s": None, "success": None}])
        for number, c in enumerate(("sms", "voice", "sms"))
    ]
    world.accept(messages)
    for number, message in enumerate(messages):
        until(lambda n=number: len(world.commands()) == n + 1, 20, f"command {number}")  # type: ignore[misc]
        command = world.commands()
        mine = [c for c in command if c["message_id"] == message["message_id"]]
        assert len(mine) == 1
        if number == 0:
            world.start(1, static=False)
            until(lambda: len(world.workers[1][0].tasks) == 4, 20, "tasks moved")
            world.stop(0)
            until(lambda: len(world.workers[1][0].tasks) == 8, 20, "all tasks moved")
        take(world, message, mine[0], 1)


@pytest.mark.parametrize("blindness", [False, True], ids=["listening", "mutant"])
def test_a_receipt_in_an_open_transaction_wins_against_the_window(
    world: LoopWorld, blindness: bool
) -> None:
    """G6: silence is only silence when we have listened. The mutant that takes the last stable
    offset for the end of the topic falls back although the receipt is in the log."""
    rules = policy(window_ms=300)
    message = world.message(1, 1)
    world.start(0, rules=rules, switches=Switches(last_stable_as_watermark=blindness))
    receipts = world.cluster.transactional(world.cluster.transactional_id("receipts", 9))
    receipts.init_transactions(10)
    receipts.begin_transaction()
    late = event(message, "delivered", step=0, provider="sim", provider_event_id="e1")
    receipts.produce(
        world.cluster.real("delivered"),
        world.codec.encode("Event", late),
        message["recipient_key"].encode(),
    )
    assert receipts.flush(10) == 0
    world.accept([message])
    until(lambda: len(world.commands()) == 1, 20, "the command")
    (command,) = world.commands()
    take(world, message, command, world.workers[0][0].clock.now())
    if blindness:
        until(lambda: len(world.read("timed-out")) == 1, 20, "the mutant fires")
        receipts.abort_transaction(10)
        return
    worker = world.workers[0][0]
    started = worker.clock.now()
    until(lambda: worker.clock.now() > started + 1_500, 10, "the window is long over")
    fired = world.read("timed-out")
    assert fired == []
    receipts.commit_transaction(10)
    until(lambda: len(world.read("outcomes")) == 1, 20, "the outcome")
    assert world.read("outcomes")[0]["status"] == "delivered"
    assert world.read("timed-out") == []


def test_a_window_that_nobody_can_hear_out_fires_blind(world: LoopWorld) -> None:
    """When receipts says nothing, the hold is capped and the timer says that it was blind."""
    world.progress = lambda: (0, 0)
    message = world.message(1, 1)
    world.start(0, rules=policy(window_ms=100, blind_hold_ms=700))
    world.accept([message])
    until(lambda: len(world.commands()) == 1, 20, "the command")
    (command,) = world.commands()
    take(world, message, command, world.workers[0][0].clock.now())
    until(lambda: len(world.read("timed-out")) == 1, 20, "the window fires")
    assert world.read("timed-out")[0]["blind"] is True


def test_state_comes_back_from_the_changelog_alone(world: LoopWorld) -> None:
    """A new worker on an empty disk knows what the dead one knew: repeats are still repeats."""
    world.start(0)
    messages = [world.message(number) for number in range(200)]
    world.accept(messages)
    until(lambda: len(world.commands()) == 50, 20, "one command a recipient")
    world.stop(0)
    worker = world.start(1)
    again = [{**m, "source": {**m["source"], "offset": 10_000 + n}} for n, m in enumerate(messages)]
    world.accept(again)  # type: ignore[arg-type]
    until(lambda: len(world.read("rejected")) == 200, 20, "every repeat is rejected")
    assert {e["reason"] for e in world.read("rejected")} == {"duplicate"}
    assert len(world.commands()) == 50
    assert worker.transactions.aborts == 0


def test_a_dead_owners_open_transaction_is_ended_by_the_successor(world: LoopWorld) -> None:
    """Rule 2: the commit metadata names the transactional id, so nobody waits for a time-out."""
    dying = threading.Event()

    def die(step: str) -> None:
        if dying.is_set() and step == "before_commit":
            raise KafkaException(KafkaError(KafkaError._INCONSISTENT, "died", False, False, True))

    clock = world.start(0, static=False, on_step=die).clock
    world.accept([world.message(1)])
    until(lambda: len(world.commands()) == 1, 20, "the first command")
    dying.set()  # so that it leaves without a word
    world.stop(0)
    hanging = world.cluster.transactional(world.cluster.transactional_id("fallback", 0))
    hanging.init_transactions(10)
    hanging.begin_transaction()
    hanging.produce(world.cluster.real("send.sms.normal"), b"never", b"k", partition=0)
    assert hanging.flush(10) == 0
    started = clock.now()
    world.start(1)
    world.accept([world.message(2), world.message(3)])
    until(lambda: len(world.commands()) == 3, 20, "the successor works")
    assert clock.now() - started < 6_000, "it waited for the transaction to time out (8 s)"


def test_a_second_process_in_the_same_slot_is_told_so(tmp_path: Path) -> None:
    lock = SlotLock(tmp_path, "fallback", 0)
    with pytest.raises(SlotTaken, match="slot 0"):
        SlotLock(tmp_path, "fallback", 0)
    lock.release()
    SlotLock(tmp_path, "fallback", 0).release()
