"""The fakes are only worth something when they fail where the real thing would."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from pipeline.domain.outcomes import Answer, Emit, Inbound, Put, Wake
from pipeline.domain.ports_stage import StateView, timer_entry, window_entry
from pipeline.testing import (
    Advance,
    Crash,
    Driver,
    Input,
    ManualClock,
    MemoryLog,
    MovePartition,
    Repeat,
    Settle,
    StatelessDriver,
    StrayAnswer,
    StuckTimer,
    World,
    murmur2,
    partition_of,
)

WAIT = 1_000


class Counting:
    """Counts a key's records and says the count `WAIT` after the first one."""

    entry = staticmethod(timer_entry)

    def __init__(self) -> None:
        self.started: list[int] = []

    def on_record(self, record: Inbound, state: StateView, now: int) -> list[Answer]:
        assert record.key is not None
        key = b"n:" + record.key
        value = state.get(key) or {"count": 0, "due": now + WAIT}
        value["count"] += 1
        return [Put(key, value), Emit("seen", record.key.decode(), {"count": value["count"]})]

    def on_wake(self, wake: Wake, state: StateView, now: int) -> list[Answer]:
        value = state.get(wake.key)
        assert value is not None
        said = {"count": value["count"], "at": now, "blind": wake.blind}
        return [Emit("said", wake.key[2:].decode(), said), Put(wake.key, None)]

    def index(self, key: bytes, value: Mapping[str, Any]) -> Sequence[bytes]:
        return (self.entry(value["due"], key),)

    def hold_ms(self, key: bytes, value: Mapping[str, Any]) -> int:
        return 300

    def on_crash(self, record: Inbound, state: StateView, now: int, detail: str) -> list[Answer]:
        raise AssertionError(detail)

    def on_start(self, task: int, state: StateView, now: int) -> None:
        self.started.append(task)

    def on_commit(self, task: int, state: StateView, positions: Mapping[str, int]) -> list[Answer]:
        return []


class Windows(Counting):
    entry = staticmethod(window_entry)


class Leaving(Counting):
    """Forgets to drop its timer."""

    def on_wake(self, wake: Wake, state: StateView, now: int) -> list[Answer]:
        return []


def world(stage: type[Counting] = Counting) -> tuple[World, Driver]:
    log = MemoryLog(ManualClock(), partitions=4)
    driver = Driver(log, "counting", stage, ["in"])
    return World(log, [driver]), driver


def a_record(key: str = "k") -> Input:
    return Input("in", key, {})


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_keys_hash_as_kafka_hashes_them(data: bytes, expected: int) -> None:
    assert murmur2(data) == expected & 0xFFFFFFFF


def test_a_key_always_has_one_partition_and_no_key_takes_turns() -> None:
    log = MemoryLog(ManualClock(), partitions=4)
    assert {log.append("in", "k", {}).partition for _ in range(5)} == {partition_of(b"k", 4)}
    assert {log.append("in", None, {}).partition for _ in range(4)} == {0, 1, 2, 3}


def test_a_reader_cannot_change_the_log() -> None:
    log = MemoryLog(ManualClock())
    record = log.append("in", "k", {"list": [1]})
    log.read("in", record.partition, 0, 1)[0].value["list"].append(2)
    assert log.values("in") == [{"list": [1]}]


def test_a_value_that_cannot_be_written_is_refused_where_it_is_written() -> None:
    def check(topic: str, key: bytes | None, value: Any) -> Any:
        raise TypeError(topic)

    with pytest.raises(TypeError, match="in"):
        MemoryLog(ManualClock(), check=check).append("in", "k", {})


def test_time_goes_from_timer_to_timer() -> None:
    """A timer fires at its moment, not at the end of the time that passes."""
    here, _ = world()
    start = here.clock.now()
    here.play([a_record(), a_record(), Advance(10 * WAIT)])
    assert here.log.values("said") == [{"count": 2, "at": start + WAIT, "blind": False}]
    assert here.clock.now() == start + 10 * WAIT


def test_a_timer_is_never_early() -> None:
    here, _ = world()
    here.play([a_record(), Advance(WAIT - 1)])
    assert here.log.values("said") == []
    here.play([Advance(1)])
    assert len(here.log.values("said")) == 1


def test_a_crash_before_the_commit_leaves_no_trace() -> None:
    plain, _ = world()
    plain.play([a_record(), a_record(), Advance(WAIT)])
    here, driver = world()
    here.play([a_record(), Crash(), a_record(), Crash(), Advance(WAIT)])
    assert here.log.values("seen", "said") == plain.log.values("seen", "said")
    assert driver.content() == {}


