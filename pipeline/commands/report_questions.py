"""What the reports ask ClickHouse: counts by the dimensions that were wanted, from the views
`messages` and `attempts` (docs/sql.md). What follows from the counts is in `report_rows.py`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pipeline.domain.errors import BadInput

Name = Literal["delivery", "funnel", "fallback", "latency", "errors", "cost", "completeness"]
Kind = Literal["text", "count", "share", "ms", "money"]

TIMES: Final = ("day", "hour")
"""Dimensions whose rows stand in their own order and not by size."""

_PLAIN: Final = ("tenant", "channel", "provider", "country", "priority", "category", "campaign")
_SINCE: Final = "fromUnixTimestamp64Milli({since:Int64}, 'UTC')"
_HANDED: Final = f"""FROM attempts
WHERE accepted_at >= {_SINCE} AND result IN ('accepted', 'unknown')"""
"""The attempts that may have reached a person."""
_RECEIPTS: Final = "countIf(receipt_due), countIf(receipt != ''), countIf(NOT receipt_due)"
_ACCEPTED: Final = "Cohort: messages by when they were accepted, whatever happened to them when."


@dataclass(frozen=True, slots=True)
class Question:
    """One report: its words, how it may be divided, and its SQL.

    `dimensions` are SQL expressions by the name that --by gives them; `counts` are the columns of
    the answer behind them; `figures` what is shown, by name and kind. `main` orders the rows. By
    `always` it is divided whether asked to or not.
    """

    name: Name
    title: str
    says: str
    by: tuple[str, ...]
    dimensions: Mapping[str, str]
    counts: tuple[str, ...]
    figures: Mapping[str, Kind]
    main: str
    sql: str
    always: tuple[str, ...] = ()

    def chosen(self, by: str) -> tuple[str, ...]:
        """The dimensions in a --by of names with commas between; nothing means the usual ones.

        Raises:
            BadInput: there is no such dimension, or one is given twice.
        """
        if not by.strip():
            return self.by
        names = tuple(name.strip() for name in by.split(","))
        for name in names:
            if name not in self.dimensions:
                known = ", ".join(self.dimensions)
                raise BadInput("--by", f"{self.name} has no {name!r}", f"choose of {known}")
        if len(set(names)) < len(names):
            raise BadInput("--by", "a name is given twice", "give each once")
        return names + tuple(name for name in self.always if name not in names)

    def text(self, by: Sequence[str]) -> str:
        """The SQL; it takes the parameter `since` in milliseconds since the epoch."""
        said = ", ".join(f"{self.dimensions[name]} AS by_{name}" for name in by)
        named = ", ".join(f"by_{name}" for name in by)
        return self.sql.replace("<dimensions>", said).replace("<names>", named)


def _dimensions(time: str, *more: str, without: Sequence[str] = ()) -> dict[str, str]:
    found = {name: f"toString({name})" for name in _PLAIN if name not in without}
    found["day"] = f"toString(toDate({time}))"
    found["hour"] = f"formatDateTime(toStartOfHour({time}), '%Y-%m-%d %H:00')"
    return dict(zip(more[::2], more[1::2], strict=True)) | found


_DELIVERY: Final = Question(
    name="delivery",
    title="Delivery rate",
    says=f"Of the messages handed to a provider, those that it reported as delivered. {_ACCEPTED}",
    by=("channel", "country"),
    dimensions=_dimensions("accepted_at"),
    counts=("handed_over", "delivered", "due", "heard"),
    figures={"handed_over": "count", "delivered": "count", "rate": "share", "complete": "share"},
    main="handed_over",
    sql=f"""
SELECT <dimensions>, uniqExact(message_id), uniqExactIf(message_id, receipt IN ('delivered', 'read')),
    countIf(receipt_due), countIf(receipt != '')
{_HANDED}
GROUP BY <names>
""",
)

_FUNNEL: Final = Question(
    name="funnel",
    title="Funnel",
    says=f"How far messages came. {_ACCEPTED}",
    by=("priority",),
    dimensions=_dimensions("accepted_at"),
    counts=("accepted", "handed_over", "delivered", "read", "failed", "waiting"),
    figures={
        "accepted": "count",
        "handed_over": "count",
        "delivered": "count",
        "read": "count",
        "failed": "count",
        "waiting": "count",
    },
    main="accepted",
    sql=f"""
SELECT <dimensions>, count(), countIf(dispatched_at IS NOT NULL), countIf(status = 'delivered'),
    countIf(status = 'delivered' AND read_at IS NOT NULL), countIf(status = 'failed'),
    countIf(status IN ('accepted', 'dispatched'))
