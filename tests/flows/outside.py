"""What is around the stages in a flow: dispatch's decisions with requests in flight, and scripted
providers that answer and report. No socket and no sleep; every delay is a moment on the clock."""

import heapq
import json
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pipeline.domain.outcomes import Emit, Inbound
from pipeline.domain.ports import Account, HttpReply, HttpRequest
from pipeline.domain.ports_dispatch import Answered, Finish, NotSent, Progress, Unclear
from pipeline.domain.records import RECORD_VERSION, Callback
from pipeline.providers.generic import CODES
from pipeline.stages.dispatch import Dispatch
from pipeline.testing import MemoryLog

REQUEST_MS = 20


@dataclass(frozen=True)
class Says:
    """What a provider does with one request: its answer after `takes_ms`, and reports (kind, code)
    so many milliseconds after the request. A report may come before the answer."""

    answer: Callable[[str], Answered]
    reports: tuple[tuple[int, str, str | None], ...] = ()
    takes_ms: int = REQUEST_MS
    taken: bool = True


def taken(*reports: tuple[int, str] | tuple[int, str, str], takes_ms: int = REQUEST_MS) -> Says:
    """Accepted; each report is (after ms, kind) or (after ms, kind, code)."""
    return Says(
        lambda own_id: HttpReply(202, {}, json.dumps({"id": own_id}).encode()),
        tuple((*report, None)[:3] for report in reports),
        takes_ms,
    )


def refused(code: str, retry_after_s: int | None = None, *, takes_ms: int = REQUEST_MS) -> Says:
    """A definite no with one of the documented codes."""
    (row,) = (row for row in CODES if row.code == code)
    headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
    body = json.dumps({"error": {"code": code, "message": row.meaning}}).encode()
    return Says(lambda _: HttpReply(row.status or 400, headers, body), (), takes_ms, taken=False)


def no_answer(*reports: tuple[int, str], hears: bool = True) -> Says:
    """The request left and nothing came back; `hears` says whether it was taken all the same."""
    told = tuple((after, kind, None) for after, kind in reports)
    return Says(lambda _: Unclear("read_timeout"), told, 1_000, taken=hears)


def unreachable() -> Says:
    """No connection: certainly not sent."""
    return Says(lambda _: NotSent("connect_failed"), taken=False)


Script = Mapping[str, Sequence[Says]]
"""By provider, or by `provider address` for one person: what it does with the first, second...
request of one message's step. The last one counts for all that follow."""


@dataclass(frozen=True)
class Request:
    """One request as the provider got it."""

    at: int
    provider: str
    address: str
    reference: str
    key: str
    text: str
    taken: bool
    traceparent: str = ""


@dataclass(order=True)
class _Due:
    at: int
    number: int
    act: Callable[[], None] = field(compare=False)


