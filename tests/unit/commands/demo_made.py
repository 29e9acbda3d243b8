"""Hand-made evidence: a run of a few messages of which everything is known."""

from typing import Any

from pipeline.commands.demo_evidence import Evidence, Found, identity
from pipeline.domain.reference import Named
from pipeline.simulators.ledger import Handover, Ledger, PlannedReceipt, Request, SentReceipt

WINDOW_MS = 4_000


def source(number: int) -> dict[str, Any]:
    return {"topic": "intake", "partition": 0, "offset": number}


class Made:
    """Adds to an evidence step by step; messages are named m<number of the request>."""

    def __init__(self) -> None:
        self.evidence = Evidence({}, ledger=Ledger())

    def event(self, kind: str, at: int, **value: Any) -> None:
        value.setdefault("event_id", f"{kind}-{len(self.evidence.records.get(kind, {}))}")
        value.setdefault("occurred_at", at)
        found = Found(kind, at, value)
        self.evidence.records.setdefault(kind, {})[identity(kind, value)] = found

    def request(self, number: int) -> None:
        self.evidence.sent = {**self.evidence.sent, ("intake", 0, number): number}

    def accepted(self, number: int) -> str:
        self.request(number)
        self.event("accepted", 0, message_id=f"m{number}", source=source(number))
        return f"m{number}"

    def rejected(self, number: int, reason: str = "invalid", field: str | None = "to") -> None:
        self.request(number)
        self.event("rejected", 0, source=source(number), reason=reason, field=field)

    def command(self, message: str, step: int, channel: str = "sms", try_no: int = 1) -> str:
        name = f"{message}/{step}/{try_no}"
        value = {
            "command_id": name, "message_id": message, "step": step, "try_no": try_no,
            "channel": channel, "country": "DE", "window_ms": WINDOW_MS,
        }  # fmt: skip
        self.evidence.commands[name] = Found("send", 0, value)
        return name

    def attempt(
        self, message: str, step: int, at: int, *, taken: bool = True, **about: Any
    ) -> None:
        """The command's word: dispatched or failed, with one attempt of one request."""
        attempt = {"requests": 1, "in_doubt": False, "resent": False, **about}
        self.event(
            "dispatched" if taken else "failed",
            at,
            message_id=message,
            step=step,
            command_id=f"{message}/{step}/1",
            channel="sms",
            country="DE",
            origin="dispatch",
            attempts=[attempt],
        )
        for number in range(attempt["requests"]):
            self.evidence.ledger.requests.append(
                Request(
                    at, "sms-a", "sms", "DE", f"k-{message}-{step}", f"r-{message}-{step}", "a", 1,
                    number, "delivers", "accepted", 202, None, "id",
                )
            )  # fmt: skip
        self.evidence.named[f"r-{message}-{step}"] = Named("default", message, "r", step)

    def handover(
        self,
        message: str,
        step: int,
        at: int,
        *,
        acknowledged_at: int | None = None,
        honoured: bool = True,
        key: str = "",
        reaches: bool = True,
    ) -> None:
        """The provider takes it and, with `acknowledged_at`, reports it as delivered."""
        name = f"id-{len(self.evidence.ledger.handovers)}"
        reference = f"r-{message}-{step}"
        plan = (PlannedReceipt(100, "delivered", f"{name}-delivered", None),)
        self.evidence.named[reference] = Named("default", message, "r", step)
        self.evidence.ledger.handovers.append(
            Handover(
                at, "sms-a", "sms", key or f"k-{message}-{step}", reference, "a", 1, name,
                honoured, reaches, "DE", "", plan,
            )
        )  # fmt: skip
        if acknowledged_at is not None:
            self.evidence.ledger.receipts.append(
                SentReceipt(
                    acknowledged_at - 10, f"cb-{name}", f"{name}-delivered", "delivered", name,
                    reference, acknowledged_at, 200, 1,
                )
            )  # fmt: skip

    def outcome(
        self, message: str, at: int, status: str = "delivered", step: int = 0, reason: str = ""
    ) -> None:
        reason = reason or ("delivered" if status == "delivered" else "timed_out")
        self.event(
            "outcomes", at, message_id=message, status=status, step=step, reason=reason,
            channel="sms", country="DE", latency_ms=at,
        )  # fmt: skip

    def store(self) -> None:
        """ClickHouse has everything."""
        self.evidence.stored = {kind: len(found) for kind, found in self.evidence.records.items()}


def good_run() -> Made:
    """1 delivered; 2 silent, then delivered by the next step, then late; 3 rejected; 4 refused."""
    made = Made()
    made.accepted(1)
    made.command("m1", 0)
    made.attempt("m1", 0, 100)
    made.handover("m1", 0, 100, acknowledged_at=500)
    made.outcome("m1", 600)

    made.accepted(2)
    made.command("m2", 0, "whatsapp")
    made.attempt("m2", 0, 100)
    made.handover("m2", 0, 100, acknowledged_at=6_500)
    made.event("timed_out", 4_200, message_id="m2", step=0)
    made.command("m2", 1)
    made.attempt("m2", 1, 4_300)
    made.handover("m2", 1, 4_300, acknowledged_at=5_000)
    made.outcome("m2", 5_100, step=1)
    made.event("late_receipts", 6_600, message_id="m2", step=0, reason="delivered")

    made.rejected(3)

    made.accepted(4)
    made.command("m4", 0)
    made.attempt("m4", 0, 100, taken=False)
    made.outcome("m4", 200, "failed", reason="recipient")
    made.event("dead_letter", 200, dead_letter_id="d4", message_id="m4", reason="recipient")
    made.store()
    return made
