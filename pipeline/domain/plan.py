"""Which channels, in which order, for one message: its own route, else the recipient's preference,
else the first rule that fits, else the default."""

from collections.abc import Callable, Mapping, Sequence

from pipeline.domain.policy import CHANNEL_ADDRESS, Policy, RouteStep
from pipeline.domain.records import Message, Profile, Recipient, StepState

Suppressed = Callable[[str, str], bool]
"""Whether an address must not be written to, by channel and address."""


def address_of(to: Recipient, channel: str) -> str | None:
    """The address that a channel needs, if the recipient has it."""
    kind = CHANNEL_ADDRESS.get(channel)
    addresses: Mapping[str, str | None] = {"phone": to["phone"], "email": to["email"]}
    return addresses.get(kind) if kind else None


def with_profile(message: Message, profile: Profile | None) -> Recipient:
    """The request's addresses, completed by the profile's."""
    to = message["to"]
    if profile is None:
        return to
    return {
        "id": to["id"],
        "phone": to["phone"] or profile["phone"],
        "email": to["email"] or profile["email"],
        "country": to["country"] or profile["country"],
    }


def _wished(message: Message, profile: Profile | None, policy: Policy) -> Sequence[RouteStep]:
    if message["route"]:
        return [
            RouteStep(
                step["channel"],
                None if step["window_s"] is None else int(step["window_s"] * 1_000),
                step["success"] or "delivered",
            )
            for step in message["route"]
        ]
    if profile is not None and profile["preference"]:
        return [RouteStep(channel) for channel in profile["preference"]]
    for rule in policy.rules:
        if (
            (not rule.countries or message["country"] in rule.countries)
            and (not rule.priorities or message["priority"] in rule.priorities)
            and (not rule.categories or message["category"] in rule.categories)
        ):
            return rule.steps
    return policy.default_route


def resolve(
    message: Message,
    to: Recipient,
    profile: Profile | None,
    policy: Policy,
    suppressed: Suppressed,
) -> tuple[list[StepState], bool]:
    """The steps that can be taken, and whether a suppression removed one.

    A step without an address for its channel is left out: it could only fail.
    """
    steps: list[StepState] = []
    removed = False
    default_window = policy.priorities[message["priority"]].window_ms
    for wish in _wished(message, profile, policy):
        address = address_of(to, wish.channel)
        if address is None:
            continue
        if suppressed(wish.channel, address):
            removed = True
            continue
        window = default_window if wish.window_ms is None else wish.window_ms
        receiptless = wish.channel in policy.receiptless_channels
        steps.append(
            {
                "channel": wish.channel,
                "window_ms": max(policy.min_window_ms, min(window, policy.max_window_ms)),
                "success": "accepted" if receiptless else wish.success,
                "status": "",
                "tries": 0,
                "key_no": 0,
                "dispatched_at": None,
                "provider": "",
                "reason": "",
                "result": "",
                "commands": 0,
                "alive": 0,
                "negatives": 0,
                "negative_class": "",
                "negative_code": "",
                "cost": 0.0,
            }
        )
    return steps, removed
