"""Records about handing a command over: events, attempts and references, filled from the command."""

from typing import cast

from pipeline.domain import ids, reference
from pipeline.domain.drafts import blank_event, source_of
from pipeline.domain.outcomes import Inbound
from pipeline.domain.records import RECORD_VERSION, Attempt, Command, Event, Reference


def command_event(
    record: Inbound, origin: str, kind: str, provider: str, detail: str, now: int
) -> Event:
    """An event about the command in `record`, with everything that the command says. `detail` is
    the code that it ends with; it makes the id together with step, try, provider and kind."""
    command = cast(Command, record.value)
    event = blank_event(
        ids.event_id(
            command["message_id"], command["step"], command["try_no"], provider, kind, detail
        ),
        kind,
        command["tenant"],
        command["message_id"],
        command["recipient_key"],
    )
    event["command_id"] = command["command_id"]
    event["step"], event["try_no"] = command["step"], command["try_no"]
    event["occurred_at"], event["accepted_at"] = now, command["accepted_at"]
    event["channel"], event["provider"] = command["channel"], provider
    event["country"], event["priority"] = command["country"], command["priority"]
    event["category"], event["campaign"] = command["category"], command["campaign"]
    event["origin"] = origin
    event["source"] = source_of(record)
    return event


def blank_attempt(command_id: str, provider: str, started_at: int) -> Attempt:
    """An attempt with no request yet."""
    return {
        "attempt_id": ids.attempt_id(command_id, provider),
        "provider": provider,
        "requests": 0,
        "started_at": started_at,
        "latency_ms": 0,
        "result": "",
        "error_class": None,
        "code": None,
        "provider_message_id": None,
        "cost": 0.0,
        "currency": "",
        "in_doubt": False,
        "resent": False,
    }


def reference_text(command: Command, key_id: int, key: bytes) -> str:
    """The reference that every provider of this step gets."""
    named = reference.Named(
        command["tenant"], command["message_id"], command["recipient_key"], command["step"]
    )
    return reference.make(named, key_id, key)


def reference_record(
    command: Command, provider: str, provider_message_id: str, text: str, now: int
) -> Reference:
    """What receipts needs to know a provider's own id by."""
    return {
        "record_version": RECORD_VERSION,
        "provider": provider,
        "provider_message_id": provider_message_id,
        "reference": text,
        "tenant": command["tenant"],
        "message_id": command["message_id"],
        "recorded_at": now,
    }
