"""What a simulated provider does with one attempt, as a pure function of the seed, the account,
the channel, the country, the address and the attempt's number: never of arrival order or time, so
that a test can know it beforehand and two runs with one seed agree.

Delays keep apart whatever could race in the pipeline:

* ordinary receipts come `receipt_s` after the hand-over and at least 1.5 s before the window ends;
* receipts of an attempt whose answer was in doubt come in the first 30 % of that span and negative
  ones in the last 30 %, so a second attempt cannot turn their order round;
* late receipts come 2 to 2.5 s after the longest window, and an address that is late on one channel is
  quick or refused at once on its others, so nothing else of the message falls into that time.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import Final

import phonenumbers

from pipeline.providers.generic import CODES
from pipeline.simulators.script import MARGIN_S, Kind, Script

_STATUS: Final[Mapping[str, int]] = {code.code: code.status for code in CODES if code.status}


class Answer(StrEnum):
    """What goes back over the wire."""

    ACCEPTED = "accepted"  # 202 with an id
    REFUSED = "refused"  # 4xx, or 503 with the documented body
    ERROR = "error"  # 500
    RESET = "reset"  # no byte, then a reset
    NONE = "none"  # no byte, ever
    HTML = "html"
    EMPTY = "empty"
    HUGE = "huge"  # 10 MB
    HALF = "half"  # half a JSON document


DOUBTFUL: Final = frozenset(set(Answer) - {Answer.ACCEPTED, Answer.REFUSED})
_WEIRD: Final = (Answer.HTML, Answer.EMPTY, Answer.HUGE, Answer.HALF)


@dataclass(frozen=True, slots=True)
class Planned:
    """A receipt that follows the hand-over by `delay_ms`."""

    delay_ms: int
    kind: str
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One attempt.

    `handed_over`: the provider took it, and sends it on. `reaches`: the person gets it.
    `settles`: where keys are honoured and the first answer was in doubt, a repeat of the key gets
    202 (and is handed over if it was not yet); otherwise it gets the first answer again. Always so
    where the answer alone says which id our message has there.
    """

    kind: Kind
    answer: Answer
    handed_over: bool
    reaches: bool
    status: int = 202
    code: str | None = None
    retry_after_s: int | None = None
    answer_delay_ms: int = 0
    receipts: tuple[Planned, ...] = ()
    settles: bool = False


def behaviour(
    seed: int,
    account: str,
    channel: str,
    country: str,
    address: str,
    attempt: int,
    script: Script,
) -> Behaviour:
    """What happens to attempt number `attempt` (from 1) at `address`."""
    kind_draw, *rest = _draws(seed, account, channel, country, address, attempt)
    late_on = _late_channel(seed, country, address, script)
    if late_on == channel:
        kind = Kind.LATE
    elif late_on is not None:
        kind = Kind.DELIVERS if kind_draw < 0.5 else Kind.REJECTS
    else:
        kind = _pick(script.weights(channel, country), kind_draw)
    does = _build(kind, channel, rest, script, quick=late_on is not None)
    rules = script.account(account)
    if rules.honours_keys and not rules.echoes_reference and does.answer in DOUBTFUL:
        # Its receipts name only its own id, so whoever never gets that could match none of them.
        return replace(does, settles=True)
    return does


@lru_cache(maxsize=65_536)
def country_of(address: str) -> str:
    """The country (two letters) of a phone number in E.164, by its calling code, or of an e-mail
    address by the last label of two letters in its domain; empty when there is none."""
    if "@" in address:
        labels = address.rpartition("@")[2].split(".")
        return next((label.upper() for label in reversed(labels) if len(label) == 2), "")
    digits = address.removeprefix("+")
    for length in (1, 2, 3):
        if digits[:length].isdecimal():
            regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE.get(int(digits[:length]))
            if regions:
                return str(regions[0])
    return ""


def _draws(*names: str | int) -> tuple[float, ...]:
    """Eight numbers in [0, 1) that the same names always give."""
    digest = hashlib.blake2b("\x1f".join(map(str, names)).encode(), digest_size=64).digest()
    return tuple(int.from_bytes(digest[i : i + 8], "big") / 2**64 for i in range(0, 64, 8))


def _late_channel(seed: int, country: str, address: str, script: Script) -> str | None:
    """The one channel on which this address is late, if any: each channel of its kind with the
    share that its weights give."""
    by_mail = "@" in address
    channels = sorted(name for name in script.windows_s if (name == "email") == by_mail)
    if not channels:
        return None
    which, draw, *_ = _draws(seed, "late", address)
    channel = channels[int(which * len(channels))]
    weights = script.weights(channel, country)
    share = weights.get(Kind.LATE, 0.0) / sum(weights.values())
    return channel if draw < share * len(channels) else None


