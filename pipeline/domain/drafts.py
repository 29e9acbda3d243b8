"""Events and dead letters with everything that a caller does not know left blank."""

from pipeline.domain.outcomes import Inbound
from pipeline.domain.records import RECORD_VERSION, DeadLetter, Event, Source

NO_TENANT = "default"  # of what could not be traced to a message


def source_of(record: Inbound) -> Source:
    """Where a record was read."""
    return {"topic": record.topic, "partition": record.partition, "offset": record.offset}


def blank_event(
    event_id: str, kind: str, tenant: str, message_id: str, recipient_key: str
) -> Event:
    """An event that says nothing yet but what it is about."""
    return {
        "record_version": RECORD_VERSION,
        "event_id": event_id,
        "kind": kind,
        "tenant": tenant,
        "message_id": message_id,
        "recipient_key": recipient_key,
        "command_id": None,
        "step": 0,
        "try_no": 0,
        "occurred_at": 0,
        "accepted_at": None,
        "channel": "",
        "provider": "",
        "country": "",
        "priority": "",
        "category": "",
        "campaign": None,
        "labels": {},
        "result": "",
        "error_class": None,
        "code": None,
        "reason": None,
        "field": None,
        "retry_at": None,
        "provider_message_id": None,
        "provider_event_id": None,
        "latency_ms": 0,
        "cost": 0.0,
        "currency": "",
        "attempts": [],
        "origin": "",
        "in_doubt": False,
        "resent": False,
        "blind": False,
        "reached_before": False,
        "source": None,
    }


def blank_letter(dead_letter_id: str, stage: str, category: str, reason: str) -> DeadLetter:
    """A dead letter that belongs to no message yet."""
    return {
        "record_version": RECORD_VERSION,
        "dead_letter_id": dead_letter_id,
        "tenant": NO_TENANT,
        "message_id": None,
        "recipient_key": None,
        "stage": stage,
        "category": category,
        "reason": reason,
        "error_class": None,
        "detail": "",
        "channel": "",
        "provider": "",
        "priority": "",
        "occurred_at": 0,
        "source": {"topic": "", "partition": 0, "offset": 0},
        "message": None,
        "attempts": [],
        "raw_key": None,
        "raw_value": None,
    }
