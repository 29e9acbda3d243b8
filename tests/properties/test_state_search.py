"""Searches of a task's state give what a sorted set of its entries would give, whatever was put,
committed, taken back and searched before."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.runtime.state import TaskState

KEYS = st.integers(0, 9).map(lambda number: b"k%d" % number)
ENTRIES = st.tuples(st.sampled_from("tw\xff"), st.integers(0, 30)).map(
    lambda parts: f"{parts[0]}:{parts[1]:02d}"
)
PREFIXES = st.sampled_from([b"t:", b"w:", b"t:0", b"t:1", "\xff:".encode("latin-1")])
ACTIONS = st.one_of(
    st.tuples(st.just("put"), KEYS, ENTRIES),
    st.tuples(st.just("put"), KEYS, ENTRIES),
    st.tuples(st.just("forget"), KEYS),
    st.tuples(st.just("commit")),
    st.tuples(st.just("rollback")),
    st.tuples(st.just("search"), PREFIXES, st.none() | st.integers(0, 31), st.integers(1, 20)),
    st.tuples(st.just("search"), PREFIXES, st.none() | st.integers(0, 31), st.integers(1, 20)),
)


def entries_of(key: bytes, value: Mapping[str, Any]) -> list[bytes]:
    return [value["entry"].encode("latin-1") + key]


def encode(_key: bytes, value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode()


@settings(max_examples=60, deadline=None)
@given(st.lists(ACTIONS, max_size=60))
def test_a_search_finds_every_entry_and_no_other(actions: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        state = TaskState(0, Path(folder) / "0", encode, json.loads, entries_of)
        now: dict[bytes, bytes] = {}
        committed: dict[bytes, bytes] = {}
        for number, (what, *rest) in enumerate(actions):
            if what == "put":
                key, entry = rest
                value = {"entry": entry}
                state.put(key, value, state.encode(key, value))
                now[key] = entries_of(key, value)[0]
            elif what == "forget":
                state.put(rest[0], None, None)
                now.pop(rest[0], None)
            elif what == "commit":
                state.commit(number, 0)
                committed = dict(now)
            elif what == "rollback":
                state.rollback()
                now = dict(committed)
            else:
                prefix, place, limit = rest
                end = None if place is None else prefix[:2] + b"%02d" % place
                found = state.scan(prefix, limit, end)
                expected = sorted(
                    entry
                    for entry in now.values()
                    if entry.startswith(prefix) and (end is None or entry < end)
                )
                assert found == expected[:limit]
        state.close()
