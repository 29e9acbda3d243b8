"""Receipts: what providers report of attempts, turned into events.

One task follows three topics. `callbacks` are parsed: a report that carries our reference becomes
an event at once; one that names only the provider's own id goes to `unmatched` under that id.
`references` (written by dispatch) and `unmatched` share key and partition count, so one task sees
both sides and joins them, whichever comes first.

What a record does when it comes...

| record     | twice                 | before its partner    | late                 | never             |
|------------|-----------------------|-----------------------|----------------------|-------------------|
| callback   | same event ids        | -                     | the event all the    | nothing: fallback |
|            |                       |                       | same: fallback judges| waits its window  |
| reference  | changes nothing       | is remembered for 72 h| releases the parked  | receipts expire   |
| unmatched  | once parked, or the   | is parked for 24 h    | dead letter when the | -                 |
|            | same event id         |                       | reference is gone    |                   |

Two workers cannot own one task; what a torn transaction repeats has the same ids.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from pipeline.domain import ids, reference
from pipeline.domain.drafts import NO_TENANT, blank_event, blank_letter, source_of
from pipeline.domain.errors import ErrorClass
from pipeline.domain.outcomes import Answer, Emit, Inbound, Put, Wake
from pipeline.domain.ports import Account, Adapter, Report, Unreadable
from pipeline.domain.ports_stage import StateView, timer_entry
from pipeline.domain.records import (
    RECORD_VERSION,
    Callback,
    DeadLetter,
    KnownReference,
    ParkedReceipts,
    Receipt,
    Reference,
)
from pipeline.domain.tracing import carried, of_query

STAGE: Final = "receipts"
READS: Final = ("callbacks", "references", "unmatched")
WRITES: Final = ("delivered", "read", "failed", "unmatched", "dead-letter", "receipts.changelog")

KEEP_REFERENCE_MS: Final = 72 * 3_600_000  # as long as the longest window
PARK_MS: Final = 24 * 3_600_000
PARKED_PER_ID: Final = 32  # a provider reports a handful of things of one message
_MAX_ID: Final = 256  # longer ones would let a provider fill a state record to its limit
_EVENT_TOPICS: Final = ("delivered", "read", "failed")
_CODE: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_COUNTRY: Final = re.compile(r"[A-Z]{2}")

UNREADABLE: Final = "unreadable"
UNKNOWN_PROVIDER: Final = "unknown_provider"
UNKNOWN_EVENT: Final = "unknown_event"
UNKNOWN_REFERENCE: Final = "unknown_reference"
TOO_MANY_PARKED: Final = "too_many_parked"
_REASONS: Final = {
    UNREADABLE: "the callback is not what the provider documents",
    UNKNOWN_PROVIDER: "no configured provider has this name",
    UNKNOWN_EVENT: "the provider reported something that its table does not list",
    UNKNOWN_REFERENCE: "the receipt belongs to no message that we know",
    TOO_MANY_PARKED: "too many receipts wait for the reference of one message",
}


class Receipts:
    """The stage. Pure: the same record, state and time give the same answers.

    `accounts` are the configured providers by name, `adapters` the provider table by adapter
    name, `reference_keys` every key that a reference may be signed with.
    """

    def __init__(
        self,
        accounts: Mapping[str, Account],
        adapters: Mapping[str, Adapter],
        reference_keys: Mapping[int, bytes],
        *,
        park_ms: int = PARK_MS,
        keep_reference_ms: int = KEEP_REFERENCE_MS,
    ) -> None:
        self._accounts = accounts
        self._adapters = adapters
        self._keys = reference_keys
        self._park_ms = park_ms
        self._keep_reference_ms = keep_reference_ms

    def on_record(self, record: Inbound, state: StateView, now: int) -> list[Answer]:
        """Callback, reference or unmatched receipt; bad input becomes a dead letter."""
        if record.topic == "callbacks":
            return self._on_callback(record)
        if record.topic == "references":
            return self._on_reference(record, cast(Reference, record.value), state, now)
        if record.topic == "unmatched":
            return self._on_unmatched(record, cast(Receipt, record.value), state, now)
        raise ValueError(f"receipts does not read {record.topic}")

    def on_wake(self, wake: Wake, state: StateView, now: int) -> list[Answer]:
        """Forgets an old reference, or gives up on receipts whose reference never came."""
        value = state.get(wake.key)
        if value is None or self._due(wake.key, value) > wake.due:
            return []
        if wake.key.startswith(b"r:"):
            return [Put(wake.key, None)]
        parked = cast(ParkedReceipts, value)
        letters = [
            _letter_of_receipt(
                receipt, UNKNOWN_REFERENCE, f"waited {self._park_ms // 60_000} minutes", now
            )
            for receipt in parked["receipts"]
        ]
        return [*letters, Put(wake.key, None)]

    def index(self, key: bytes, value: Mapping[str, Any]) -> Sequence[bytes]:
        """One timer an entry: when a reference is forgotten, when parked receipts expire."""
        return (timer_entry(self._due(key, value), key),)

    def hold_ms(self, _key: bytes, _value: Mapping[str, Any]) -> int:
        """Receipts knows no silence: nothing waits to be heard out."""
        return 0

    def on_start(self, task: int, state: StateView, now: int) -> None:
        """Nothing to prepare: all that a task knows is in its state."""

    def on_commit(
        self, _task: int, _state: StateView, _positions: Mapping[str, int]
    ) -> list[Answer]:
        """Receipts keeps no books."""
        return []

    def on_crash(
        self, _record: Inbound, _state: StateView, _now: int, _detail: str
    ) -> list[Answer]:
        """Nothing to settle: the dead letter that the runtime writes keeps the record."""
        return []

    def _due(self, key: bytes, value: Mapping[str, Any]) -> int:
        if key.startswith(b"r:"):
            return int(value["forget_at"])
        return int(value["parked_at"]) + self._park_ms

    # callbacks

    def _on_callback(self, record: Inbound) -> list[Answer]:
        callback = cast(Callback, record.value)
        letters = _Letters(record, callback)
        account = self._accounts.get(callback["provider"])
        adapter = self._adapters.get(account.adapter) if account else None
        if account is None or adapter is None:
            letters.add(UNKNOWN_PROVIDER, "add it to the configuration and replay")
            return letters.answers()
        try:
            reports = adapter.read_callback(account, callback)
        except Unreadable as problem:
            letters.add(UNREADABLE, _plain(str(problem))[:200])
            return letters.answers()
        trace = carried(record.headers)
        named = {(report.reference, report.provider_message_id) for report in reports}
        if not trace and len(named) == 1:
            trace = of_query(callback["query"])  # of the message that was sent with this address
        emits: dict[tuple[str, ...], Answer] = {}  # a batch may list one report twice
        for number, report in enumerate(reports, start=1):
            where = f"report {number} of {len(reports)}"
            emit = self._on_report(record, callback, account, report, where, letters, trace)
            if emit is not None and emit.value is not None:
                emits.setdefault((emit.topic, emit.key or "", *_sameness(emit.value)), emit)
        return [*emits.values(), *letters.answers()]

    def _on_report(
        self,
        record: Inbound,
        callback: Callback,
        account: Account,
        report: Report,
        where: str,
        letters: "_Letters",
        trace: tuple[tuple[str, bytes], ...],
    ) -> Emit | None:
        named = reference.read(report.reference, self._keys) if report.reference else None
        if report.kind == "accepted":
            return None  # the answer to the request said so already
        if report.kind not in _EVENT_TOPICS:
            letters.add(UNKNOWN_EVENT, f"{where}: code {_code(report.code) or 'none'}", named)
            return None
        receipt = _receipt(record, callback, report)
        if named is not None:
            return self._event(receipt, named, trace)
        # An account that is known to send only its own id may put anything in the other field.
        if report.reference and account.capabilities.echoes_reference:
            letters.add(UNKNOWN_REFERENCE, f"{where}: the reference is not one of ours")
            return None
        provider_id = receipt["provider_message_id"]
        if not provider_id:
            letters.add(UNKNOWN_REFERENCE, f"{where}: names no message")
            return None
        if len(provider_id) > _MAX_ID:
            letters.add(UNREADABLE, f"{where}: its message id is longer than {_MAX_ID} characters")
            return None
        return Emit("unmatched", f"{receipt['provider']}:{provider_id}", receipt, trace)

    # the join

    def _on_reference(
        self, record: Inbound, value: Reference, state: StateView, now: int
    ) -> list[Answer]:
        named = reference.read(value["reference"], self._keys)
        if named is None:
            detail = "the reference is signed with a key that is not configured"
            return [_letter_of_reference(record, value, detail)]
        names = _state_name(value["provider"], value["provider_message_id"])
        answers: list[Answer] = []
        known = cast(KnownReference | None, state.get(b"r:" + names))
        if known is None or known["reference"] != value["reference"]:
            fresh: KnownReference = {
                "record_version": RECORD_VERSION,
                "tenant": value["tenant"],
                "reference": value["reference"],
                "forget_at": now + self._keep_reference_ms,
            }
            answers.append(Put(b"r:" + names, fresh))
        parked = cast(ParkedReceipts | None, state.get(b"p:" + names))
        if parked is not None:
            trace = carried(record.headers)
            answers += [self._event(receipt, named, trace) for receipt in parked["receipts"]]
            answers.append(Put(b"p:" + names, None))
        return answers

    def _on_unmatched(
        self, record: Inbound, receipt: Receipt, state: StateView, now: int
    ) -> list[Answer]:
        names = _state_name(receipt["provider"], receipt["provider_message_id"] or "")
        known = cast(KnownReference | None, state.get(b"r:" + names))
        if known is not None:
            named = reference.read(known["reference"], self._keys)
            if named is None:
                detail = "its reference is signed with a key that is no longer configured"
                return [_letter_of_receipt(receipt, UNKNOWN_REFERENCE, detail, now)]
            return [self._event(receipt, named, carried(record.headers))]
        parked = cast(ParkedReceipts | None, state.get(b"p:" + names))
        waiting = parked["receipts"] if parked else []
        if any(_sameness(other) == _sameness(receipt) for other in waiting):
            return []
        if len(waiting) >= PARKED_PER_ID:
            detail = f"{PARKED_PER_ID} wait already"
            return [_letter_of_receipt(receipt, TOO_MANY_PARKED, detail, now)]
        # The time starts again with each new receipt: every one of them waits a full day.
        fresh: ParkedReceipts = {
            "record_version": RECORD_VERSION,
            "tenant": receipt["tenant"],
            "parked_at": now,
            "receipts": [*waiting, receipt],
        }
        return [Put(b"p:" + names, fresh)]

    def _event(
        self, receipt: Receipt, named: reference.Named, trace: tuple[tuple[str, bytes], ...]
    ) -> Emit:
        account = self._accounts.get(receipt["provider"])
        kind = receipt["kind"]
        event = blank_event(
            ids.event_id(
                named.message_id, named.step, 0, receipt["provider"], kind, _detail(receipt)
            ),
            kind,
            named.tenant,
            named.message_id,
            named.recipient_key,
        )
        event["step"] = named.step  # a reference is the same for every try of a step
        event["occurred_at"] = receipt["occurred_at"]
        event["channel"] = account.channel if account else ""
        event["provider"] = receipt["provider"]
        event["country"] = receipt["country"]
        event["error_class"] = receipt["error_class"]
        event["code"] = receipt["code"]
        event["provider_message_id"] = receipt["provider_message_id"]
        event["provider_event_id"] = receipt["provider_event_id"] or None
        event["origin"] = STAGE
        return Emit(kind, named.recipient_key, event, trace)


class _Letters:
    """Dead letters of one callback: one a category, because each carries the whole body."""

    def __init__(self, record: Inbound, callback: Callback) -> None:
        self._record = record
        self._callback = callback
        self._found: dict[str, list[tuple[str, reference.Named | None]]] = {}

    def add(self, category: str, detail: str, named: reference.Named | None = None) -> None:
        self._found.setdefault(category, []).append((detail, named))

    def answers(self) -> list[Answer]:
        return [self._letter(category, found) for category, found in self._found.items()]

    def _letter(self, category: str, found: list[tuple[str, reference.Named | None]]) -> Emit:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        letter = blank_letter(
            ids.dead_letter_id(STAGE, category, self._callback["callback_id"]),
            STAGE,
            category,
            _REASONS[category],
        )
        named = found[0][1] if len(found) == 1 else None
        if named is not None:
            letter["tenant"] = named.tenant
            letter["message_id"] = named.message_id
            letter["recipient_key"] = named.recipient_key
        letter["detail"] = "; ".join(detail for detail, _ in found[:5]) + more
        letter["provider"] = self._callback["provider"]
        letter["raw_value"] = self._callback["body"]
        return _about(letter, self._record)


def _receipt(record: Inbound, callback: Callback, report: Report) -> Receipt:
    received = callback["received_at"]
    error_class = None
    if report.kind == "failed":
        error_class = (report.error_class or ErrorClass.UNKNOWN).value
    message_id = report.provider_message_id
    event_id = _plain(report.provider_event_id)
    if len(event_id) > _MAX_ID:
        event_id = hashlib.blake2b(event_id.encode(), digest_size=16).hexdigest()
    return {
        "record_version": RECORD_VERSION,
        "tenant": NO_TENANT,
        "provider": callback["provider"],
        "kind": report.kind,
        "reference": None,
        "provider_message_id": None if message_id is None else _plain(message_id),
        "provider_event_id": event_id,
        "error_class": error_class,
        "code": _code(report.code),
        # A provider's clock may be wrong; nothing that we were told happened after that.
        "occurred_at": min(report.occurred_at, received) if report.occurred_at > 0 else received,
        "received_at": received,
        "country": report.country if _COUNTRY.fullmatch(report.country) else "",
        "callback_id": callback["callback_id"],
        "source": source_of(record),
    }


def _detail(receipt: Receipt) -> str:
    """What tells two reports of one kind apart: the provider's event id, or all we know."""
    return receipt["provider_event_id"] or f"{receipt['code'] or ''}@{receipt['occurred_at']}"


