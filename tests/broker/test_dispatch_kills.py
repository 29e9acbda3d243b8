"""Dispatch under kill -9 at its named steps, and while its tasks move.

The provider counts requests by key and by reference; where it honours keys a repeat under one key
is no second message, elsewhere every repeat must have been declared.
"""

import itertools
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.records import Command
from tests.broker.dispatch_world import DispatchWorld, account, command, dispatch_world
from tests.broker.tiny_provider import TinyProvider
from tests.waiting import until

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def world(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DispatchWorld]:
    folder: Path = tmp_path_factory.mktemp("kills")
    with dispatch_world(kafka, f"t{folder.name}{id(folder):x}.", folder) as made:
        yield made


def some(count: int, **changes: Any) -> list[Command]:
    return [command(next(_NUMBERS), recipients=1 << 30, **changes) for _ in range(count)]


def by_command(commands: list[Command], provider: TinyProvider) -> Counter[str]:
    """Requests by message."""
    texts = {c["content"]["text"]: c["command_id"] for c in commands}
    return Counter(texts[r["text"]] for r in provider.requests if r["text"] in texts)


@pytest.mark.parametrize(
    ("step", "nth", "keys", "on_doubt"),
    [
        ("after_journal", 2, False, "resend"),
        ("before_request", 30, False, "resend"),
        ("after_answer", 30, False, "resend"),
        ("before_commit", 3, False, "resend"),
        ("after_commit", 3, False, "resend"),
        ("before_request", 30, False, "wait"),
        ("after_answer", 30, True, "wait"),
    ],
)
def test_a_kill_doubles_nothing_that_was_not_declared(
    world: DispatchWorld, step: str, nth: int, keys: bool, on_doubt: str
) -> None:
    """The same slot comes back at once and settles what its predecessor left in doubt."""
    provider = TinyProvider(delay_s=0.1).start()
    commands = some(120, on_doubt=on_doubt)
    first = world.spawn(provider.port, die_at=step, nth=nth, keys=keys)
    world.write(commands[:60])
    until(lambda: provider.requests or first.poll() is not None)
    world.write(commands[60:])
    first.wait(20)
    assert first.returncode == -signal.SIGKILL, "the worker never came to the step"
    before = by_command(commands, provider)
    second = world.spawn(provider.port, keys=keys)
    events = {e["command_id"]: e for e in world.finished(commands, 30)}
    second.send_signal(signal.SIGTERM)
    assert second.wait(12) == 0
    requests = by_command(commands, provider)
    provider.stop()
    in_doubt = {name for name, event in events.items() if event["in_doubt"]}
    repeated = {name for name, count in requests.items() if count > 1}
    assert len(before) < len(commands), "everything was sent before the kill"
    assert all(count <= 2 for count in requests.values())
    if keys:
        assert not in_doubt
        assert len({r["key"] for r in provider.requests}) == len(commands)
    elif on_doubt == "resend":
        assert repeated <= {name for name, event in events.items() if event["resent"]}
        assert {e["result"] for e in events.values()} == {"accepted"}
    else:
        assert not repeated
        assert {name for name, e in events.items() if e["result"] == "unknown"} == in_doubt
        assert set(requests) | in_doubt == set(events)
    if step in ("before_request", "after_answer"):
        assert repeated or in_doubt, "nothing was in doubt: the kill met nothing in flight"


def test_another_slot_waits_for_the_dead_owners_lease(world: DispatchWorld) -> None:
    """The static member's session ends first; then its lease and the longest request are over."""
    provider = TinyProvider(delay_s=0.05).start()
    commands = some(100)
    first = world.spawn(provider.port, slot=3, die_at="after_answer", nth=20)
    world.write(commands)
    first.wait(20)
    second = world.spawn(provider.port, slot=4)
    world.finished(commands, 40)
    second.send_signal(signal.SIGTERM)
    assert second.wait(12) == 0
    provider.stop()
    assert len({r["key"] for r in provider.requests}) == len(commands)


def test_a_worker_that_was_stopped_beyond_its_session_sends_nothing_when_it_goes_on(
    world: DispatchWorld,
) -> None:
    """Its lease is over, and its answers are not its to write."""
    provider = TinyProvider(delay_s=0.1).start()
    commands = some(200)
    first = world.spawn(provider.port, slot=7)
    world.write(commands)
    until(lambda: len(provider.requests) > 20, 20)
    first.send_signal(signal.SIGSTOP)
    met = len(provider.requests)
    assert met < len(commands), "nothing was left to take over"
    second = world.spawn(provider.port, slot=8)
    world.finished(commands, 40)
    late = some(50)
    made = len(provider.requests)
    first.send_signal(signal.SIGCONT)
    world.write(late)
    world.finished(late, 30)
    for process in (second, first):
        process.send_signal(signal.SIGTERM)
        process.wait(12)
    provider.stop()
    assert len(provider.requests) == made + len(late)
    assert len({r["key"] for r in provider.requests}) == len(commands) + len(late)
    assert all(count <= 2 for count in by_command(commands, provider).values())


def test_tasks_that_move_under_load_send_each_command_once(world: DispatchWorld) -> None:
    """A worker joins, another leaves: what runs is finished by its owner, the rest goes over."""
    provider = TinyProvider(delay_s=0.1).start()
    accounts = [account("a", provider.port, keys=False)]
    commands = some(900)
    one = world.start(accounts, 5, static=False)
    world.write(commands[:600])
    # The group may still wait out the session and the lease of a worker that was killed before.
    until(lambda: len(provider.requests) > 150, 60)
    two = world.start(accounts, 6, static=False)
    until(lambda: any(task.live for task in list(two.worker.tasks.values())), 60)
    world.write(commands[600:])
    until(lambda: two.worker.commands.sent > 20, 30)
    one.end()
    assert one.worker.commands.sent > 150
    world.finished(commands, 30)
    two.end()
    provider.stop()
    requests = by_command(commands, provider)
    assert len(requests) == len(commands)
    assert set(requests.values()) == {1}
