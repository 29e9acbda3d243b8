"""Providers, routes, windows, retries and limits: `Config`, from one YAML file.

Read once at start into the domain's frozen values. Secrets are named (`env:NAME`), never written
in the file.
"""

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pipeline.domain.api_keys import ApiKey
from pipeline.domain.policy import (
    CHANNEL_ADDRESS,
    Policy,
    PriorityPolicy,
    RetryPolicy,
    RouteRule,
    RouteStep,
)
from pipeline.domain.ports import Account
from pipeline.domain.records import PRIORITIES
from pipeline.domain.reference import TENANT
from pipeline.settings.accounts import World, country, read_accounts
from pipeline.settings.document import Misplaced, Node

DAY_MS: Final = 86_400_000
SUCCESSES: Final = ("accepted", "delivered", "read")
ON_DOUBT: Final = ("resend", "wait")
INTAKE_TOPICS: Final = ("intake", "intake.bulk", "recipients")

_CATEGORY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_KEY_ID: Final = re.compile(r"[a-z2-7]{8}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_TENANT_FORM: Final = "small letters, digits, dash, underscore, 24 at most"
_MOST_STEPS: Final = 10


@dataclass(frozen=True, slots=True)
class DispatchLimits:
    """How much dispatch takes on at once, per worker."""

    slots: int = 128  # requests in flight
    provider_share: float = 0.25  # of the slots, for one provider
    provider_waiting: int = 500  # commands that wait for one provider; more go back to fallback


@dataclass(frozen=True, slots=True)
class Config:
    """What decides messages' lives besides the messages. `accounts` is in the file's order, which
    is the order in which providers of a channel are tried."""

    policy: Policy
    accounts: Mapping[str, Account]
    dispatch: DispatchLimits = field(default_factory=DispatchLimits)
    tenants: Mapping[str, str] = field(default_factory=dict)  # by intake topic
    api_keys: Mapping[str, ApiKey] = field(default_factory=dict)  # by the key's id


def sample_path(name: str = "pipeline.yaml") -> Path:
    """A file of `deploy/`, in a checkout or inside the installed package."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "deploy" / name
    return inside if inside.exists() else package.parent / "deploy" / name


def load_config(
    file: Path,
    gateway_url: str = "",
    environment: Mapping[str, str] | None = None,
    adapters: Collection[str] = (),
) -> Config:
    """Reads `file`. `gateway_url` is where providers send receipts unless an account says
    otherwise; secrets come from `environment` (the process's own by default); `adapters` are the
    known ones, any name will do without them.

    Raises:
        BadInput: names file, line, field, cause and cure of the first mistake.
    """
    environment = os.environ if environment is None else environment
    return _config(Node.read(file), gateway_url, environment, adapters)


def check_config(
    file: Path, gateway_url: str, environment: Mapping[str, str], adapters: Collection[str]
) -> tuple[Config | None, list[Misplaced]]:
    """What `load_config` would give, or None and every mistake of the file by its line.

    Raises:
        BadInput: the file cannot be read at all.
    """
    problems: list[Misplaced] = []
    try:
        top = Node.read(file, problems)
    except Misplaced as error:
        return None, [error]
    found = top.part(lambda node: _config(node, gateway_url, environment, adapters), None)
    return None if problems else found, sorted(problems, key=lambda problem: problem.line)


def _config(
    top: Node, gateway_url: str, environment: Mapping[str, str], adapters: Collection[str]
) -> Config:
    parts = top.fields(
        (
            "priorities", "routes", "default_route", "limits", "providers", "dispatch", "tenants",
            "api_keys",
        ),
        required=("priorities", "default_route", "providers"),
    )  # fmt: skip
    world = World(gateway_url, environment, adapters)
    none: dict[str, Account] = {}
    accounts = parts["providers"].part(lambda node: read_accounts(node, world), none)
    return Config(
        policy=_policy(parts, accounts),
        accounts=MappingProxyType(accounts),
        dispatch=top.part(lambda _: _dispatch(parts.get("dispatch")), DispatchLimits()),
        tenants=MappingProxyType(top.part(lambda _: _tenants(parts.get("tenants")), {})),
        api_keys=MappingProxyType(top.part(lambda _: _api_keys(parts.get("api_keys")), {})),
    )


def _policy(parts: Mapping[str, Node], accounts: Mapping[str, Account]) -> Policy:
    limits: Mapping[str, Node] = {}
    if "limits" in parts:
        names = ("min_window", "max_window", "max_deadline", "remember", "park")
        limits = parts["limits"].part(lambda node: node.fields(names), {})

    def limit(name: str, default: int, low: int, high: int) -> int:
        if name not in limits:
            return default
        return limits[name].part(lambda node: node.duration(low, high), default)

    min_window = limit("min_window", 10_000, 100, DAY_MS)
    max_window = limit("max_window", 3 * DAY_MS, min_window, 30 * DAY_MS)
    max_deadline = limit("max_deadline", 30 * DAY_MS, 60_000, 30 * DAY_MS)
    windows = (min_window, max_window)
    reported = {one.channel for one in accounts.values() if one.capabilities.receipts}
    served = frozenset(account.channel for account in accounts.values())
    none: dict[str, PriorityPolicy] = {}
    return Policy(
        priorities=MappingProxyType(
            parts["priorities"].part(lambda node: _priorities(node, windows, max_deadline), none)
        ),
        rules=_rules(parts["routes"], windows, served) if "routes" in parts else (),
        default_route=parts["default_route"].part(lambda node: _steps(node, windows, served), ()),
        min_window_ms=min_window,
        max_window_ms=max_window,
        max_deadline_ms=max_deadline,
        remember_ms=limit("remember", 3 * DAY_MS, 1_000, 60 * DAY_MS),
        park_ms=limit("park", DAY_MS, 1_000, 3 * DAY_MS),
        receiptless_channels=tuple(sorted({one.channel for one in accounts.values()} - reported)),
    )


def _priorities(
    node: Node, windows: tuple[int, int], max_deadline: int
) -> dict[str, PriorityPolicy]:
    def read(entry: Node) -> PriorityPolicy:
        return _priority(entry, windows, max_deadline)

    entries = node.fields(PRIORITIES, required=PRIORITIES)
    found = {name: entry.part(read, None) for name, entry in entries.items()}
    return {name: one for name, one in found.items() if one is not None}


def _priority(entry: Node, windows: tuple[int, int], max_deadline: int) -> PriorityPolicy:
    keys = ("window", "deadline", "retry", "on_doubt", "command_ttl", "blind_hold")
    parts = entry.fields(keys, required=keys)

    def time(name: str, low: int, high: int) -> int:
        return parts[name].part(lambda node: node.duration(low, high), low)

    return PriorityPolicy(
        window_ms=time("window", *windows),
        deadline_ms=time("deadline", 1_000, max_deadline),
        retry=parts["retry"].part(_retry, RetryPolicy(1, 1, 1)),
        on_doubt=parts["on_doubt"].part(lambda node: node.one_of(ON_DOUBT), ""),
        command_ttl_ms=time("command_ttl", 1_000, DAY_MS),
        blind_hold_ms=time("blind_hold", 100, DAY_MS),
    )


def _retry(node: Node) -> RetryPolicy:
    parts = node.fields(("tries", "base", "cap"), required=("tries", "base", "cap"))
    tries = parts["tries"].part(lambda part: part.whole(1, 20), 1)
    base = parts["base"].part(lambda part: part.duration(1, DAY_MS), 1)
    cap = parts["cap"].part(lambda part: part.duration(base, DAY_MS), base)
    return RetryPolicy(max_tries=tries, base_ms=base, cap_ms=cap)


def _rules(node: Node, windows: tuple[int, int], served: Collection[str]) -> tuple[RouteRule, ...]:
    def read(item: Node) -> RouteRule:
        return _rule(item, windows, served)

    none: list[Node] = []
    found = [item.part(read, None) for item in node.part(Node.items, none)]
    return tuple(rule for rule in found if rule is not None)


def _rule(node: Node, windows: tuple[int, int], served: Collection[str]) -> RouteRule:
    parts = node.fields(("countries", "priorities", "categories", "steps"), required=("steps",))

    def names(key: str, read: Callable[[Node], str]) -> tuple[str, ...]:
        if key not in parts:
            return ()
        none: list[Node] = []
        return tuple(item.part(read, "") for item in parts[key].part(Node.items, none))

    return RouteRule(
        steps=parts["steps"].part(lambda part: _steps(part, windows, served), ()),
        countries=names("countries", country),
        priorities=names("priorities", lambda item: item.one_of(PRIORITIES)),
        categories=names("categories", _category),
    )


def _category(node: Node) -> str:
    return node.matching(_CATEGORY, "letters, digits, dot, dash and underscore, 64 at most")


def _steps(node: Node, windows: tuple[int, int], served: Collection[str]) -> tuple[RouteStep, ...]:
    def read(item: Node) -> RouteStep:
        return _step(item, windows, served)

    items = node.items()
    if not 1 <= len(items) <= _MOST_STEPS:
        node.fail(f"a route of {len(items)} steps", f"give it 1 to {_MOST_STEPS} steps")
    found = [item.part(read, None) for item in items]
    return tuple(step for step in found if step is not None)


def _step(item: Node, windows: tuple[int, int], served: Collection[str]) -> RouteStep:
    """One step. `served` is empty, or has an empty name, when the channel of some provider could
    not be read: then nobody knows which channels are served."""
    parts = item.fields(("channel", "window", "success"), required=("channel",))
    channel = parts["channel"].one_of(tuple(CHANNEL_ADDRESS))
    if served and not {channel, ""} & {*served}:
        parts["channel"].fail(
            f"no provider serves {channel}", f"add one to providers, or leave {channel} out"
        )
    return RouteStep(
        channel=channel,
        window_ms=parts["window"].duration(*windows) if "window" in parts else None,
        success=parts["success"].one_of(SUCCESSES) if "success" in parts else "delivered",
    )


def _dispatch(node: Node | None) -> DispatchLimits:
    standard = DispatchLimits()
    if node is None:
        return standard
    parts = node.fields(("slots", "provider_share", "provider_waiting"))
    return DispatchLimits(
        slots=parts["slots"].whole(1, 4_096) if "slots" in parts else standard.slots,
        provider_share=(
            parts["provider_share"].number(0.01, 1)
            if "provider_share" in parts
            else standard.provider_share
        ),
        provider_waiting=(
            parts["provider_waiting"].whole(1, 100_000)
            if "provider_waiting" in parts
            else standard.provider_waiting
        ),
    )


def _tenants(node: Node | None) -> dict[str, str]:
    if node is None:
        return {}
    return {
        topic: entry.matching(TENANT, _TENANT_FORM)
        for topic, entry in node.fields(INTAKE_TOPICS).items()
    }


def _api_keys(node: Node | None) -> dict[str, ApiKey]:
    found = {}
    for key_id, entry in node.entries() if node is not None else ():
        if not _KEY_ID.fullmatch(key_id):
            entry.fail("this is no key's id", "copy the line that `pipeline keys new` prints")
        parts = entry.fields(("tenant", "sha256"), required=("tenant", "sha256"))
        digest = parts["sha256"].matching(_SHA256, "the line that `pipeline keys new` prints")
        found[key_id] = ApiKey(
            tenant=parts["tenant"].matching(TENANT, _TENANT_FORM), sha256=bytes.fromhex(digest)
        )
    return found