def _pick(weights: Mapping[Kind, float], draw: float) -> Kind:
    usual = [(kind, weight) for kind, weight in weights.items() if kind != Kind.LATE and weight]
    point = draw * sum(weight for _, weight in usual)
    for kind, weight in usual:
        point -= weight
        if point < 0:
            return kind
    return usual[-1][0] if usual else Kind.SILENT


def _build(
    kind: Kind, channel: str, draws: list[float], script: Script, *, quick: bool
) -> Behaviour:
    when, second, coin, settle, which, wait, _ = draws
    known = script.windows_s
    shortest, longest = known.get(channel, next(iter(known.values()), (4.0, 4.0)))
    first = script.receipt_s[0]
    last = max(first, min(script.receipt_s[1], shortest - MARGIN_S))
    span = last - first

    def at(unit: float, low: float = 0.0, high: float = 1.0) -> int:
        return int((first + span * (low + (high - low) * unit)) * 1000)

    low, high = script.answer_delay_s
    delay = int((low + (high - low) * wait) * 1000)
    taken = coin < 0.5
    sent = Behaviour(kind, Answer.ACCEPTED, True, True, answer_delay_ms=delay)
    match kind:
        case Kind.DELIVERS:
            when_ms = at(when, 0, 0.3) if quick else at(when)
            return replace(sent, receipts=(Planned(when_ms, "delivered"),))
        case Kind.READS:
            return replace(
                sent,
                receipts=(Planned(at(when, 0, 0.6), "delivered"), Planned(at(second, 0.7), "read")),
            )
        case Kind.SILENT:
            return replace(sent, reaches=taken)
        case Kind.EARLY_RECEIPT:
            return replace(
                sent,
                answer_delay_ms=int(script.early_answer_s * 1000),
                receipts=(Planned(0, "delivered"),),
            )
        case Kind.REPEATS:
            start = at(when, 0, 0.5)
            order: tuple[str, ...] = ("read", "delivered", "accepted", "read", "delivered")
            if channel in {"sms", "voice"}:
                order = ("delivered", "accepted", "delivered")
            return replace(
                sent,
                receipts=tuple(
                    Planned(start + number * int(span * 100), name)
                    for number, name in enumerate(order)
                ),
            )
        case Kind.LATE:
            early, end = script.late_s
            after = longest + early + (end - early) * when
            return replace(sent, receipts=(Planned(int(after * 1000), "delivered"),))
        case Kind.NEGATIVE:
            code = script.failed_codes[int(which * len(script.failed_codes))]
            return replace(sent, reaches=False, receipts=(Planned(at(when, 0.7), "failed", code),))
        case Kind.REJECTS:
            codes = script.reject_codes.get(channel) or script.reject_codes[""]
            return _refused(kind, codes[int(which * len(codes))], delay)
        case Kind.BUSY:
            return _refused(kind, "busy", delay)
        case Kind.THROTTLED:
            return _refused(kind, "too_fast", delay, script.retry_after_s)
        case Kind.ERROR:
            answer, status = Answer.ERROR, 500
        case Kind.RESET_BEFORE:
            answer, status, taken = Answer.RESET, 0, False
        case Kind.RESET_AFTER:
            answer, status = Answer.RESET, 0
        case Kind.NO_ANSWER:
            answer, status, taken = Answer.NONE, 0, True
        case Kind.WEIRD:
            answer, status = _WEIRD[int(which * len(_WEIRD))], 200
    # In doubt. What was taken is delivered, early in the span, or stays silent; a repeat that
    # settles it hands over what was not taken, so the receipts stand in both cases.
    silent = second < 0.3
    return Behaviour(
        kind,
        answer,
        handed_over=taken,
        reaches=taken,
        status=status,
        receipts=() if silent else (Planned(at(when, 0, 0.3), "delivered"),),
        settles=settle < 0.6,
    )


def _refused(kind: Kind, code: str, delay_ms: int, retry_after_s: int | None = None) -> Behaviour:
    return Behaviour(
        kind,
        Answer.REFUSED,
        handed_over=False,
        reaches=False,
        status=_STATUS[code],
        code=code,
        retry_after_s=retry_after_s,
        answer_delay_ms=delay_ms,
    )