FROM messages
WHERE accepted_at >= {_SINCE} AND status != 'rejected'
GROUP BY <names>
""",
)

_FALLBACK: Final = Question(
    name="fallback",
    title="Fallback",
    says="Which channels were left for which and why (timed_out is silence), and how many messages"
    f" were delivered by going on. {_ACCEPTED}",
    by=("from", "to", "why"),
    dimensions=_dimensions(
        "accepted_at",
        "from",
        "hop.1",
        "to",
        "hop.2",
        "why",
        "hop.3",
        without=("channel", "provider"),
    ),
    counts=("messages", "saved"),
    figures={"messages": "count", "saved": "count", "saved_share": "share"},
    main="messages",
    sql=f"""
SELECT <dimensions>, count(), countIf(status = 'delivered' AND step >= hop.4)
FROM messages
ARRAY JOIN arrayZip(arrayPopBack(channels), arrayPopFront(channels), left_for, arrayPopFront(steps)) AS hop
WHERE accepted_at >= {_SINCE}
GROUP BY <names>
""",
)

_LATENCY: Final = Question(
    name="latency",
    title="Time to delivery",
    says=f"From accepted to the outcome delivered. {_ACCEPTED}",
    by=("priority",),
    dimensions=_dimensions("accepted_at"),
    counts=("delivered", "p50", "p95", "p99"),
    figures={"delivered": "count", "p50": "ms", "p95": "ms", "p99": "ms"},
    main="p95",
    sql=f"""
SELECT <dimensions>, count(), quantileExact(0.5)(assumeNotNull(latency_ms)),
    quantileExact(0.95)(assumeNotNull(latency_ms)), quantileExact(0.99)(assumeNotNull(latency_ms))
FROM messages
WHERE accepted_at >= {_SINCE} AND status = 'delivered'
GROUP BY <names>
""",
)

_ERRORS: Final = Question(
    name="errors",
    title="Errors",
    says="Attempts that a provider did not take, may have taken, or reported as failed later, by when"
    " they occurred.",
    by=("class", "provider"),
    dimensions=_dimensions(
        "started_at",
        "class",
        "if(result = 'accepted', receipt_class, error_class)",
        "code",
        "if(result = 'accepted', receipt_code, code)",
    ),
    counts=("attempts", "messages", "in_doubt"),
    figures={"attempts": "count", "messages": "count", "in_doubt": "count"},
    main="attempts",
    sql=f"""
SELECT <dimensions>, count(), uniqExact(message_id), countIf(in_doubt)
FROM attempts
WHERE started_at >= {_SINCE} AND (result != 'accepted' OR receipt = 'failed')
GROUP BY <names>
""",
)

_COST: Final = Question(
    name="cost",
    title="Cost",
    says="All that was paid for hand-overs, over the messages that were delivered there."
    f" {_ACCEPTED}",
    by=("channel", "currency"),
    dimensions=_dimensions("accepted_at") | {"currency": "toString(currency)"},
    counts=("cost", "delivered"),
    figures={"cost": "money", "delivered": "count", "per_delivered": "money"},
    main="cost",
    sql=f"""
SELECT <names>, sum(paid), sum(arrived)
FROM
(
    SELECT <dimensions>, cost AS paid, 0 AS arrived
    FROM attempts
    WHERE accepted_at >= {_SINCE} AND currency != ''
    UNION ALL
    SELECT <dimensions>, toDecimal128(0, 6) AS paid, 1 AS arrived
    FROM messages
    WHERE accepted_at >= {_SINCE} AND status = 'delivered'
)
GROUP BY <names>
""",
    always=("currency",),  # sums of two currencies mean nothing
)

_COMPLETENESS: Final = Question(
    name="completeness",
    title="Completeness",
    says="A receipt is due once it has come, its window is over, or the message has ended otherwise."
    f" {_ACCEPTED}",
    by=("channel", "provider"),
    dimensions=_dimensions("accepted_at"),
    counts=("due", "heard", "not_due"),
    figures={
        "due": "count",
        "heard": "count",
        "missing": "count",
        "complete": "share",
        "not_due": "count",
    },
    main="due",
    sql=f"""
SELECT <dimensions>, {_RECEIPTS}
{_HANDED}
GROUP BY <names>
""",
)

QUESTIONS: Final[Mapping[str, Question]] = {
    question.name: question
    for question in (_DELIVERY, _FUNNEL, _FALLBACK, _LATENCY, _ERRORS, _COST, _COMPLETENESS)
}
"""Every report, in the order of a page of all."""

STATE: Final = f"""
SELECT {_RECEIPTS},
    (SELECT toUnixTimestamp64Milli(max(_appended_at)) FROM events)
{_HANDED}
"""
"""How complete the range is: receipts due, in, not due yet; append time (ms) of the newest event."""
