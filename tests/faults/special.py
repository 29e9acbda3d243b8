"""Scenarios that a mutant needs and that no plain fault brings about. Each runs while the load is
on, and is harmless to a pipeline without the bug."""

import os
import signal
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, Message, Producer

from pipeline.domain.drafts import blank_event
from pipeline.simulators.behaviour import behaviour
from pipeline.simulators.people import email, phone
from pipeline.simulators.script import Kind, parse
from tests.faults import config_for_faults
from tests.faults.history import Notice, Sent
from tests.faults.load import Load, request
from tests.faults.mutants import Plan
from tests.faults.sources import places
from tests.faults.stack import PREFIX, Stack
from tests.faults.topics_for_tests import quiet

WINDOW_S: Final = Plan(0).window_s


def open_receipt(stack: Stack, load: Load, seed: int) -> list[Notice]:
    """A worker of receipts stops between writing `delivered` and committing it, while the window
    of the step ends: the record stands in the log, behind the last stable offset. Silence is only
    silence up to the high watermark, so fallback waits (for an urgent message, 5 s)."""
    return [_one_open_receipt(stack, load, number) for number in _silent_people(seed, 3)]


def _silent_people(seed: int, count: int) -> list[int]:
    """People whom the provider keeps silent about on the first attempt by SMS."""
    import yaml

    script = parse(yaml.safe_load(config_for_faults.script(WINDOW_S)))
    found: list[int] = []
    number = 50_000
    while len(found) < count:
        number += 1
        first = behaviour(seed, "sms-a", "sms", "DE", phone("DE", number), 1, script)
        if first.kind is Kind.SILENT:
            found.append(number)
    return found


def _one_open_receipt(stack: Stack, load: Load, person: int) -> Notice:
    reader = Consumer(
        quiet(
            stack.bootstrap,
            group_id=f"special{uuid.uuid4().hex[:6]}",
            isolation_level="read_committed",
            auto_offset_reset="latest",
            enable_auto_commit=False,
        )
    )
    writer = Producer(
        quiet(
            stack.bootstrap,
            transactional_id=f"special-{person}",
            transaction_timeout_ms=30_000,
            partitioner="murmur2_random",
        )
    )
    writer.init_transactions(20)
    parts = places(stack.bootstrap, PREFIX + "dispatched")
    parts += places(stack.bootstrap, PREFIX + "accepted.urgent")
    for part in parts:
        part.offset = -1  # from its end
    reader.assign(parts)
    reader.poll(1.0)
    key = f"special-{person}"
    load.send(
        "intake",
        key.encode(),
        request(
            idempotency_key=key,
            to={"phone": phone("DE", person), "email": email("DE", person)},
            route=[{"channel": "sms"}, {"channel": "email"}],
            labels={"special": key},
        ),
        Sent(("intake", 0, 0), 0, "good", key),
    )
    try:
        event = _dispatched(stack, reader, key)
    finally:
        reader.close()
    appended: list[int] = []

    def reported(error: KafkaError | None, message: Message) -> None:
        assert error is None, error
        appended.append(message.timestamp()[1])

    name = f"special-{person}"
    said = {
        **blank_event(
            name, "delivered", event["tenant"], event["message_id"], event["recipient_key"]
        ),
        "step": event["step"],
        "channel": event["channel"],
        "provider": event["provider"],
        "origin": "receipts",
        "provider_event_id": name,
        "provider_message_id": event["provider_message_id"],
        "occurred_at": int(time.time() * 1000),
    }
    time.sleep(max(0.0, event["occurred_at"] / 1000 + WINDOW_S - 1.0 - time.time()))
    writer.begin_transaction()
    writer.produce(
        PREFIX + "delivered",
        stack.codec.encode("Event", said),
        event["recipient_key"],
        on_delivery=reported,
    )
    writer.flush(10)
    time.sleep(3.0)  # the window ends in the middle of this
    writer.commit_transaction(10)
    return Notice(
        appended[0], appended[0], event["provider"], "delivered", name,
        event["message_id"], event["step"],
    )  # fmt: skip


def _dispatched(stack: Stack, reader: Consumer, key: str) -> Mapping[str, Any]:
    """The `dispatched` event of the message with this label."""
    deadline = time.monotonic() + 30
    message_id = None
    events: dict[str, Mapping[str, Any]] = {}
    while time.monotonic() < deadline:
        message = reader.poll(0.2)
        if message is None or message.error() is not None:
            continue
        _, value = stack.codec.decode(message.value())
        if (message.topic() or "").endswith("dispatched"):
            events[value["message_id"]] = value
        elif value["labels"].get("special") == key:
            message_id = value["message_id"]
        if message_id in events:
            return events[message_id]
    raise TimeoutError(f"{key} was not dispatched within 30 s")


def late_commands(stack: Stack, load: Load, seed: int) -> list[Notice]:
    """Both dispatchers stand still (within their session) while messages with a deadline of two
    seconds pile up before them."""
    pids = [pid for slot in (0, 1) if (pid := stack.pid("dispatch", slot)) is not None]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        for number in range(40):
            key = f"late-{number}"
            load.send(
                "intake",
                key.encode(),
                request(
                    idempotency_key=key,
                    to={"phone": phone("DE", 60_000 + number), "email": email("DE", number)},
                    route=[{"channel": "sms"}, {"channel": "email"}],
                    deadline=int(time.time() * 1000) + 2_000,
                ),
                Sent(("intake", 0, 0), 0, "good", key),
            )
        time.sleep(5.0)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    return []


SPECIAL: Final[Mapping[str, Callable[[Stack, Load, int], list[Notice]]]] = {
    "open_receipt": open_receipt,
    "late_commands": late_commands,
}
