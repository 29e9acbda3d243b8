"""Made lives of messages as records of the event topics, every kind of turn in them.

`lives(now)` is the same for one `now`; ids and times differ, chances do not. What tests expect is
counted from these records by `tests/sql/counted.py`, which knows nothing of SQL.
"""

import random
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.domain import ids
from pipeline.domain.drafts import blank_event, blank_letter

Record = tuple[str, dict[str, Any]]
"""Topic and value."""

HOUR: Final = 3_600_000
DAY: Final = 24 * HOUR
CHANNELS: Final = ("whatsapp", "sms", "voice", "email")
COUNTRIES: Final = ("DE", "FR", "ES", "IT", "BR", "IN")
COSTS: Final = {"whatsapp": 0.011, "sms": 0.0325, "voice": 0.09, "email": 0.0004}
REFUSALS: Final = (
    ("transient", "503"), ("throttle", "429"), ("recipient", "bad_number"), ("provider", "down"),
    ("channel", "not_on_it"), ("content", "too_long"),
)  # fmt: skip


@dataclass
class _Life:
    """One message on its way; `now` is how far its own time has come."""

    rng: random.Random
    number: int
    now: int
    out: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = self.rng
        self.tenant = rng.choice(("acme", "globex"))
        self.message_id = ids.message_id(self.tenant, f"r{self.number}", f"k{self.number}")
        self.recipient = f"recipient-{self.number % 60}"
        self.country = rng.choice(COUNTRIES)
        self.priority = rng.choices(("urgent", "normal", "bulk"), (2, 5, 3))[0]
        self.campaign = rng.choice((None, "spring", "autumn"))
        self.accepted_at = self.now
        self.deadline = self.now + DAY

    def about(self, kind: str, name: str) -> dict[str, Any]:
        """An event of this message."""
        event = dict(blank_event(name, kind, self.tenant, self.message_id, self.recipient))
        event |= {
            "occurred_at": self.now,
            "accepted_at": self.accepted_at,
            "country": self.country,
            "priority": self.priority,
            "category": "transactional",
            "campaign": self.campaign,
            "origin": "fallback",
        }
        return event

    def accept(self, offset: int) -> dict[str, Any]:
        """The request as accept wrote it; returns its place."""
        source = {"topic": "intake", "partition": 0, "offset": offset}
        message = {
            "record_version": 1, "tenant": self.tenant, "message_id": self.message_id,
            "recipient_key": self.recipient, "idempotency_hash": f"hash-{self.number}",
            "source": source, "accepted_at": self.now, "priority": self.priority,
            "category": "transactional", "campaign": self.campaign, "labels": {"team": "shop"},
            "to": {"id": None, "phone": "+491700000000", "email": None, "country": None},
            "country": self.country, "content": {"text": "hello", "subject": None, "html": None},
            "route": None, "deadline": self.deadline, "sequence": None, "on_doubt": "wait",
            "replay_of": None,
        }  # fmt: skip
        self.out.append((f"accepted.{self.priority}", message))
        return source

    def turn_away(self, source: dict[str, Any], code: str) -> None:
        name = ids.event_id(self.message_id, 0, 0, "", "rejected", f"{code}/{source['offset']}")
        event = self.about("rejected", name)
        event |= {"code": code, "reason": code, "field": "to", "source": source}
        event["accepted_at"] = self.now
        self.out.append(("rejected", event))

    def attempt(self, command: str, channel: str, provider: str, result: str) -> dict[str, Any]:
        """One hand-over; what was accepted costs money and has the provider's id."""
        took = result == "accepted"
        refusal = self.rng.choice(REFUSALS)
        attempt_id = ids.attempt_id(command, provider)
        return {
            "attempt_id": attempt_id, "provider": provider, "requests": self.rng.randint(1, 2),
            "started_at": self.now, "latency_ms": self.rng.randint(20, 900), "result": result,
            "error_class": None if took else "transient" if result == "unknown" else refusal[0],
            "code": None if took else "read_timeout" if result == "unknown" else refusal[1],
            "provider_message_id": f"p-{attempt_id[:8]}" if took else None,
            "cost": COSTS[channel] if took else 0.0, "currency": "EUR" if took else "",
            "in_doubt": result == "unknown", "resent": False,
        }  # fmt: skip

    def word(self, step: int, try_no: int, channel: str, attempts: list[dict[str, Any]]) -> None:
        """Dispatch's word on a command."""
        last = attempts[-1]
        kind = "failed" if last["result"] == "refused" else "dispatched"
        name = ids.event_id(
            self.message_id, step, try_no, last["provider"], kind, last["code"] or ""
        )
        event = self.about(kind, name)
        event |= {
            "command_id": ids.command_id(self.message_id, step, try_no), "step": step,
            "try_no": try_no, "channel": channel, "provider": last["provider"],
            "result": last["result"], "error_class": last["error_class"], "code": last["code"],
            "provider_message_id": last["provider_message_id"],
            "cost": sum(a["cost"] for a in attempts), "currency": last["currency"],
            "latency_ms": sum(a["latency_ms"] for a in attempts), "attempts": attempts,
            "origin": "dispatch", "in_doubt": last["in_doubt"],
        }  # fmt: skip
        self.out.append((kind, event))
        if self.rng.random() < 0.04:  # of a torn transaction: the same hand-overs under another id
            name = ids.event_id(self.message_id, step, try_no, "", kind, "told again")
            self.out.append((kind, {**event, "event_id": name}))

    def receipt(self, kind: str, step: int, channel: str, last: dict[str, Any]) -> dict[str, Any]:
        """What the provider said of a hand-over; it knows neither when nor for whom."""
        name = ids.event_id(self.message_id, step, 0, last["provider"], kind, str(self.now))
        event = dict(blank_event(name, kind, self.tenant, self.message_id, self.recipient))
        event |= {
            "occurred_at": self.now, "step": step, "channel": channel,
            "provider": last["provider"], "origin": "receipts",
            "provider_message_id": last["provider_message_id"] or "p-unheard",
            "error_class": "recipient" if kind == "failed" else None,
            "code": "absent" if kind == "failed" else None,
        }  # fmt: skip
        self.out.append((kind, event))
        return event

    def silence(self, step: int, channel: str, last: dict[str, Any]) -> None:
        """The window ended."""
        name = ids.event_id(self.message_id, step, 1, last["provider"], "timed_out", "")
        event = self.about("timed_out", name)
        event |= {"step": step, "channel": channel, "provider": last["provider"]}
        event |= {"result": last["result"], "reason": "silence", "blind": self.rng.random() < 0.1}
        self.out.append(("timed-out", event))

    def late(self, of: dict[str, Any], channel: str, twice: bool) -> None:
        """A receipt after the outcome."""
        name = ids.event_id(self.message_id, of["step"], 0, "", "late_receipts", of["event_id"])
        event = self.about("late_receipts", name)
        event |= {
            "step": of["step"], "channel": channel, "provider": of["provider"],
            "reason": of["kind"], "reached_before": twice, "currency": "EUR",
            "cost": COSTS[channel] if twice else 0.0,
        }  # fmt: skip
        self.out.append(("late-receipts", event))

    def settle(self, status: str, reason: str, step: int, channel: str, provider: str) -> None:
        """The last word, and the dead letter of a failure."""
        name = ids.event_id(self.message_id, 0, 0, "", "outcome", "")
        about = {
            "tenant": self.tenant, "message_id": self.message_id, "recipient_key": self.recipient,
            "channel": channel, "provider": provider, "priority": self.priority,
            "occurred_at": self.now,
        }  # fmt: skip
        outcome = {
            **about, "record_version": 1, "event_id": name, "status": status, "reason": reason,
            "step": step, "steps_tried": step + 1, "attempts": step + 1, "country": self.country,
            "category": "transactional", "campaign": self.campaign, "labels": {"team": "shop"},
            "accepted_at": self.accepted_at, "latency_ms": self.now - self.accepted_at,
            "cost": 0.0, "currency": "EUR", "in_doubt": False, "resent": False, "replay_of": None,
        }  # fmt: skip
        self.out.append(("outcomes", outcome))
        if status == "failed":
            name = ids.event_id(self.message_id, step, 0, "", "dead_letter", reason)
            letter = {**blank_letter(name, "fallback", "failed", reason), **about}
            self.out.append(("dead-letter", letter))


