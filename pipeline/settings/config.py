"""Providers, routes, windows, retries and limits: `Config`, from one YAML file.

Read once at start into the domain's frozen values. Secrets are named (`env:NAME`), never written
in the file.
"""

import os
import re
from collections.abc import Mapping
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
from pipeline.domain.ports import Account, Capabilities
from pipeline.domain.records import PRIORITIES
from pipeline.domain.reference import TENANT
from pipeline.settings.document import Node

DAY_MS: Final = 86_400_000
SUCCESSES: Final = ("accepted", "delivered", "read")
ON_DOUBT: Final = ("resend", "wait")
INTAKE_TOPICS: Final = ("intake", "intake.bulk", "recipients")

_PROVIDER: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_COUNTRY: Final = re.compile(r"[A-Z]{2}")
_CATEGORY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_KEY_ID: Final = re.compile(r"[a-z2-7]{8}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_TENANT_FORM: Final = "small letters, digits, dash, underscore, 24 at most"
_MOST_STEPS: Final = 10
_PROVIDER_KEYS: Final = (
    "adapter", "channel", "base_url", "countries", "credential", "callback_secrets",
    "callback_url", "sender", "cost", "currency", "timeout", "honours_keys", "echoes_reference",
    "receipts",
)  # fmt: skip


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
    file: Path, gateway_url: str = "", environment: Mapping[str, str] | None = None
) -> Config:
    """Reads `file`. `gateway_url` is where providers send receipts unless an account says
    otherwise; secrets come from `environment` (the process's own by default).

    Raises:
        BadInput: names file, line, field, cause and cure of the first mistake.
    """
    top = Node.read(file)
    parts = top.fields(
        (
            "priorities", "routes", "default_route", "limits", "providers", "dispatch", "tenants",
            "api_keys",
        ),
        required=("priorities", "default_route", "providers"),
    )  # fmt: skip
    accounts = _accounts(
        parts["providers"], gateway_url, os.environ if environment is None else environment
    )
    policy = _policy(parts, accounts)
    return Config(
        policy=policy,
        accounts=MappingProxyType(accounts),
        dispatch=_dispatch(parts.get("dispatch")),
        tenants=MappingProxyType(_tenants(parts.get("tenants"))),
        api_keys=MappingProxyType(_api_keys(parts.get("api_keys"))),
    )


