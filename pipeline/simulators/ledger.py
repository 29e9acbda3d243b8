"""The simulator's ledger: what really happened at the provider, in order, append-only.

A file of JSON lines; every line has `what` and `at` (milliseconds since the epoch, the simulator's
clock). A last line that was cut off by a kill is ignored. The kinds:

`open`      the simulator started: `version`, `seed`, `windows_s` by channel [shortest, longest]
`request`   a request was read whole: `account`, `channel`, `country`, `key` (idempotency key),
            `reference`, `address` (`address_id` of it), `attempt` (from 1), `repeat` (how often
            this honoured key had been seen before), `behaviour`, `answer` (what goes over the wire:
            accepted, refused, error, reset, none, html, empty, huge, half), `status`, `code`, `id`
            (the provider's message id; null when refused)
`hung_up`   the caller of a request that was never answered gave it up: `account`, `key`
`handover`  the message was taken for the person, who gets it unless `reaches` is false: `account`,
            `channel`, `key`, `reference`, `address`, `attempt`, `id`, `honoured` (the account
            honours keys: at most one of these per key), `reaches`, `country`, `url` (of the
            callback) and `plan`, the receipts to come: [ms after `at`, kind, event id, code]
`receipt`   one receipt goes into a callback for the first time: `callback` (its webhook-id),
            `event`, `kind`, `id`, `reference` (ours, whether or not the receipt shows it)
`ack`       a callback was answered with 2xx: `callback`, `status`, `tries`
`gave_up`   a callback got no 2xx in two minutes: `callback`, `status` (0: no answer), `tries`

A request stands before its handover, and both before the answer leaves the simulator; they reach
the file within 50 ms.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

VERSION: Final = 1


def address_id(address: str) -> str:
    """An address as the ledger names it."""
    return hashlib.blake2b(address.encode(), digest_size=12).hexdigest()


@dataclass(frozen=True, slots=True)
class Request:
    """One request that was read whole."""

    at: int
    account: str
    channel: str
    country: str
    key: str
    reference: str
    address: str
    attempt: int
    repeat: int
    behaviour: str
    answer: str
    status: int
    code: str | None
    id: str | None


@dataclass(frozen=True, slots=True)
class PlannedReceipt:
    """A receipt that is due `delay_ms` after its hand-over."""

    delay_ms: int
    kind: str
    event: str
    code: str | None


@dataclass(frozen=True, slots=True)
class Handover:
    """A message taken for a person."""

    at: int
    account: str
    channel: str
    key: str
    reference: str
    address: str
    attempt: int
    id: str
    honoured: bool
    reaches: bool
    country: str
    url: str
    plan: tuple[PlannedReceipt, ...]


@dataclass(frozen=True, slots=True)
class SentReceipt:
    """One receipt inside one callback. `acknowledged_at` is when a 2xx for the callback was read,
    None while there was none."""

    at: int
    callback: str
    event: str
    kind: str
    id: str
    reference: str
    acknowledged_at: int | None
    status: int
    tries: int


@dataclass(slots=True)
class Ledger:
    """A ledger read back. Lists are in the order of the file; `receipts` has one entry for each
    receipt in each callback, so a repeated event id stands there as often as it was sent."""

    seed: int | None = None
    windows_s: dict[str, list[float]] = field(default_factory=dict)
    starts: int = 0
    requests: list[Request] = field(default_factory=list)
    handovers: list[Handover] = field(default_factory=list)
    receipts: list[SentReceipt] = field(default_factory=list)
    gave_up: list[str] = field(default_factory=list)
    hung_up: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    """By account and key: when callers gave up requests that were never answered."""

    @classmethod
    def load(cls, path: Path | str) -> "Ledger":
        """Reads a ledger, also while it is being written.

        Raises:
            ValueError: a line other than the last is not JSON, or its `what` is not known.
        """
        ledger = cls()
        sent: list[dict[str, Any]] = []
        acks: dict[str, dict[str, Any]] = {}
        for line in lines(path):
            what, at = line.pop("what"), line.pop("at")
            match what:
                case "open":
                    ledger.seed, ledger.windows_s = line["seed"], line["windows_s"]
                    ledger.starts += 1
                case "request":
                    ledger.requests.append(Request(at=at, **line))
                case "handover":
                    plan = tuple(PlannedReceipt(*entry) for entry in line.pop("plan"))
                    ledger.handovers.append(Handover(at=at, plan=plan, **line))
                case "receipt":
                    sent.append({"at": at, **line})
                case "ack":
                    acks.setdefault(line["callback"], {"at": at, **line})
                case "hung_up":
                    ledger.hung_up.setdefault((line["account"], line["key"]), []).append(at)
                case "gave_up":
                    ledger.gave_up.append(line["callback"])
                case _:
                    raise ValueError(f"{path}: unknown line {what!r}")
        for entry in sent:
            ack = acks.get(entry["callback"])
            ledger.receipts.append(
                SentReceipt(
                    **entry,
                    acknowledged_at=ack["at"] if ack else None,
                    status=ack["status"] if ack else 0,
                    tries=ack["tries"] if ack else 0,
                )
            )
        return ledger

    def requests_by_reference(self) -> Mapping[str, list[Request]]:
        """Every request of a message's step."""
        return _grouped(self.requests, "reference")

    def requests_by_address(self) -> Mapping[str, list[Request]]:
        """Every request to a person; the keys are `address_id`s."""
        return _grouped(self.requests, "address")

    def handovers_by_reference(self) -> Mapping[str, list[Handover]]:
        """Every hand-over of a message's step: more than one is a double send."""
        return _grouped(self.handovers, "reference")

    def handovers_by_address(self) -> Mapping[str, list[Handover]]:
        """Every hand-over to a person; the keys are `address_id`s."""
        return _grouped(self.handovers, "address")

    def receipts_by_reference(self) -> Mapping[str, list[SentReceipt]]:
        """Every receipt of a message's step."""
        return _grouped(self.receipts, "reference")

    def double_sends(self) -> list[tuple[str, list[Handover]]]:
        """References that were handed over more than once, with all of their hand-overs."""
        by_reference = self.handovers_by_reference()
        return [(name, found) for name, found in by_reference.items() if len(found) > 1]

    def deliveries(self) -> Mapping[str, int | None]:
        """By provider message id: when the first receipt that says delivered or read was
        acknowledged, None when none was."""
        found: dict[str, int | None] = {}
        for receipt in self.receipts:
            if receipt.kind in {"delivered", "read"}:
                before, now = found.get(receipt.id), receipt.acknowledged_at
                found[receipt.id] = now if before is None else min(before, now or before)
        return found

    def repeated_keys(self) -> int:
        """Requests that came under a key which the account had seen and honours."""
        return sum(1 for request in self.requests if request.repeat)

    def outstanding(self) -> int:
        """Planned receipts that are not acknowledged yet and were not given up."""
        lost = set(self.gave_up)
        done: dict[tuple[str, str], int] = defaultdict(int)
        for receipt in self.receipts:
            if receipt.acknowledged_at is not None or receipt.callback in lost:
                done[receipt.id, receipt.event] += 1
        return sum(len(handover.plan) for handover in self.handovers) - sum(done.values())


def lines(path: Path | str) -> Iterator[dict[str, Any]]:
    """Every whole line as a dictionary; see `Ledger.load` for errors."""
    with Path(path).open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.endswith(b"\n"):
                return  # being written, or cut off by a kill
            if raw == b"\n":
                continue
            try:
                yield json.loads(raw)
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}") from None


def _grouped(items: list[Any], name: str) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = defaultdict(list)
    for item in items:
        groups[getattr(item, name)].append(item)
    return dict(groups)
