"""The simulated provider without its sockets: what it remembers, and what it does with a request.
`server.py` gives it requests and carries out what it decides."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from pipeline.simulators.behaviour import DOUBTFUL, Answer, Behaviour, behaviour, country_of
from pipeline.simulators.ledger import VERSION, address_id, lines
from pipeline.simulators.script import Script
from pipeline.simulators.writer import LedgerWriter

_HUGE: Final = b'{"id": "' + b"x" * (10 * 1024 * 1024) + b'"}'
_HTML: Final = b"<!doctype html><title>Welcome</title><p>Please sign in to the network.</p>"


@dataclass(frozen=True, slots=True)
class DueReceipt:
    """A receipt to send at `due` (milliseconds since the epoch)."""

    due: int
    account: str
    url: str
    reference: str
    id: str
    kind: str
    event: str
    code: str | None
    country: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What goes back to the caller, after `delay_ms`; `answer` tells resets and silence apart from
    answers. The receipts are to be scheduled at once."""

    answer: Answer
    status: int
    body: bytes
    headers: Mapping[str, str]
    delay_ms: int = 0
    receipts: tuple[DueReceipt, ...] = ()


@dataclass(slots=True)
class _Taken:
    """What the provider knows of one key, or of one request where keys are not honoured."""

    account: str
    channel: str
    country: str
    key: str
    reference: str
    address: str
    attempt: int
    id: str
    url: str
    behaviour: Behaviour | None  # None: to be worked out when a request brings the address
    requests: int = 0
    handed_over: bool = False


class Provider:
    """Every account of one simulated provider. Not thread-safe; it never waits.

    Give it an existing ledger and it goes on where that one ends: honoured keys and attempt
    numbers are remembered, and `resume` gives the receipts that are still owed.
    """

    def __init__(self, seed: int, script: Script, ledger: LedgerWriter, now: int) -> None:
        self.seed = seed
        self.script = script
        self.requests = 0
        self._ledger = ledger
        self._keys: dict[tuple[str, str], _Taken] = {}
        self._attempts: dict[tuple[str, str], int] = {}
        ledger.write(
            {
                "what": "open",
                "at": now,
                "version": VERSION,
                "seed": seed,
                "windows_s": dict(script.windows_s),
            }
        )

    def resume(self, path: Path) -> list[DueReceipt]:
        """Reads the ledger that this provider continues; call it once, before any request."""
        owed: dict[tuple[str, str], list[DueReceipt]] = {}
        sent: dict[str, list[tuple[str, str]]] = {}
        for line in lines(path):
            match line["what"]:
                case "request":
                    self._remember(line)
                case "handover":
                    taken = self._keys.get((line["account"], line["key"]))
                    if taken is not None and line["honoured"]:
                        taken.handed_over = True
                    for receipt in _planned(line):
                        owed.setdefault((receipt.id, receipt.event), []).append(receipt)
                case "receipt":
                    sent.setdefault(line["callback"], []).append((line["id"], line["event"]))
                case "ack" | "gave_up":
                    for name in sent.pop(line["callback"], ()):
                        if owed.get(name):
                            owed[name].pop(0)
        return [receipt for receipts in owed.values() for receipt in receipts]

    def request(
        self, account: str, channel: str, key: str, credential: str, body: bytes, now: int
    ) -> Decision:
        """One request that was read whole; `credential` is the Authorization header."""
        self.requests += 1
        rules = self.script.account(account)
        if rules.credential and credential != f"Bearer {rules.credential}":
            return _refusal(401, "bad_credentials", None)
        try:
            given = orjson.loads(body)
            address, reference = given["to"], given["reference"]
            url = given["callback_url"]
        except (ValueError, KeyError, TypeError):
            return _refusal(400, "bad_request", None)
        if not (isinstance(address, str) and isinstance(reference, str) and isinstance(url, str)):
            return _refusal(400, "bad_request", None)
        honoured = rules.honours_keys and key != ""
        taken = self._keys.get((account, key)) if honoured else None
        if taken is None:
            taken = self._take(account, channel, key, reference, address)
            if honoured:
                self._keys[account, key] = taken
        does = taken.behaviour
        if does is None:
            does = taken.behaviour = behaviour(
                self.seed,
                account,
                taken.channel,
                taken.country,
                address,
                taken.attempt,
                self.script,
            )
        taken.url = url
        taken.requests += 1
        return self._decide(taken, does, honoured, now)

    def _take(self, account: str, channel: str, key: str, reference: str, address: str) -> _Taken:
        attempt = self._attempts.get((account, reference), 0) + 1
        self._attempts[account, reference] = attempt
        return _Taken(
            account=account,
            channel=channel,
            country=country_of(address),
            key=key,
            reference=reference,
            address=address_id(address),
            attempt=attempt,
            id=_message_id(account, reference, attempt),
            url="",
            behaviour=None,
        )

    def _decide(self, taken: _Taken, does: Behaviour, honoured: bool, now: int) -> Decision:
        settled = taken.requests > 1 and does.settles and does.answer in DOUBTFUL
        answer = Answer.ACCEPTED if settled else does.answer
        status = 202 if settled else does.status
        self._ledger.write(
            {
                "what": "request",
                "at": now,
                "account": taken.account,
                "channel": taken.channel,
                "country": taken.country,
                "key": taken.key,
                "reference": taken.reference,
                "address": taken.address,
                "attempt": taken.attempt,
                "repeat": taken.requests - 1,
                "behaviour": does.kind,
                "answer": answer,
                "status": status,
                "code": does.code,
                "id": None if answer is Answer.REFUSED else taken.id,
            }
        )
        receipts: tuple[DueReceipt, ...] = ()
        if not taken.handed_over and (does.handed_over or settled):
            taken.handed_over = True
            line = {
                "what": "handover",
                "at": now,
                "account": taken.account,
                "channel": taken.channel,
                "key": taken.key,
                "reference": taken.reference,
                "address": taken.address,
                "attempt": taken.attempt,
                "id": taken.id,
                "honoured": honoured,
                "reaches": does.reaches or settled,
                "country": taken.country,
                "url": taken.url,
                "plan": [
                    [planned.delay_ms, planned.kind, f"{taken.id}-{planned.kind}", planned.code]
                    for planned in does.receipts
                ],
            }
            self._ledger.write(line)
            receipts = tuple(_planned(line))
        if answer is Answer.REFUSED:
            refusal = _refusal(status, does.code or "bad_request", does.retry_after_s)
            return Decision(
                answer, status, refusal.body, refusal.headers, does.answer_delay_ms, receipts
            )
        return Decision(
            answer,
            status,
            _answer_body(answer, taken.id),
            _headers("text/html" if answer is Answer.HTML else "application/json"),
            0 if taken.requests > 1 else does.answer_delay_ms,
            receipts,
        )

    def _remember(self, line: Mapping[str, Any]) -> None:
        account, reference = line["account"], line["reference"]
        known = self._attempts.get((account, reference), 0)
        self._attempts[account, reference] = max(known, line["attempt"])
        if not (line["key"] and self.script.account(account).honours_keys):
            return
        taken = self._keys.get((account, line["key"]))
        if taken is not None:
            taken.requests += 1
            return
        self._keys[account, line["key"]] = _Taken(
            account=account,
            channel=line["channel"],
            country=line["country"],
            key=line["key"],
            reference=reference,
            address=line["address"],
            attempt=line["attempt"],
            id=line["id"] or _message_id(account, reference, line["attempt"]),
            url="",
            behaviour=None,
            requests=1,
        )


