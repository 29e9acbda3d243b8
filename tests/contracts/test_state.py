"""One suite for every task state: what a stage sees, and what a transaction leaves behind."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.ports_stage import TIMER, timer_entry, timer_of
from pipeline.runtime.state import TaskState
from pipeline.testing import MemoryState

State = Any  # MemoryState or TaskState: the same manners, which is what this file says
Make = Callable[[], State]


def index(key: bytes, value: Mapping[str, Any]) -> Sequence[bytes]:
    """A timer at `due` and a plain entry for `tag`, each only where the value has one."""
    entries = []
    if value.get("due") is not None:
        entries.append(timer_entry(value["due"], key))
    if value.get("tag"):
        entries.append(b"l:" + value["tag"].encode() + b":" + key)
    return entries


def put(state: State, key: bytes, value: Any) -> None:
    state.put(key, value, None if value is None else encode(key, value))


def encode(key: bytes, value: Mapping[str, Any]) -> bytes:
    return orjson.dumps(value)


@pytest.fixture(params=["memory", "disk"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    opened: list[TaskState] = []

    def build() -> State:
        if request.param == "memory":
            return MemoryState(3, index)
        state = TaskState(3, tmp_path / f"state-{len(opened)}", encode, orjson.loads, index)
        opened.append(state)
        return state

    yield build
    for state in opened:
        state.close()


def test_an_unknown_key_is_none(make: Make) -> None:
    assert make().get(b"m:1") is None
    assert make().task == 3


def test_the_open_transaction_is_seen_at_once_and_gone_after_a_rollback(make: Make) -> None:
    state = make()
    put(state, b"m:1", {"due": 5})
    assert state.get(b"m:1") == {"due": 5}
    assert state.scan(TIMER, 10) == [timer_entry(5, b"m:1")]
    state.rollback()
    assert state.get(b"m:1") is None
    assert state.scan(TIMER, 10) == []


def test_a_commit_stays_and_keeps_its_position(make: Make) -> None:
    state = make()
    put(state, b"m:1", {"due": 5})
    state.commit(7, 1_000)
    put(state, b"m:1", {"due": 9})
    state.rollback()
    assert state.get(b"m:1") == {"due": 5}
    assert state.scan(b"", 10) == [timer_entry(5, b"m:1")]
    assert state.position == 7


def test_a_value_that_changes_leaves_no_old_index_entry(make: Make) -> None:
    state = make()
    put(state, b"m:1", {"due": 5, "tag": "a"})
    state.commit(1, 0)
    put(state, b"m:1", {"due": 6, "tag": ""})
    assert state.scan(b"", 10) == [timer_entry(6, b"m:1")]
    state.commit(2, 0)
    assert state.scan(b"", 10) == [timer_entry(6, b"m:1")]
    put(state, b"m:1", None)
    assert state.scan(b"", 10) == []
    state.commit(3, 0)
    assert state.scan(b"", 10) == []
    assert state.get(b"m:1") is None


def test_an_entry_taken_back_and_given_again_in_one_transaction_is_there(make: Make) -> None:
    state = make()
    put(state, b"m:1", {"due": 5})
    state.commit(1, 0)
    put(state, b"m:1", None)
    put(state, b"m:1", {"due": 5})
    assert state.scan(TIMER, 10) == [timer_entry(5, b"m:1")]
    state.commit(2, 0)
    assert state.scan(TIMER, 10) == [timer_entry(5, b"m:1")]


def test_a_scan_stops_at_its_prefix_and_its_limit_in_byte_order(make: Make) -> None:
    state = make()
    for number in (30, 10, 256, 20):
        put(state, f"m:{number}".encode(), {"due": number, "tag": "x"})
        state.commit(number, 0)
    put(state, b"m:15", {"due": 15})
    assert [timer_of(entry)[0] for entry in state.scan(TIMER, 3)] == [10, 15, 20]
    assert [timer_of(entry)[0] for entry in state.scan(TIMER, 9)] == [10, 15, 20, 30, 256]
    assert len(state.scan(b"l:x:", 9)) == 4
    assert state.scan(b"l:y", 9) == []
    assert state.scan(TIMER, 0) == []
    assert [timer_of(e)[0] for e in state.scan(TIMER, 9, timer_entry(20, b""))] == [10, 15]
    assert state.scan(TIMER, 9, timer_entry(10, b"")) == []


def test_what_a_stage_does_to_a_value_changes_nothing(make: Make) -> None:
    state = make()
    value: dict[str, Any] = {"due": 5, "list": [1]}
    put(state, b"m:1", value)
    value["list"].append(2)
    first = state.get(b"m:1")
    first["list"].append(3)
    assert state.get(b"m:1")["list"] == [1]
    state.commit(1, 0)
    state.get(b"m:1")["list"].append(4)
    assert state.get(b"m:1")["list"] == [1]


def test_a_transaction_tells_the_changelog_the_last_value_of_each_key(make: Make) -> None:
    state = make()
    put(state, b"m:1", {"due": 1})
    put(state, b"m:2", {"due": 2})
    put(state, b"m:1", None)
    changes = dict(state.changes())
    assert set(changes) == {b"m:1", b"m:2"}
    assert changes[b"m:1"] is None
    state.commit(1, 0)
    assert list(state.changes()) == []


def test_a_restore_from_the_changelog_gives_state_and_index_back(make: Make) -> None:
    first, second = make(), make()
    log: list[tuple[bytes, Any]] = []
    for puts in (
        [(b"m:1", {"due": 1, "tag": "a"}), (b"m:2", {"due": 2})],
        [(b"m:2", None), (b"m:3", {"due": 3})],
        [(b"m:1", {"due": 9})],
    ):
        for key, value in puts:
            put(first, key, value)
        log += first.changes()
        first.commit(len(log), 0)
    second.restore(log, len(log))
    assert second.scan(b"", 99) == first.scan(b"", 99)
    assert second.position == first.position == 5
    for key in (b"m:1", b"m:2", b"m:3"):
        assert second.get(key) == first.get(key)


VALUES = st.none() | st.fixed_dictionaries(
    {"due": st.none() | st.integers(0, 5), "tag": st.sampled_from(["", "a", "b"])}
)
STEPS = st.lists(
    st.tuples(st.sampled_from([b"m:1", b"m:2", b"c:1"]), VALUES)
    | st.sampled_from(["commit", "rollback"]),
    max_size=20,
)


@given(
    steps=STEPS,
    prefix=st.sampled_from([b"", TIMER, b"l:", b"l:a"]),
    limit=st.integers(0, 6),
    end=st.none() | st.sampled_from([timer_entry(3, b""), b"l:b"]),
)
@settings(max_examples=60, deadline=None)
def test_memory_and_disk_agree_on_every_history(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[Any],
    prefix: bytes,
    limit: int,
    end: bytes | None,
) -> None:
    memory = MemoryState(3, index)
    disk = TaskState(3, tmp_path_factory.mktemp("state") / "db", encode, orjson.loads, index)
    try:
        for number, step in enumerate(steps):
            for state in (memory, disk):
                if step == "commit":
                    state.commit(number, 0)
                elif step == "rollback":
                    state.rollback()
                else:
                    put(state, *step)
            assert memory.scan(prefix, limit, end) == disk.scan(prefix, limit, end)
            for key in (b"m:1", b"m:2", b"c:1"):
                assert memory.get(key) == disk.get(key)
    finally:
        disk.close()
