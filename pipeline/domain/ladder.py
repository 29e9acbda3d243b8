"""What becomes of one command: the ladder of answers, as a value that needs no socket.

| answer                                          | next                                           |
|-------------------------------------------------|------------------------------------------------|
| accepted                                        | dispatched                                     |
| refused: provider, transient, config, unknown   | the next provider at once                      |
| refused: throttle, channel, recipient, opt_out, | failed, with `retry_at` where there is one     |
| content                                         |                                                |
| unknown, provider honours keys                  | the same request with the same key, 3 in all   |
| unknown, no keys, on_doubt resend               | the next provider, else the same once more;    |
|                                                 | marked resent                                  |
| unknown, no keys, on_doubt wait                 | dispatched, result unknown                     |

What a dead worker may have sent counts as an unknown answer. Once anything is in doubt the command
cannot end as failed: only fallback may judge that, after the window.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, cast

from pipeline.domain import ids, tracing
from pipeline.domain.errors import ErrorClass, Result
from pipeline.domain.handovers import (
    blank_attempt,
    command_event,
    reference_record,
    reference_text,
)
from pipeline.domain.outcomes import Emit, Inbound
from pipeline.domain.ports import Account, Adapter, Delivery, HttpReply, HttpRequest, Reply
from pipeline.domain.ports_dispatch import Answered, Finish, NotSent, Send, Suppressed, Unclear
from pipeline.domain.records import Attempt, Command, Content
from pipeline.domain.switches import NONE, Switches
from pipeline.domain.texts import Rendered

ORIGIN: Final = "dispatch"

MAX_KEYED_REQUESTS: Final = 3
"""Requests with one key, the first included."""

THROTTLED_MS: Final = 1_000
"""When a command that found no room, or a provider without a time of its own, is tried again."""

_ELSEWHERE: Final = frozenset(
    {ErrorClass.PROVIDER, ErrorClass.TRANSIENT, ErrorClass.CONFIG, ErrorClass.UNKNOWN}
)
"""Another provider may still take it."""

_ABOUT_THE_MESSAGE: Final = frozenset(
    {ErrorClass.CONTENT, ErrorClass.RECIPIENT, ErrorClass.CHANNEL, ErrorClass.OPT_OUT}
)
"""A refusal of a repeated key in these classes says that the first request was refused as well;
in the others it only says that this moment was bad."""

NEVER: Final = 1 << 62

_HOPEFUL: Final = (
    ErrorClass.TRANSIENT,
    ErrorClass.PROVIDER,
    ErrorClass.UNKNOWN,
    ErrorClass.CONFIG,
)
"""Of the refusals of several providers the most hopeful one speaks for all."""


@dataclass(frozen=True, slots=True)
class DispatchConfig:
    """What dispatch needs to know besides the command.

    `accounts` are tried in their order. `reference_key` signs references under `reference_key_id`.
    """

    accounts: Sequence[Account]
    adapters: Mapping[str, Adapter]
    render: Callable[[str, Content], Rendered]
    pepper: bytes
    reference_key_id: int
    reference_key: bytes


class Rules:
    """What all commands share: the configuration, who is suppressed, who serves whom."""

    def __init__(
        self, config: DispatchConfig, suppressed: Suppressed, switches: Switches = NONE
    ) -> None:
        self.config, self.suppressed, self.switches = config, suppressed, switches
        self._serving: dict[tuple[str, str], tuple[Account, ...]] = {}

    def serving(self, channel: str, country: str) -> tuple[Account, ...]:
        """The accounts that may take a command, in order of preference."""
        found = self._serving.get((channel, country))
        if found is None:
            found = self._serving[channel, country] = tuple(
                account
                for account in self.config.accounts
                if account.channel == channel
                and (not account.countries or country in account.countries)
            )
        return found


@dataclass(slots=True)
class _Tried:
    """One provider's part in a command. `doubts` counts requests that may have been taken."""

    attempt: Attempt
    account: Account | None
    doubts: int = 0
    refused: ErrorClass | None = None
    retry_after_ms: int | None = None


@dataclass(slots=True)
class _Final:
    kind: str
    result: Result
    provider: str = ""
    error_class: ErrorClass | None = None
    code: str | None = None
    reason: str | None = None
    retry_at: int | None = None


