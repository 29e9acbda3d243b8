"""Routes, windows, retries and deadlines as values; `settings.py` reads them from YAML."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

CHANNEL_ADDRESS: Final[Mapping[str, str]] = {
    "whatsapp": "phone",
    "sms": "phone",
    "voice": "phone",
    "email": "email",
}


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently one step is tried again."""

    max_tries: int  # commands per step, the first included
    base_ms: int
    cap_ms: int


@dataclass(frozen=True, slots=True)
class PriorityPolicy:
    """What a priority means."""

    window_ms: int  # silence that a step is given, unless its route says otherwise
    deadline_ms: int  # after accepted, unless the request says otherwise
    retry: RetryPolicy
    on_doubt: str
    command_ttl_ms: int  # a command not sent by then is given back
    blind_hold_ms: int  # how long a due window waits for receipts to catch up


@dataclass(frozen=True, slots=True)
class RouteStep:
    """One step of a configured route; a window of None is the priority's."""

    channel: str
    window_ms: int | None = None
    success: str = "delivered"


@dataclass(frozen=True, slots=True)
class RouteRule:
    """The first rule that fits gives the route; an empty field fits everything."""

    steps: tuple[RouteStep, ...]
    countries: tuple[str, ...] = ()
    priorities: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that decides a message's life besides the message itself."""

    priorities: Mapping[str, PriorityPolicy]
    rules: tuple[RouteRule, ...]
    default_route: tuple[RouteStep, ...]
    min_window_ms: int = 10_000
    max_window_ms: int = 72 * 3_600_000
    max_deadline_ms: int = 30 * 24 * 3_600_000
    remember_ms: int = 72 * 3_600_000  # how long a settled message is known as a repeat
    park_ms: int = 24 * 3_600_000  # how long a receipt waits for its reference
    on_opt_out: str = "stop"  # or "switch": what an opt-out code ends
    on_content: str = "switch"  # or "stop": what refused content ends
    receiptless_channels: tuple[str, ...] = ()  # can only succeed as accepted