class Outside:
    """Dispatch and the providers behind it, as one actor of a world.

    One request at a time per recipient and lane, in the order of the log; a command that was
    finished is not begun again, which is what dispatch's journal is for.
    """

    def __init__(
        self,
        log: MemoryLog,
        dispatch: Dispatch,
        accounts: Mapping[str, Account],
        topics: Sequence[str],
        script: Script,
    ) -> None:
        self.requests: list[Request] = []
        self.script = script
        self.repeat_callbacks = 1
        self.deaf = False  # reads no commands
        self._life = 0  # of how many dispatchers this one is
        self._flying: dict[str, tuple[str, ...]] = {}
        self._log, self._dispatch, self._accounts, self._topics = log, dispatch, accounts, topics
        self._next: dict[tuple[str, int], int] = {}
        self._seen: set[str] = set()
        self._lanes: dict[tuple[bytes | None, str], deque[Inbound]] = defaultdict(deque)
        self._times: dict[tuple[str, str], int] = defaultdict(int)
        self._by_key: dict[tuple[str, str], tuple[str, Says]] = {}
        self._due: list[_Due] = []
        self._number = 0

    def step(self) -> bool:
        """Takes new commands; begins one where its lane is free."""
        moved = False
        for topic in () if self.deaf else self._topics:
            for partition in range(self._log.partitions):
                start = self._next.get((topic, partition), 0)
                for record in self._log.read(topic, partition, start, 1_000):
                    self._next[topic, partition] = record.offset + 1
                    moved = True
                    lane = self._lanes[record.key, record.value["priority"]]
                    lane.append(record)
                    if len(lane) == 1:
                        self._begin(lane)
        return moved

    def wake(self) -> bool:
        """Answers and reports whose moment has come."""
        moved = False
        while self._due and self._due[0].at <= self._log.clock.now():
            heapq.heappop(self._due).act()
            moved = True
        return moved

    def next_due(self) -> int | None:
        """The next answer or report."""
        return self._due[0].at if self._due else None

    def crash(self) -> None:
        """Dispatch dies; what its requests come to is never known to it."""
        self.deaf = True
        self._life += 1

    def recover(self) -> None:
        """Another dispatcher finds in the journal what the dead one was about to send."""
        self.deaf = False
        for lane in list(self._lanes.values()):
            if lane:
                doubt = self._flying.pop(lane[0].value["command_id"], ())
                self._go_on(lane, self._dispatch.begin(lane[0], doubt))

    def requests_of(self, provider: str) -> list[Request]:
        """What one provider got."""
        return [request for request in self.requests if request.provider == provider]

    def _at(self, after_ms: int, act: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._due, _Due(self._log.clock.now() + after_ms, self._number, act))

    def _begin(self, lane: deque[Inbound]) -> None:
        while lane and lane[0].value["command_id"] in self._seen:
            lane.popleft()
        if lane:
            self._seen.add(lane[0].value["command_id"])
            self._go_on(lane, self._dispatch.begin(lane[0], ()))

    def _go_on(self, lane: deque[Inbound], progress: Progress) -> None:
        todo = progress.next(self._log.clock.now())
        if isinstance(todo, Finish):
            self._write(todo.answers)
            lane.popleft()
            self._begin(lane)
            return
        wanted = progress.request()
        if wanted is None:
            self._go_on(lane, progress)
            return
        began, answer, takes_ms = self._log.clock.now(), *self._request(todo.provider, wanted)
        command, mine = lane[0].value["command_id"], self._life
        self._flying[command] = (*self._flying.get(command, ()), todo.provider)

        def come_back() -> None:
            if mine != self._life:
                return
            now = self._log.clock.now()
            del self._flying[command]
            progress.answered(answer, began, now - began, now)
            self._go_on(lane, progress)

        self._at(takes_ms, come_back)

    def _write(self, answers: Sequence[Emit]) -> None:
        for emit in answers:
            self._log.append(emit.topic, emit.key, emit.value, emit.headers, emit.partition)

    # the provider's side

    def _request(self, provider: str, wanted: HttpRequest) -> tuple[Answered, int]:
        body = json.loads(wanted.body)
        reference, key = body["reference"], wanted.headers["idempotency-key"]
        account = self._accounts[provider]
        honoured = account.capabilities.honours_keys
        if honoured and (provider, key) in self._by_key:
            own_id, says = self._by_key[provider, key]
            self._keep(provider, body, wanted, taken=False)
            again = HttpReply(202, {}, json.dumps({"id": own_id}).encode())
            return (again if says.taken else says.answer(own_id)), REQUEST_MS
        plays = self.script.get(f"{provider} {body['to']}") or self.script[provider]
        turn = self._times[provider, reference]
        self._times[provider, reference] += 1
        says = plays[min(turn, len(plays) - 1)]
        # Of what it is and not of when it came, as the real simulator's.
        own_id = f"{provider}-{reference[-24:]}-{turn}"
        if says.taken:
            self._by_key[provider, key] = (own_id, says)
        self._keep(provider, body, wanted, taken=says.taken)
        for number, (after, kind, code) in enumerate(says.reports):
            told = {
                "id": f"{own_id}-{number}",
                "type": kind,
                "occurred_at": self._log.clock.now() + after,
                "message_id": own_id,
                "code": code,
                "country": "DE",
            }
            if account.capabilities.echoes_reference:
                told["reference"] = reference
            for _ in range(self.repeat_callbacks):
                # Apart from each other: what comes in one moment has no order to be kept.
                query = urlsplit(body["callback_url"]).query
                self._at(after + number, self._reporting(provider, told, query))
        return says.answer(own_id), says.takes_ms

    def _keep(
        self, provider: str, body: Mapping[str, Any], wanted: HttpRequest, *, taken: bool
    ) -> None:
        self.requests.append(
            Request(
                self._log.clock.now(),
                provider,
                body["to"],
                body["reference"],
                wanted.headers["idempotency-key"],
                body["text"],
                taken,
                wanted.headers.get("traceparent", ""),
            )
        )

    def _reporting(self, provider: str, told: Mapping[str, Any], query: str) -> Callable[[], None]:
        def report() -> None:
            value: Callback = {
                "record_version": RECORD_VERSION,
                "tenant": "",
                "callback_id": f"{provider}:{told['id']}",
                "provider": provider,
                "received_at": self._log.clock.now(),
                "method": "POST",
                "path": f"/callbacks/{provider}",
                "query": query,
                "headers": {},
                "body": json.dumps(told).encode(),
            }
            self._log.append("callbacks", None, value)

        return report
