"""What a simulated provider does, as data: accounts, windows, and one table of weights by channel
and country. A script comes from YAML:

    windows_s: {whatsapp: 4, sms: [3, 5]}   # the pipeline's, shortest and longest by channel
    retry_after_s: 1
    answer_delay_s: [0, 0]          # how long a good answer takes
    hang_s: 30                      # how long a request without an answer is held
    accounts:
      sms-b: {honours_keys: false, echoes_reference: true, callback_batch: 1, credential: ""}
    weights:                        # the most specific row counts: both, channel, country, neither
      - {weights: {delivers: 60, silent: 5}}
      - {channel: sms, country: IN, weights: {delivers: 40, rejects: 20}}
    reject_codes: {sms: [invalid_address, content_rejected]}
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import yaml

from pipeline.domain.errors import BadInput
from pipeline.providers.generic import CODES

MARGIN_S: Final = 1.5  # how far every delay stays from the end of a window
MIN_WINDOW_S: Final = 2.0


class Kind(StrEnum):
    """The behaviours; `behaviour.py` says what each does."""

    DELIVERS = "delivers"
    READS = "reads"
    SILENT = "silent"
    REJECTS = "rejects"
    BUSY = "busy"  # 503 with the documented body: not taken
    THROTTLED = "throttled"  # 429 with Retry-After
    ERROR = "error"  # 500: taken or not
    RESET_BEFORE = "reset_before"  # the connection is reset, nothing was taken
    RESET_AFTER = "reset_after"  # the connection is reset, taken or not
    NO_ANSWER = "no_answer"  # taken, and never answered
    EARLY_RECEIPT = "early_receipt"  # the receipt is sent before the answer
    REPEATS = "repeats"  # receipts come twice and in the wrong order
    LATE = "late"  # delivers after the window
    NEGATIVE = "negative"  # accepted, then a failed receipt
    WEIRD = "weird"  # 200 with HTML, nothing, 10 MB or half a document


@dataclass(frozen=True, slots=True)
class AccountScript:
    """One simulated account. `callback_batch` receipts at most go into one callback;
    `credential` empty takes any."""

    honours_keys: bool = True
    echoes_reference: bool = True
    callback_batch: int = 1
    credential: str = ""


_WEIGHTS: Final[Mapping[Kind, float]] = {
    Kind.DELIVERS: 600,
    Kind.READS: 80,
    Kind.SILENT: 50,
    Kind.REJECTS: 70,
    Kind.BUSY: 20,
    Kind.THROTTLED: 20,
    Kind.ERROR: 15,
    Kind.RESET_BEFORE: 10,
    Kind.RESET_AFTER: 15,
    Kind.NO_ANSWER: 10,
    Kind.EARLY_RECEIPT: 20,
    Kind.REPEATS: 30,
    Kind.LATE: 25,
    Kind.NEGATIVE: 30,
    Kind.WEIRD: 15,
}


def _row(**changes: float) -> Mapping[Kind, float]:
    return {**_WEIGHTS, **{Kind(name): weight for name, weight in changes.items()}}


DEFAULT_TABLE: Final[Mapping[tuple[str, str], Mapping[Kind, float]]] = {
    ("", ""): _WEIGHTS,
    ("whatsapp", "BR"): _row(delivers=450, reads=200, silent=80),
    ("whatsapp", "US"): _row(rejects=220),
    ("sms", ""): _row(delivers=680, reads=0),
    ("sms", "IN"): _row(delivers=500, reads=0, rejects=150, late=60),
    # The doubtful ones often enough that some urgent call is made twice in every run of some size.
    ("voice", ""): _row(reads=0, silent=120, negative=80, error=110, reset_after=80, no_answer=60),
    ("email", ""): _row(negative=60, late=40),
}

# No opted_out here: what a STOP stops depends on when it is known, so a script that repeats to
# the letter leaves it out. Scripts may name it.
DEFAULT_REJECT_CODES: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("invalid_address", "content_rejected", "account_suspended"),
    "whatsapp": ("not_on_channel", "invalid_address", "content_rejected", "account_suspended"),
    "sms": ("invalid_address", "country_not_served", "content_too_long", "no_credit"),
    "voice": ("invalid_address", "country_not_served"),
    "email": ("invalid_address", "content_rejected", "content_too_long"),
}
DEFAULT_FAILED_CODES: Final = ("unreachable", "number_gone", "blocked_by_operator", "spam")


@dataclass(frozen=True, slots=True)
class Script:
    """A whole provider. `windows_s` has the shortest and the longest window that the pipeline
    gives a channel, in seconds: every delay keeps 1.5 s away from both."""

    windows_s: Mapping[str, tuple[float, float]] = field(
        default_factory=lambda: windows(whatsapp=4, sms=4, voice=4, email=4)
    )
    accounts: Mapping[str, AccountScript] = field(default_factory=dict)
    other_accounts: AccountScript = field(default_factory=AccountScript)
    table: Mapping[tuple[str, str], Mapping[Kind, float]] = field(
        default_factory=lambda: DEFAULT_TABLE
    )
    reject_codes: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: DEFAULT_REJECT_CODES
    )
    failed_codes: tuple[str, ...] = DEFAULT_FAILED_CODES
    receipt_s: tuple[float, float] = (0.2, 1.5)  # from hand-over to an ordinary receipt
    late_s: tuple[float, float] = (2.0, 2.5)  # from the end of the window to a late one
    answer_delay_s: tuple[float, float] = (0.0, 0.0)
    early_answer_s: float = 0.25  # how long an answer waits behind its own receipt
    retry_after_s: int = 1
    hang_s: float = 30.0

    def __post_init__(self) -> None:
        for channel, (shortest, longest) in self.windows_s.items():
            if shortest > longest:
                raise BadInput(f"windows_s.{channel}", "the wrong way round", "shortest first")
            if shortest < MIN_WINDOW_S:
                raise BadInput(
                    f"windows_s.{channel}",
                    f"{shortest} s leaves no room for a receipt {MARGIN_S} s before its end",
                    f"give at least {MIN_WINDOW_S} s",
                )
        if self.late_s[0] < MARGIN_S:
            raise BadInput("late_s", "too close to the window's end", f"start at {MARGIN_S} s")
        known = {code.code for code in CODES}
        for channel, codes in self.reject_codes.items():
            for code in codes:
                if code not in known:
                    raise BadInput(
                        f"reject_codes.{channel}", f"no code {code!r}", "see providers/generic.py"
                    )
        for (channel, country), weights in self.table.items():
            if sum(weights.values()) <= 0 or min(weights.values()) < 0:
                raise BadInput(
                    f"weights of {channel or 'any channel'}, {country or 'any country'}",
                    "they must be 0 or more and not all 0",
                    "give at least one behaviour a positive weight",
                )

    def account(self, name: str) -> AccountScript:
        """The account's own entry, or the common one."""
        return self.accounts.get(name, self.other_accounts)

    def weights(self, channel: str, country: str) -> Mapping[Kind, float]:
        """The most specific row: channel and country, channel, country, neither."""
        table = self.table
        for row in ((channel, country), (channel, ""), ("", country)):
            if row in table:
                return table[row]
        return table.get(("", ""), _WEIGHTS)