def _sameness(receipt: Mapping[str, Any]) -> tuple[str, str]:
    return receipt["kind"], _detail(cast(Receipt, receipt))


def _state_name(provider: str, provider_message_id: str) -> bytes:
    return f"{provider}:{provider_message_id}".encode()


def _plain(text: str) -> str:
    """`text` as UTF-8 can hold it: JSON may smuggle in half a character."""
    return text.encode("utf-8", "replace").decode()


def _code(code: str | None) -> str | None:
    """A code as events may carry it; free text could hold an address."""
    if code is None or _CODE.fullmatch(code):
        return code
    return "other"


def _letter_of_receipt(receipt: Receipt, category: str, detail: str, now: int) -> Emit:
    provider, provider_id = receipt["provider"], receipt["provider_message_id"] or ""
    letter = blank_letter(
        ids.dead_letter_id(STAGE, category, provider, provider_id, *_sameness(receipt)),
        STAGE,
        category,
        _REASONS[category],
    )
    letter["detail"] = detail
    letter["provider"] = provider
    letter["occurred_at"] = now
    letter["source"] = receipt["source"]
    letter["raw_key"] = f"{provider}:{provider_id}".encode()
    letter["raw_value"] = json.dumps(receipt).encode()
    return Emit("dead-letter", None, letter)


def _letter_of_reference(record: Inbound, value: Reference, detail: str) -> Emit:
    letter = blank_letter(
        ids.dead_letter_id(
            STAGE, UNKNOWN_REFERENCE, value["provider"], value["provider_message_id"]
        ),
        STAGE,
        UNKNOWN_REFERENCE,
        _REASONS[UNKNOWN_REFERENCE],
    )
    letter["tenant"] = value["tenant"]
    letter["detail"] = detail
    letter["provider"] = value["provider"]
    letter["raw_key"] = record.key
    letter["raw_value"] = json.dumps(value).encode()
    return _about(letter, record)


def _about(letter: DeadLetter, record: Inbound) -> Emit:
    letter["source"] = source_of(record)
    letter["occurred_at"] = record.timestamp
    return Emit("dead-letter", letter["recipient_key"], letter, carried(record.headers))