def _planned(line: Mapping[str, Any]) -> Iterator[DueReceipt]:
    for delay_ms, kind, event, code in line["plan"]:
        yield DueReceipt(
            due=line["at"] + delay_ms,
            account=line["account"],
            url=line["url"],
            reference=line["reference"],
            id=line["id"],
            kind=kind,
            event=event,
            code=code,
            country=line["country"],
        )


def _message_id(account: str, reference: str, attempt: int) -> str:
    name = f"{account}\x1f{reference}\x1f{attempt}".encode()
    return "m-" + hashlib.blake2b(name, digest_size=12).hexdigest()


def _headers(content_type: str, retry_after_s: int | None = None) -> dict[str, str]:
    headers = {"Content-Type": content_type}
    if retry_after_s is not None:
        headers["Retry-After"] = str(retry_after_s)
    return headers


def _refusal(status: int, code: str, retry_after_s: int | None) -> Decision:
    body = orjson.dumps({"error": {"code": code, "message": f"refused: {code}"}})
    return Decision(Answer.REFUSED, status, body, _headers("application/json", retry_after_s))


def _answer_body(answer: Answer, message_id: str) -> bytes:
    match answer:
        case Answer.ACCEPTED:
            return b'{"id":"%s"}' % message_id.encode()
        case Answer.HTML:
            return _HTML
        case Answer.HUGE:
            return _HUGE
        case Answer.HALF:
            return b'{"id":"%s' % message_id.encode()
        case Answer.ERROR:
            return b"Internal Server Error"
        case _:
            return b""