def windows(**channels: float | tuple[float, float]) -> dict[str, tuple[float, float]]:
    """Windows by channel, in seconds: one number, or the shortest and the longest."""
    return {
        name: value if isinstance(value, tuple) else (float(value), float(value))
        for name, value in channels.items()
    }


def only(kind: Kind | str, **options: Any) -> Script:
    """A script in which every attempt behaves alike, for tests."""
    return Script(table={("", ""): {Kind(kind): 1.0}}, **options)


def load(path: Path) -> Script:
    """The script in a YAML file.

    Raises:
        BadInput: names the field, what is wrong with it and how to mend it.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise BadInput(str(path), f"cannot be read: {error}", "give a YAML file") from None
    return parse(raw if raw is not None else {})


def parse(raw: Any) -> Script:
    """The script that a YAML document stands for; see `load`."""
    table = _mapping("script", raw)
    names = {item.name for item in fields(Script)} - {"table"} | {"weights"}
    for name in table:
        if name not in names:
            raise BadInput(
                name, "not a field of a script", f"use one of {', '.join(sorted(names))}"
            )
    given: dict[str, Any] = {}
    if "windows_s" in table:
        given["windows_s"] = {
            str(channel): _window(f"windows_s.{channel}", window)
            for channel, window in _mapping("windows_s", table["windows_s"]).items()
        }
    if "accounts" in table:
        given["accounts"] = {
            str(name): _account(f"accounts.{name}", value)
            for name, value in _mapping("accounts", table["accounts"]).items()
        }
    if "other_accounts" in table:
        given["other_accounts"] = _account("other_accounts", table["other_accounts"])
    if "weights" in table:
        given["table"] = _table(table["weights"])
    if "reject_codes" in table:
        given["reject_codes"] = {
            **DEFAULT_REJECT_CODES,
            **{
                str(channel): tuple(map(str, _list(f"reject_codes.{channel}", codes)))
                for channel, codes in _mapping("reject_codes", table["reject_codes"]).items()
            },
        }
    if "failed_codes" in table:
        given["failed_codes"] = tuple(map(str, _list("failed_codes", table["failed_codes"])))
    for name in ("receipt_s", "late_s", "answer_delay_s"):
        if name in table:
            given[name] = _range(name, table[name])
    for name in ("early_answer_s", "hang_s"):
        if name in table:
            given[name] = _number(name, table[name])
    if "retry_after_s" in table:
        given["retry_after_s"] = int(_number("retry_after_s", table["retry_after_s"]))
    return Script(**given)


def _table(rows: Any) -> dict[tuple[str, str], Mapping[Kind, float]]:
    table: dict[tuple[str, str], Mapping[Kind, float]] = {}
    for index, item in enumerate(_list("weights", rows)):
        where = f"weights[{index}]"
        row = _mapping(where, item)
        for name in row:
            if name not in {"channel", "country", "weights"}:
                raise BadInput(f"{where}.{name}", "unknown", "use channel, country and weights")
        weights: dict[Kind, float] = {}
        for name, weight in _mapping(f"{where}.weights", row.get("weights")).items():
            if name not in set(Kind):
                raise BadInput(
                    f"{where}.weights.{name}", "no such behaviour", f"use {', '.join(Kind)}"
                )
            weights[Kind(name)] = _number(f"{where}.weights.{name}", weight)
        if not weights:
            raise BadInput(f"{where}.weights", "empty", f"use {', '.join(Kind)}")
        table[str(row.get("channel") or ""), str(row.get("country") or "")] = weights
    return table


def _account(where: str, value: Any) -> AccountScript:
    given = _mapping(where, value)
    kinds = {item.name: item.type for item in fields(AccountScript)}
    for name, item in given.items():
        if name not in kinds:
            raise BadInput(f"{where}.{name}", "unknown", f"use {', '.join(kinds)}")
        wanted = {"bool": bool, "int": int, "str": str}[getattr(kinds[name], "__name__", "str")]
        if not isinstance(item, wanted) or (wanted is int and isinstance(item, bool)):
            raise BadInput(f"{where}.{name}", f"{item!r}", f"give a {wanted.__name__}")
    return AccountScript(**given)


def _mapping(where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(where, f"{type(value).__name__} is no mapping", "give names and values")
    return value


def _list(where: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, list):
        raise BadInput(where, f"{type(value).__name__} is no list", "give a list")
    return value


def _window(where: str, value: Any) -> tuple[float, float]:
    if isinstance(value, list):
        return _range(where, value)
    number = _number(where, value)
    return number, number


def _range(where: str, value: Any) -> tuple[float, float]:
    pair = [_number(where, item) for item in _list(where, value)]
    if len(pair) != 2 or not 0 <= pair[0] <= pair[1]:
        raise BadInput(where, f"{value!r} is no range", "give [from, to] in seconds")
    return pair[0], pair[1]


def _number(where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(where, f"{value!r} is no number", "give a number")
    return float(value)