def test_a_torn_transaction_shows_its_outputs_twice() -> None:
    here, _ = world()
    here.play([a_record(), Crash(torn=True)])
    assert here.log.values("seen") == [{"count": 1}, {"count": 1}]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_transaction_may_be_told_to_fail(number: int) -> None:
    """Records and timers alike: the state is as if nothing had happened, torn outputs repeat."""
    plain, _ = world()
    plain.play([a_record(), Settle(), a_record(), Advance(WAIT)])
    for torn in (False, True):
        here, driver = world()
        driver.faults = {number: Crash(torn=torn)}
        here.play([a_record(), Settle(), a_record(), Advance(WAIT)])
        assert driver.transactions == 4
        wanted = plain.log.values("seen", "said")
        again = here.log.values("seen", "said")
        assert len(again) == len(wanted) + torn
        assert [value for value in wanted if value not in again] == []
        assert driver.content() == {}


def test_a_moved_task_goes_on_where_the_changelog_ends() -> None:
    here, driver = world()
    here.play([a_record(), Settle(), MovePartition(), a_record(), Advance(WAIT)])
    assert [said["count"] for said in here.log.values("said")] == [2]
    assert here.log.end("counting.changelog", partition_of(b"k", 4)) == 3
    assert driver.content() == {}


def test_a_changelog_that_lost_something_is_noticed() -> None:
    here, driver = world()
    here.play([a_record()])
    driver.state(partition_of(b"k", 4)).restore([(b"n:secret", {"count": 1, "due": 1})], 1)
    with pytest.raises(AssertionError, match="does not give task"):
        here.play([MovePartition()])


def test_a_repeat_is_another_record() -> None:
    here, _ = world()
    here.play([a_record(), Repeat(2)])
    assert here.log.values("seen") == [{"count": 1}, {"count": 2}, {"count": 3}]


def test_a_stage_that_leaves_its_timer_is_noticed() -> None:
    here, _ = world(Leaving)
    with pytest.raises(StuckTimer):
        here.play([a_record(), Advance(WAIT)])


def test_a_window_fires_in_time_when_all_is_heard() -> None:
    here, _ = world(Windows)
    start = here.clock.now()
    here.play([a_record(), Advance(2 * WAIT)])
    assert here.log.values("said") == [{"count": 1, "at": start + WAIT, "blind": False}]


def test_a_window_in_a_deaf_world_waits_and_is_blind() -> None:
    here, driver = world(Windows)
    driver.hears = False
    start = here.clock.now()
    here.play([a_record(), Advance(2 * WAIT)])
    assert here.log.values("said") == [{"count": 1, "at": start + WAIT + 300, "blind": True}]


def test_a_stage_starts_with_every_task_once() -> None:
    log = MemoryLog(ManualClock(), partitions=4)
    made: list[Counting] = []

    def make() -> Counting:
        made.append(Counting())
        return made[-1]

    World(log, [Driver(log, "counting", make, ["in"])]).play([MovePartition()])
    assert [stage.started for stage in made] == [[0, 1, 2, 3], [0, 1, 2, 3]]


class Echo:
    def on_record(self, record: Inbound, now: int) -> Sequence[Answer]:
        if record.value == "put":
            return [Put(b"k", {})]
        return [Emit("out", None, record.value)]


def test_a_stage_without_state_reads_every_record_once() -> None:
    log = MemoryLog(ManualClock())
    here = World(log, [StatelessDriver(log, "echo", Echo, ["in"])])
    here.play([Input("in", None, n) for n in range(20)] + [Crash(stage="echo")])
    assert sorted(log.values("out")) == list(range(20))
    here.play([Input("in", None, 20), Crash(torn=True)])
    assert log.values("out")[20:] == [20, 20]


def test_a_transaction_without_state_may_be_told_to_fail() -> None:
    log = MemoryLog(ManualClock())
    driver = StatelessDriver(log, "echo", Echo, ["in"])
    driver.faults = {1: Crash(), 2: Crash(torn=True)}
    World(log, [driver]).play([Input("in", None, 1)])
    assert log.values("out") == [1, 1]


def test_a_stage_without_state_must_not_put() -> None:
    log = MemoryLog(ManualClock())
    here = World(log, [StatelessDriver(log, "echo", Echo, ["in"])])
    with pytest.raises(StrayAnswer):
        here.play([Input("in", None, "put")])


def test_a_fault_of_an_unknown_stage_is_an_error() -> None:
    here, _ = world()
    with pytest.raises(ValueError, match="no stage nobody"):
        here.play([Crash(stage="nobody")])
