"""What the tests of the operators' commands stand on: the catalogue's topics, a database, a real
fallback and a real sink; accept and dispatch are played by the tests."""

import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.domain import ids
from pipeline.domain.drafts import blank_event
from pipeline.domain.records import Message
from pipeline.runtime.clickhouse import Store
from pipeline.runtime.sink_loop import SinkLoop
from pipeline.stages import sink
from pipeline.topology import CATALOGUE
from tests.broker.loop_world import PEPPER, LoopWorld, loop_world
from tests.broker.sink_world import QUICK
from tests.waiting import until

TENANT = "acme"


@dataclass
class OpsWorld:
    """A running pipeline without accept, dispatch and receipts."""

    loops: LoopWorld
    store: Store
    _commands: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """The answer of the database."""
        return self.store.query(sql)

    def accept(self, number: int, key: str = "", **changes: Any) -> Message:
        """Writes what accept would for a request of a phone number of its own."""
        phone = f"+491511{number:07d}"
        recipient = ids.recipient_key(PEPPER, TENANT, "phone", phone)
        now = self.now()
        found = self.loops.message(
            number,
            recipient_key=recipient,
            message_id=ids.message_id(TENANT, recipient, key or str(number)),
            idempotency_hash=ids.idempotency_hash(PEPPER, TENANT, key) if key else None,
            to={"id": None, "phone": phone, "email": None, "country": None},
            **{"accepted_at": now, "deadline": now + 3_600_000, **changes},
        )
        self.loops.accept([found])
        return found

    def now(self) -> int:
        """The clock that the worker goes by."""
        return self.loops.workers[0][0].clock.now()

    def command(self, message_id: str, step: int = 0) -> dict[str, Any]:
        """Fallback's last command for a step of the message, as soon as it is there."""

        def found() -> dict[str, Any] | None:
            if (message_id, step) not in self._commands:
                self._commands |= {(c["message_id"], c["step"]): c for c in self.loops.commands()}
            return self._commands.get((message_id, step))

        return cast(dict[str, Any], until(found, 20))

    def answer(self, command: Mapping[str, Any], kind: str, **changes: Any) -> None:
        """Writes dispatch's word on a command."""
        name = ids.event_id(
            command["message_id"], command["step"], command["try_no"], "p", kind, ""
        )
        event = blank_event(name, kind, TENANT, command["message_id"], command["recipient_key"])
        copied = ("command_id", "step", "try_no", "channel", "priority", "category", "country")
        event |= {field: command[field] for field in copied}  # type: ignore[typeddict-item]
        event |= {  # type: ignore[typeddict-item]
            "provider": "p",
            "origin": "dispatch",
            "occurred_at": self.now(),
            **changes,
        }
        self.loops.write(kind.replace("_", "-"), "Event", [event])

    def rows(self, message_id: str, kind: str) -> int:
        """How many rows of a kind the message has."""
        ((count,),) = self.ask(
            f"SELECT count() FROM events_unique WHERE message_id = '{message_id}'"
            f" AND kind = '{kind}'"
        )
        return int(count)

    def forget(self, message_id: str) -> None:
        """Takes the message's rows out of the database."""
        self.store.command(
            f"ALTER TABLE events DELETE WHERE message_id = '{message_id}'"
            " SETTINGS mutations_sync = 1"
        )

    def await_row(self, message_id: str, kind: str) -> None:
        """Waits until the sink has stored it."""
        until(lambda: self.rows(message_id, kind), 20)


@contextmanager
def ops_world(kafka: str, clickhouse_url: str, directory: Path) -> Iterator[OpsWorld]:
    """The world, running, with the environment of a command that finds it."""
    prefix, database = f"t{uuid.uuid4().hex[:10]}.", f"ops_{uuid.uuid4().hex[:10]}"
    url = f"{clickhouse_url.rstrip('/')}/{database}"
    stop = threading.Event()
    with loop_world(kafka, prefix, directory) as loops, pytest.MonkeyPatch.context() as patch:
        patch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)
        patch.setenv("PIPELINE_PREFIX", prefix)
        patch.setenv("PIPELINE_PEPPER", PEPPER.hex())
        patch.setenv("CLICKHOUSE_URL", url)
        store = Store(url, sink.COLUMNS)
        store.migrate()
        topics = {topic.name: topic.record for topic in CATALOGUE.inputs("sink")}
        loop = SinkLoop(
            loops.cluster, store, loops.codec, 0, topics, sink.to_row, sink.unreadable, limits=QUICK
        )
        thread = threading.Thread(target=loop.run, args=(stop,), name="sink-0")
        thread.start()
        loops.start(0)
        found = OpsWorld(loops, Store(url))
        try:
            yield found
        finally:
            found.store.close()
            stop.set()
            thread.join(30)
            dropper = Store(clickhouse_url)
            dropper.command(f"DROP DATABASE IF EXISTS {database}")
            dropper.close()
            assert not thread.is_alive(), "the sink did not stop within 30 s"
