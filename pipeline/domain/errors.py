"""Failure classes, and the one error that pure code raises on bad input."""

from enum import StrEnum


class ErrorClass(StrEnum):
    """What a failure means for the next move; the class decides, never the code."""

    TRANSIENT = "transient"  # the same request may work later
    THROTTLE = "throttle"  # too fast: later, at the time the provider names
    PROVIDER = "provider"  # this provider cannot: another one may
    CHANNEL = "channel"  # this channel cannot reach this person: next channel
    RECIPIENT = "recipient"  # the address is bad: next channel
    OPT_OUT = "opt_out"  # the person said stop
    CONTENT = "content"  # the same content fails again
    CONFIG = "config"  # our fault: somebody must look
    UNKNOWN = "unknown"  # not in the provider's table


class Result(StrEnum):
    """What one hand-over came to."""

    ACCEPTED = "accepted"
    REFUSED = "refused"  # certainly not taken
    UNKNOWN = "unknown"  # may have been taken


class BadInput(ValueError):
    """Input that a person has to mend: names the field, the cause and the cure."""

    def __init__(self, field: str, cause: str, cure: str, *, code: str = "invalid") -> None:
        super().__init__(f"{field}: {cause}; {cure}")
        self.field = field
        self.cause = cause
        self.cure = cure
        self.code = code


class Undecodable(ValueError):
    """Bytes that are no record: `code` is bounded, `detail` says where without quoting them."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