def _live(life: _Life) -> list[Record]:
    rng = life.rng
    place = life.accept(life.number * 10)
    if rng.random() < 0.04:
        life.turn_away(place, "opted_out")
        return life.out
    route = rng.sample(CHANNELS, rng.randint(1, 3))
    silent: tuple[int, str, dict[str, Any]] | None = None
    for step, channel in enumerate(route):
        provider = f"{channel}-{rng.choice('ab')}"
        life.now += rng.randint(50, 4_000)
        for try_no in (1, 2):
            command = ids.command_id(life.message_id, step, try_no)
            result = rng.choices(("accepted", "unknown", "refused"), (12, 2, 3))[0]
            attempts = [life.attempt(command, channel, provider, result)]
            if rng.random() < 0.15:
                attempts.insert(0, life.attempt(command, channel, f"{channel}-c", "refused"))
            life.word(step, try_no, channel, attempts)
            life.now += rng.randint(500, 3_000)
            if result != "refused":
                break
        last, end = attempts[-1], rng.random()
        if result == "refused":
            pass
        elif end < 0.06:
            return life.out  # still waiting
        elif end < 0.7:
            life.now += rng.randint(200, 60_000)
            life.receipt("delivered", step, channel, last)
            life.settle("delivered", "delivered", step, channel, provider)
            life.now += rng.randint(100, 9_000)
            if rng.random() < 0.3:
                life.receipt("read", step, channel, last)
            break
        elif end < 0.75:
            life.settle("delivered", "accepted", step, channel, provider)
            break
        elif end < 0.85:
            life.receipt("failed", step, channel, last)
        else:
            life.now += 120_000
            life.silence(step, channel, last)
            silent = (step, channel, last)
        if step + 1 == len(route):
            reason = "timed_out" if silent and silent[0] == step else "recipient"
            life.settle("failed", reason, step, channel, provider)
    if silent and rng.random() < 0.5:
        life.now += rng.randint(1_000, 90_000)
        said = life.receipt("delivered", silent[0], silent[1], silent[2])
        twice = any(t == "outcomes" and v["status"] == "delivered" for t, v in life.out)
        life.late(said, silent[1], twice)
    if rng.random() < 0.08:
        life.now += 2 * HOUR
        life.turn_away(life.accept(life.number * 10 + 1), "duplicate")
    return life.out


def lives(now: int, count: int = 500) -> list[Record]:
    """The records of `count` messages of the last three days, of some that are too old to be
    asked for, and of a few requests that are none."""
    rng = random.Random(7)
    found: list[Record] = []
    for number in range(count):
        old = number % 20 == 0
        at = now - 9 * DAY - rng.randrange(DAY) if old else now - 4 * HOUR - rng.randrange(3 * DAY)
        found += _live(_Life(random.Random(number), number, at))
    for number in range(5):
        name = ids.event_id(f"none-{number}", 0, 0, "", "rejected", "invalid")
        event = {**blank_event(name, "rejected", "acme", f"none-{number}", ""), "origin": "accept"}
        event |= {"occurred_at": now - HOUR, "code": "invalid", "field": "to", "reason": "missing"}
        letter = blank_letter(f"letter-{number}", "accept", "unreadable", "invalid_body")
        found.append(("rejected", event))
        found.append(("dead-letter", {**letter, "occurred_at": now - HOUR}))
    return found
