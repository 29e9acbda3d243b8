"""A small history in which everything is right, for the oracle's own tests to break."""

from typing import Any

from tests.faults.history import Fault, Handover, History, Notice, Record, Request, Rules, Sent

T0 = 1_700_000_000_000
WINDOW = 4_000


def attempt(**changes: Any) -> dict[str, Any]:
    return {
        "attempt_id": "a",
        "provider": "sms-one",
        "requests": 1,
        "started_at": T0 + 100,
        "result": "accepted",
        "in_doubt": False,
        "resent": False,
    } | changes


def accepted(message: str, offset: int, **changes: Any) -> Record:
    """A message of recipient `r`, urgent, from intake at the same offset."""
    value = {
        "message_id": message,
        "recipient_key": "r",
        "source": {"topic": "intake", "partition": 0, "offset": offset},
        "deadline": T0 + 60_000,
        "on_doubt": "wait",
        "priority": "urgent",
    }
    return Record("accepted.urgent", 0, offset, T0, value | changes)


def command(message: str, step: int, offset: int, at: int, **changes: Any) -> Record:
    value = {
        "message_id": message,
        "recipient_key": "r",
        "command_id": f"{message}/{step}/0",
        "step": step,
        "try_no": 0,
        "channel": "sms",
        "priority": "urgent",
        "window_ms": WINDOW,
        "expires_at": at + 10_000,
    }
    return Record("send.sms.urgent", 0, offset, at, value | changes)


def event(topic: str, message: str, step: int, offset: int, at: int, **changes: Any) -> Record:
    value = {
        "event_id": f"{topic}/{message}/{step}/{changes.get('try_no', 0)}",
        "message_id": message,
        "recipient_key": "r",
        "command_id": f"{message}/{step}/0",
        "step": step,
        "try_no": 0,
        "occurred_at": at,
        "origin": "dispatch",
        "attempts": [],
        "reason": None,
        "field": None,
        "blind": False,
        "provider_event_id": None,
        "source": None,
    }
    return Record(topic, 0, offset, at, value | changes)


def rejection(message: str, offset: int, **changes: Any) -> Record:
    """The rejection of the intake record at `offset`."""
    source = {"topic": "intake", "partition": 0, "offset": offset}
    names = {"source": source, "event_id": f"rejected/{offset}", "command_id": None}
    return event("rejected", message, 0, offset, T0, **names, **changes)


def outcome(message: str, offset: int, at: int, **changes: Any) -> Record:
    value = {
        "event_id": f"outcome/{message}",
        "message_id": message,
        "status": "delivered",
        "reason": "delivered",
        "step": 0,
        "attempts": 1,
        "occurred_at": at,
    }
    return Record("outcomes", 0, offset, at, value | changes)


def state(
    message: str, offset: int, steps: list[str], said: str = "", live: str | None = None
) -> Record:
    value = {
        "message_id": message,
        "accepted_offset": 0 if message == "m0" else 1,
        "steps": [{"status": status} for status in steps],
        "outcome": said,
        "command_id": live,
    }
    return Record("fallback.changelog", 0, offset, T0, value, f"m:{message}".encode())


def right() -> History:
    """m0 is delivered at its first step; m1 is silent there, delivered at the second, and its
    first step's delivery comes late; one request is malformed and one repeats m0."""
    late = T0 + 200 + WINDOW
    return History(
        sent=[
            Sent(("intake", 0, 0), T0, "good", "k0"),
            Sent(("intake", 0, 1), T0, "good"),
            Sent(("intake", 0, 2), T0, "malformed"),
            Sent(("intake", 0, 3), T0, "repeat", "k0"),
        ],
        topics={
            "accepted.urgent": [accepted("m0", 0), accepted("m1", 1), accepted("m0", 3)],
            "rejected": [
                rejection("", 2, origin="accept", field="to.phone", reason="invalid"),
                rejection("m0", 3, origin="fallback", reason="duplicate"),
            ],
            "send.sms.urgent": [
                command("m0", 0, 0, T0 + 50),
                command("m1", 0, 1, T0 + 60),
                command("m1", 1, 2, late + 10),
            ],
            "dispatched": [
                event("dispatched", "m0", 0, 0, T0 + 150, attempts=[attempt()]),
                event("dispatched", "m1", 0, 1, T0 + 200, attempts=[attempt(attempt_id="b")]),
                event(
                    "dispatched",
                    "m1",
                    1,
                    2,
                    late + 60,
                    attempts=[attempt(attempt_id="c", started_at=late + 20)],
                ),
            ],
            "timed-out": [event("timed-out", "m1", 0, 0, late + 5, origin="fallback")],
            "delivered": [
                event("delivered", "m0", 0, 0, T0 + 400, origin="receipts", provider_event_id="e0")
            ],
            "late-receipts": [event("late-receipts", "m1", 0, 0, late + 900, origin="fallback")],
            "outcomes": [outcome("m0", 0, T0 + 420), outcome("m1", 1, late + 500, step=1)],
            "fallback.changelog": [
                state("m0", 0, ["dispatched"]),
                state("m0", 1, ["delivered"], "delivered"),
                state("m1", 2, ["timed_out", "dispatched"]),
            ],
            "dispatch.journal": [
                Record(
                    "dispatch.journal",
                    0,
                    0,
                    T0,
                    {
                        "entries": [
                            {
                                "command_id": "m0/0/0",
                                "topic": "send.sms.urgent",
                                "partition": 0,
                                "offset": 0,
                            }
                        ]
                    },
                )
            ],
        },
        live={("outcomes", 0): {0}, ("dispatched", 0): {0, 1}},
        requests=[
            Request(1, T0 + 100, "sms-one", "key0", "m0", 0, T0 + 120, "202"),
            Request(2, T0 + 160, "sms-one", "key1", "m1", 0, T0 + 180, "202"),
            Request(3, late + 30, "sms-one", "key2", "m1", 1, late + 40, "202"),
        ],
        handovers=[
            Handover(T0 + 110, "sms-one", "key0", "m0", 0),
            Handover(T0 + 170, "sms-one", "key1", "m1", 0),
            Handover(late + 35, "sms-one", "key2", "m1", 1),
        ],
        notices=[
            Notice(T0 + 380, T0 + 395, "sms-one", "delivered", "e0", "m0", 0),
            Notice(late + 400, late + 410, "sms-one", "delivered", "e1", "m1", 1),
            Notice(late + 800, late + 810, "sms-one", "delivered", "e2", "m1", 0),
        ],
        rules=Rules(
            honours_keys={"sms-one": True, "sms-two": False},
            accounts_by_channel={"sms": 2},
            max_tries={"urgent": 2},
        ),
    )


def changed(record: Record, **changes: Any) -> Record:
    """The same record with other values; `at` and `offset` belong to the record itself."""
    at = changes.pop("at", record.at)
    offset = changes.pop("offset", record.offset)
    return Record(
        record.topic, record.partition, offset, at, {**record.value, **changes}, record.key
    )


KILL = Fault("kill", "dispatch", T0, T0 + 1_000)