@dataclass(slots=True)
class CommandProgress:
    """What became of one command so far; see the port."""

    rules: Rules
    record: Inbound
    doubt: tuple[str, ...]
    command: Command = field(init=False)
    _tried: dict[str, _Tried] = field(init=False, default_factory=dict)
    _final: _Final | None = field(init=False, default=None)
    _now_with: Account | None = field(init=False, default=None)
    _resending: bool = field(init=False, default=False)
    _resends: int = field(init=False, default=0)
    _last_doubt: str = field(init=False, default="")
    _address_hash: str = field(init=False, default="")
    _expires_at: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.command = cast(Command, self.record.value)
        self._expires_at = self.command["expires_at"]
        accounts = {account.name: account for account in self.rules.config.accounts}
        unkeyed = 0
        for provider in self.doubt:
            account = accounts.get(provider)
            tried = self._trying(provider, account, self.command["accepted_at"])
            tried.attempt["started_at"] = self.record.timestamp
            tried.attempt["requests"] += 1
            self._doubted(tried, ErrorClass.UNKNOWN, "interrupted")
            if not _keyed(account):
                # The dead worker had sent this one while an earlier one was in doubt.
                tried.attempt["resent"] = unkeyed > 0
                unkeyed += 1
        self._resends = max(0, unkeyed - 1)

    @property
    def in_doubt(self) -> bool:
        """See the port."""
        return bool(self._last_doubt)

    # what to do next

    def next(self, now: int) -> Send | Finish:
        """See the port."""
        if self._final is None:
            self._stop_early(now)
        account = self._choose() if self._final is None else None
        if account is not None:
            self._now_with = account
            return Send(
                provider=account.name,
                attempt_id=ids.attempt_id(self.command["command_id"], account.name),
                key_no=self.command["key_no"],
                timeout_ms=account.timeout_ms,
                expires_at=NEVER if self.rules.switches.deadline_ignored else self._expires_at,
            )
        if self._final is None:
            self._give_up(now)
        return self._finish(now)

    def _stop_early(self, now: int) -> None:
        command = self.command
        if now >= self._expires_at and not self.rules.switches.deadline_ignored:
            self._end_refused(ErrorClass.TRANSIENT, "expired", "expired")
            return
        if not self._address_hash:
            self._address_hash = ids.address_hash(
                self.rules.config.pepper, command["tenant"], command["address"]
            )
        if self.rules.suppressed(
            command["tenant"], self._address_hash, command["channel"], command["category"], now
        ):
            self._end_refused(ErrorClass.OPT_OUT, "suppressed", "suppressed")

    def _choose(self) -> Account | None:
        self._resending = False
        serving = self.rules.serving(self.command["channel"], self.command["country"])
        if not self._last_doubt:
            return next((a for a in serving if self._open_to(a.name)), None)
        last = self._tried[self._last_doubt]
        if last.account is not None and _keyed(last.account):
            return last.account if last.doubts < MAX_KEYED_REQUESTS else None
        if self.command["on_doubt"] != "resend" or self._resends >= 1:
            return None
        self._resending = True
        others = (a for a in serving if a.name not in self._tried)
        same = last.account if self._open_to(self._last_doubt) else None
        return next(others, same)

    def _open_to(self, provider: str) -> bool:
        tried = self._tried.get(provider)
        return tried is None or tried.refused is None

    def request(self) -> HttpRequest | None:
        """See the port."""
        account, command, config = self._now_with, self.command, self.rules.config
        assert account is not None
        rendered = config.render(command["channel"], command["content"])
        if rendered.blank:
            self._end_refused(ErrorClass.CONTENT, "content_empty", "nothing to say here")
            return None
        delivery = Delivery(
            address=command["address"],
            text=rendered.text,
            subject=rendered.subject,
            html=rendered.html,
            reference=reference_text(command, config.reference_key_id, config.reference_key),
            idempotency_key=ids.idempotency_key(
                command["message_id"], command["step"], command["key_no"]
            ),
            # Of the step alone, so that a repeat under the same key has the same bytes.
            valid_for_ms=command["window_ms"],
        )
        adapter = config.adapters[account.adapter]
        if not (self.record.headers and account.trace):
            return adapter.build(account, delivery)
        return self._traced(account, adapter, delivery)

    def _traced(self, account: Account, adapter: Adapter, delivery: Delivery) -> HttpRequest:
        """The same, with the message's trace: for the provider itself, and in the address that it
        reports to."""
        headers, attempt = (
            self.record.headers,
            ids.attempt_id(self.command["command_id"], account.name),
        )
        returning = tracing.with_trace(account.callback_url, headers)
        request = adapter.build(replace(account, callback_url=returning), delivery)
        parent = tracing.at_attempt(headers, attempt)
        if not parent:
            return request
        return replace(request, headers={**request.headers, tracing.TRACEPARENT: parent})

    # what came back

    def answered(self, answer: Answered, started_at: int, latency_ms: int, now: int) -> bool:
        """See the port."""
        account = self._now_with
        assert account is not None
        tried = self._trying(account.name, account, started_at)
        tried.attempt["latency_ms"] += latency_ms
        tried.attempt["requests"] += not isinstance(answer, NotSent)
        reply = self._read(account, answer)
        # What was certainly not taken was no second hand-over.
        if self._resending and reply.result is not Result.REFUSED:
            tried.attempt["resent"] = True
            self._resends += 1
        tried.attempt["code"] = reply.code
        tried.attempt["error_class"] = reply.error_class.value if reply.error_class else None
        if reply.result is Result.ACCEPTED:
            self._accepted(tried, reply)
            return False
        if reply.result is Result.UNKNOWN:
            self._doubted(tried, reply.error_class or ErrorClass.UNKNOWN, reply.code)
            return False
        self._refused(tried, reply, now, unsent=isinstance(answer, NotSent))
        return True

    def _read(self, account: Account, answer: Answered) -> Reply:
        if isinstance(answer, NotSent):
            return Reply(Result.REFUSED, ErrorClass.TRANSIENT, answer.code)
        if isinstance(answer, Unclear):
            return Reply(Result.UNKNOWN, ErrorClass.TRANSIENT, answer.code)
        assert isinstance(answer, HttpReply)
        try:
            return self.rules.config.adapters[account.adapter].read_reply(account, answer)
        except Exception:  # noqa: BLE001 - whatever an adapter does, the request was made
            return Reply(Result.UNKNOWN, ErrorClass.UNKNOWN, f"http_{answer.status}")

    def _accepted(self, tried: _Tried, reply: Reply) -> None:
        attempt, account = tried.attempt, tried.account
        assert account is not None
        if _keyed(account):
            tried.doubts = 0  # one key, one message: the earlier requests were this one
        attempt["result"] = Result.ACCEPTED.value
        attempt["provider_message_id"] = reply.provider_message_id
        attempt["cost"], attempt["currency"] = account.cost, account.currency
        self._final = _Final("dispatched", Result.ACCEPTED, account.name)

    def _doubted(self, tried: _Tried, error_class: ErrorClass, code: str | None) -> None:
        tried.doubts += 1
        tried.attempt["result"] = Result.UNKNOWN.value
        tried.attempt["error_class"], tried.attempt["code"] = error_class.value, code
        self._last_doubt = tried.attempt["provider"]

    def _refused(self, tried: _Tried, reply: Reply, now: int, *, unsent: bool) -> None:
        error_class = reply.error_class or ErrorClass.UNKNOWN
        if tried.doubts and _keyed(tried.account):
            if unsent:
                tried.doubts += 1  # a try all the same, so that an unreachable provider ends it
            elif error_class in _ABOUT_THE_MESSAGE:
                tried.doubts = 0
                self._last_doubt = next((n for n, t in self._tried.items() if t.doubts), "")
                self._now_refused(tried, error_class, reply)
                self._end_refused(error_class, reply.code, None, provider=tried.attempt["provider"])
            else:
                self._end_unknown(tried.attempt["provider"], error_class, reply.code)
            return
        self._now_refused(tried, error_class, reply)
        if error_class not in _ELSEWHERE:
            retry_at = None
            if reply.retry_after_ms is not None or error_class is ErrorClass.THROTTLE:
                retry_at = now + (reply.retry_after_ms or THROTTLED_MS)
            self._end_refused(
                error_class, reply.code, None, provider=tried.attempt["provider"], retry_at=retry_at
            )

    def _now_refused(self, tried: _Tried, error_class: ErrorClass, reply: Reply) -> None:
        tried.refused = error_class
        tried.retry_after_ms = reply.retry_after_ms
        if not tried.doubts:
            tried.attempt["result"] = Result.REFUSED.value

    def crowded(self, now: int) -> Finish:
        """See the port."""
        if self._final is None:
            self._end_refused(
                ErrorClass.THROTTLE, "no_room", "no_room", retry_at=now + THROTTLED_MS
            )
        return self._finish(now)

    # how it ends

    def _end_refused(
        self,
        error_class: ErrorClass,
        code: str | None,
        reason: str | None,
        *,
        provider: str = "",
        retry_at: int | None = None,
    ) -> None:
        """Failed, unless something is in doubt: then it may have been taken."""
        if self._last_doubt:
            self._end_unknown(self._last_doubt, error_class, code, reason)
        else:
            self._final = _Final(
                "failed", Result.REFUSED, provider, error_class, code, reason, retry_at
            )

    def _end_unknown(
        self,
        provider: str,
        error_class: ErrorClass | None,
        code: str | None,
        reason: str | None = None,
    ) -> None:
        self._final = _Final("dispatched", Result.UNKNOWN, provider, error_class, code, reason)

    def _give_up(self, now: int) -> None:
        """No provider is left."""
        if self._last_doubt:
            last = self._tried[self._last_doubt].attempt
            error_class = ErrorClass(last["error_class"]) if last["error_class"] else None
            self._end_unknown(self._last_doubt, error_class, last["code"])
            return
        if not self._tried:
            self._end_refused(ErrorClass.CHANNEL, "no_provider", "no provider serves the country")
            return
        best = min(
            (t for t in self._tried.values() if t.refused is not None),
            key=lambda t: _HOPEFUL.index(t.refused or ErrorClass.UNKNOWN),
        )
        wait = best.retry_after_ms
        self._end_refused(
            best.refused or ErrorClass.UNKNOWN,
            best.attempt["code"],
            None,
            provider=best.attempt["provider"],
            retry_at=None if wait is None else now + wait,
        )

    def _finish(self, now: int) -> Finish:
        final, command = self._final, self.command
        assert final is not None
        for tried in self._tried.values():
            tried.attempt["in_doubt"] = tried.doubts > 0
        attempts = [tried.attempt for tried in self._tried.values()]
        event = command_event(
            self.record, ORIGIN, final.kind, final.provider, final.code or "", now
        )
        event["result"] = final.result.value
        event["error_class"] = final.error_class.value if final.error_class else None
        event["code"], event["reason"] = final.code, final.reason
        event["retry_at"] = final.retry_at
        event["attempts"] = attempts
        event["latency_ms"] = sum(attempt["latency_ms"] for attempt in attempts)
        event["cost"] = sum(attempt["cost"] for attempt in attempts)
        event["currency"] = next((a["currency"] for a in attempts if a["currency"]), "")
        event["in_doubt"] = any(attempt["in_doubt"] for attempt in attempts)
        event["resent"] = any(attempt["resent"] for attempt in attempts)
        taken = self._tried.get(final.provider)
        if taken is not None:
            event["provider_message_id"] = taken.attempt["provider_message_id"]
        headers = tracing.carried(self.record.headers)
        answers = [Emit(final.kind, command["recipient_key"], event, headers)]
        answers += self._references(now, headers)
        return Finish(tuple(answers))

    def _references(self, now: int, headers: tuple[tuple[str, bytes], ...]) -> list[Emit]:
        """What receipts needs to know a provider's own id by, where it gets nothing else."""
        command, config = self.command, self.rules.config
        found = []
        for tried in self._tried.values():
            own = tried.attempt["provider_message_id"]
            if own is None or tried.account is None or tried.account.capabilities.echoes_reference:
                continue
            text = reference_text(command, config.reference_key_id, config.reference_key)
            value = reference_record(command, tried.account.name, own, text, now)
            found.append(Emit("references", f"{tried.account.name}:{own}", value, headers))
        return found

    def _trying(self, provider: str, account: Account | None, now: int) -> _Tried:
        tried = self._tried.get(provider)
        if tried is None:
            attempt = blank_attempt(self.command["command_id"], provider, now)
            tried = self._tried[provider] = _Tried(attempt, account)
        return tried


def _keyed(account: Account | None) -> bool:
    return account is not None and account.capabilities.honours_keys
