"""Rows of a file become outcomes in a file, through a real Kafka Connect worker at both ends, with
the connectors of deploy/connect as they stand there."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastavro import schemaless_reader

from pipeline.runtime.codec import load_schemas
from tests.connect import world
from tests.connect.world import Line, message_ids, next_release, rows
from tests.servers.connect import ConnectWorker
from tests.servers.registry import EmbeddedRegistry
from tests.waiting import until

ROWS = range(1_000)
OUTCOME = load_schemas()["Outcome"]
PATIENCE_S = 90.0
"""Seconds for a thousand messages on a machine that does something else too."""


@contextmanager
def connected(folder: Path, kafka: str, line: Line, sink: str, **env: str) -> Iterator[Path]:
    """A worker with the source and a sink; yields the folder of both files."""
    (folder / "requests.jsonl").touch()
    paths = {
        "REQUESTS_FILE": str(folder / "requests.jsonl"),
        "OUTCOMES_FILE": str(folder / "outcomes"),
        "PIPELINE_PREFIX": line.prefix,
        "CONNECT_GROUP": f"{line.prefix}connect",
    }
    worker = ConnectWorker(folder, kafka, paths | env)
    worker.start()
    try:
        worker.put("requests-from-file")
        worker.put(sink)
        yield folder
    finally:
        worker.stop()


def add(folder: Path, numbers: range) -> None:
    with (folder / "requests.jsonl").open("a", encoding="utf-8") as file:
        file.write(rows(numbers))


def read_bytes(path: Path) -> list[dict[str, object]]:
    """What the sink wrote without a registry: each outcome in Avro's single-object encoding, a
    character a byte, and a line's end behind it."""
    raw = io.BytesIO(path.read_bytes().decode().encode("latin-1"))
    found = []
    while head := raw.read(10):
        assert head == b"\xc3\x01" + OUTCOME.fingerprint
        value = schemaless_reader(raw, OUTCOME.parsed, None)
        assert isinstance(value, dict)
        found.append(value)
        assert raw.read(1) == b"\n"
    return found


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_without_a_registry_every_row_has_its_outcome(tmp_path: Path, kafka: str, prefix: str):
    with (
        world.line(tmp_path, kafka, prefix) as line,
        connected(tmp_path, kafka, line, "outcomes-bytes-to-file") as folder,
    ):
        add(folder, ROWS)
        path = folder / "outcomes"
        # A body may hold a byte that looks like a line's end, so lines are at least outcomes.
        until(lambda: line.well() and lines(path) >= len(ROWS) <= len(read_whole(path)), PATIENCE_S)
        outcomes = read_bytes(path)
    assert len(outcomes) == len(ROWS)
    assert {one["message_id"] for one in outcomes} == message_ids(ROWS)
    assert {(one["status"], one["channel"]) for one in outcomes} == {("delivered", "sms")}


def read_whole(path: Path) -> list[dict[str, object]]:
    """`read_bytes`, or nothing while the last outcome is still being written."""
    try:
        return read_bytes(path)
    except (EOFError, AssertionError):
        return []


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[EmbeddedRegistry]:
    found = EmbeddedRegistry(tmp_path)
    found.start()
    yield found
    found.stop()


def test_with_a_registry_they_are_readable_while_a_new_release_rolls_in(
    tmp_path: Path, kafka: str, prefix: str, registry: EmbeddedRegistry
):
    """The sink reads outcomes by the schemas that the registry holds, before, during and after a
    roll to a release whose Message and Outcome have a field more."""
    colour = {"name": "colour", "type": "string", "doc": "New.", "default": "none"}
    release = next_release(tmp_path / "next", colour, "message.avsc", "outcome.avsc")
    with (
        world.line(tmp_path, kafka, prefix, registry.address) as line,
        connected(
            tmp_path, kafka, line, "outcomes-to-file", APICURIO_URL=registry.native
        ) as folder,
    ):
        path = folder / "outcomes"
        add(folder, range(400))
        until(lambda: line.well() and lines(path) >= 400, PATIENCE_S)
        line.roll("accept", release)
        add(folder, range(400, 600))  # messages of the new release, read by the one before
        until(lambda: line.well() and lines(path) >= 600, PATIENCE_S)
        line.roll("fallback", release)
        line.roll("dispatch", release)
        add(folder, range(600, len(ROWS)))
        until(lambda: line.well() and lines(path) >= len(ROWS), PATIENCE_S)
        text = path.read_text(encoding="utf-8")
        versions = registry.versions(f"{prefix}outcomes-value")
    told = re.findall(r"^Struct\{.*?\bmessage_id=([0-9a-f-]{36}),", text, re.MULTILINE)
    assert len(told) == len(ROWS)
    assert set(told) == message_ids(ROWS)
    assert versions == [1, 2]
    assert text.count("colour=none") == len(ROWS) - 600