def _policy(parts: Mapping[str, Node], accounts: Mapping[str, Account]) -> Policy:
    limits = parts["limits"].fields(
        ("min_window", "max_window", "max_deadline", "remember", "park")
    ) if "limits" in parts else {}  # fmt: skip

    def limit(name: str, default: int, low: int, high: int) -> int:
        return limits[name].duration(low, high) if name in limits else default

    min_window = limit("min_window", 10_000, 100, DAY_MS)
    max_window = limit("max_window", 3 * DAY_MS, min_window, 30 * DAY_MS)
    max_deadline = limit("max_deadline", 30 * DAY_MS, 60_000, 30 * DAY_MS)
    windows = (min_window, max_window)
    reported = {one.channel for one in accounts.values() if one.capabilities.receipts}
    return Policy(
        priorities=MappingProxyType(_priorities(parts["priorities"], windows, max_deadline)),
        rules=tuple(
            _rule(item, windows, accounts)
            for item in (parts["routes"].items() if "routes" in parts else ())
        ),
        default_route=_steps(parts["default_route"], windows, accounts),
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
    found = {}
    for name, entry in node.fields(PRIORITIES, required=PRIORITIES).items():
        keys = ("window", "deadline", "retry", "on_doubt", "command_ttl", "blind_hold")
        parts = entry.fields(keys, required=keys)
        retry = parts["retry"].fields(("tries", "base", "cap"), required=("tries", "base", "cap"))
        base = retry["base"].duration(1, DAY_MS)
        found[name] = PriorityPolicy(
            window_ms=parts["window"].duration(*windows),
            deadline_ms=parts["deadline"].duration(1_000, max_deadline),
            retry=RetryPolicy(
                max_tries=retry["tries"].whole(1, 20),
                base_ms=base,
                cap_ms=retry["cap"].duration(base, DAY_MS),
            ),
            on_doubt=parts["on_doubt"].one_of(ON_DOUBT),
            command_ttl_ms=parts["command_ttl"].duration(1_000, DAY_MS),
            blind_hold_ms=parts["blind_hold"].duration(100, DAY_MS),
        )
    return found


def _rule(node: Node, windows: tuple[int, int], accounts: Mapping[str, Account]) -> RouteRule:
    parts = node.fields(("countries", "priorities", "categories", "steps"), required=("steps",))
    return RouteRule(
        steps=_steps(parts["steps"], windows, accounts),
        countries=_countries(parts.get("countries")),
        priorities=tuple(
            item.one_of(PRIORITIES)
            for item in (parts["priorities"].items() if "priorities" in parts else ())
        ),
        categories=tuple(
            _matching(item, _CATEGORY, "letters, digits, dot, dash and underscore, 64 at most")
            for item in (parts["categories"].items() if "categories" in parts else ())
        ),
    )


def _steps(
    node: Node, windows: tuple[int, int], accounts: Mapping[str, Account]
) -> tuple[RouteStep, ...]:
    items = node.items()
    if not 1 <= len(items) <= _MOST_STEPS:
        node.fail(f"a route of {len(items)} steps", f"give it 1 to {_MOST_STEPS} steps")
    served = {account.channel for account in accounts.values()}
    steps = []
    for item in items:
        parts = item.fields(("channel", "window", "success"), required=("channel",))
        channel = parts["channel"].one_of(tuple(CHANNEL_ADDRESS))
        if channel not in served:
            parts["channel"].fail(
                f"no provider serves {channel}", f"add one to providers, or leave {channel} out"
            )
        steps.append(
            RouteStep(
                channel=channel,
                window_ms=parts["window"].duration(*windows) if "window" in parts else None,
                success=parts["success"].one_of(SUCCESSES) if "success" in parts else "delivered",
            )
        )
    return tuple(steps)


def _accounts(node: Node, gateway_url: str, environment: Mapping[str, str]) -> dict[str, Account]:
    found: dict[str, Account] = {}
    for name, entry in node.entries():
        if not _PROVIDER.fullmatch(name):
            entry.fail(
                "this cannot name a provider", "small letters, digits, dash, underscore, 40 at most"
            )
        found[name] = _account(name, entry, gateway_url, environment)
    if not found:
        node.fail("there is no provider", "add at least one")
    return found


def _account(name: str, node: Node, gateway_url: str, environment: Mapping[str, str]) -> Account:
    parts = node.fields(_PROVIDER_KEYS, required=("adapter", "channel", "base_url"))

    def flag(key: str, default: bool) -> bool:
        return parts[key].flag() if key in parts else default

    def text(key: str, default: str = "") -> str:
        return parts[key].text() if key in parts else default

    secrets = parts["callback_secrets"].items() if "callback_secrets" in parts else ()
    standard = Account(name, "", "", "")
    own_callback = _url(parts["callback_url"], environment) if "callback_url" in parts else ""
    return Account(
        name=name,
        adapter=_matching(parts["adapter"], _PROVIDER, "the name of an adapter"),
        channel=parts["channel"].one_of(tuple(CHANNEL_ADDRESS)),
        base_url=_url(parts["base_url"], environment),
        capabilities=Capabilities(
            honours_keys=flag("honours_keys", False),
            echoes_reference=flag("echoes_reference", True),
            receipts=flag("receipts", True),
        ),
        countries=_countries(parts.get("countries")),
        credential=parts["credential"].secret(environment) if "credential" in parts else "",
        callback_secrets=tuple(secret.secret(environment) for secret in secrets),
        callback_url=own_callback or (f"{gateway_url}/callbacks/{name}" if gateway_url else ""),
        sender=text("sender"),
        cost=parts["cost"].number(0, 1_000) if "cost" in parts else 0.0,
        currency=(
            _matching(parts["currency"], re.compile(r"[A-Z]{3}"), "three capital letters, as EUR")
            if "currency" in parts
            else standard.currency
        ),
        timeout_ms=(
            parts["timeout"].duration(100, 60_000) if "timeout" in parts else standard.timeout_ms
        ),
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
        topic: _matching(entry, TENANT, _TENANT_FORM)
        for topic, entry in node.fields(INTAKE_TOPICS).items()
    }


def _api_keys(node: Node | None) -> dict[str, ApiKey]:
    found = {}
    for key_id, entry in node.entries() if node is not None else ():
        if not _KEY_ID.fullmatch(key_id):
            entry.fail("this is no key's id", "copy the line that `pipeline keys new` prints")
        parts = entry.fields(("tenant", "sha256"), required=("tenant", "sha256"))
        digest = _matching(parts["sha256"], _SHA256, "the line that `pipeline keys new` prints")
        found[key_id] = ApiKey(
            tenant=_matching(parts["tenant"], TENANT, _TENANT_FORM), sha256=bytes.fromhex(digest)
        )
    return found


def _countries(node: Node | None) -> tuple[str, ...]:
    if node is None:
        return ()
    return tuple(
        _matching(item, _COUNTRY, "two capital letters of ISO 3166, as IN") for item in node.items()
    )


def _url(node: Node, environment: Mapping[str, str]) -> str:
    value = node.filled(environment)
    if not re.fullmatch(r"https?://[^\s/]\S*", value):
        node.fail("this is no address", "write http:// or https:// and a host")
    return value.rstrip("/")


def _matching(node: Node, pattern: re.Pattern[str], expected: str) -> str:
    value = node.text()
    if not pattern.fullmatch(value):
        node.fail("this has the wrong form", f"expected: {expected}")
    return value
