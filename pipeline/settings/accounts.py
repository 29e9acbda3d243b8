"""Accounts at providers, from the `providers` part of the file."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from pipeline.domain.policy import CHANNEL_ADDRESS
from pipeline.domain.ports import Account, Capabilities
from pipeline.settings.document import Node

T = TypeVar("T")

_PROVIDER: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_COUNTRY: Final = re.compile(r"[A-Z]{2}")
_CURRENCY: Final = re.compile(r"[A-Z]{3}")
_KEYS: Final = (
    "adapter", "channel", "base_url", "countries", "credential", "callback_secrets",
    "callback_url", "sender", "cost", "currency", "timeout", "honours_keys", "echoes_reference",
    "receipts", "trace",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class World:
    """What accounts are read against: where receipts are sent unless an account says otherwise,
    where secrets come from, and the known adapters (any name will do when there are none)."""

    gateway_url: str
    environment: Mapping[str, str]
    adapters: Collection[str]


def read_accounts(node: Node, world: World) -> dict[str, Account]:
    """The accounts by name, in the file's order. Where mistakes are collected, what could not be
    read of an account is empty in it."""
    found: dict[str, Account] = {}
    for name, entry in node.entries():
        found[name] = entry.part(partial(_account, name, world), Account(name, "", "", ""))
    if not found:
        node.fail("there is no provider", "add at least one")
    return found


def country(node: Node) -> str:
    """A country code."""
    return node.matching(_COUNTRY, "two capital letters of ISO 3166, as IN")


def _account(name: str, world: World, node: Node) -> Account:
    if not _PROVIDER.fullmatch(name):
        node.fail(
            "this cannot name a provider", "small letters, digits, dash, underscore, 40 at most"
        )
    parts = node.fields(_KEYS, required=("adapter", "channel", "base_url"))

    def of(key: str, read: Callable[[Node], T], default: T) -> T:
        return parts[key].part(read, default) if key in parts else default

    def secret(part: Node) -> str:
        return part.secret(world.environment)

    def address(part: Node) -> str:
        value = part.filled(world.environment)
        if not re.fullmatch(r"https?://[^\s/]\S*", value):
            part.fail("this is no address", "write http:// or https:// and a host")
        return value.rstrip("/")

    def all_of(key: str, read: Callable[[Node], str]) -> tuple[str, ...]:
        none: list[Node] = []
        return tuple(item.part(read, "") for item in of(key, Node.items, none))

    standard = Account(name, "", "", "")
    receipts_to = f"{world.gateway_url}/callbacks/{name}" if world.gateway_url else ""
    return Account(
        name=name,
        adapter=of("adapter", lambda part: _adapter(part, world.adapters), ""),
        channel=of("channel", lambda part: part.one_of(tuple(CHANNEL_ADDRESS)), ""),
        base_url=of("base_url", address, ""),
        capabilities=Capabilities(
            honours_keys=of("honours_keys", Node.flag, False),
            echoes_reference=of("echoes_reference", Node.flag, True),
            receipts=of("receipts", Node.flag, True),
        ),
        countries=all_of("countries", country),
        credential=of("credential", secret, ""),
        callback_secrets=all_of("callback_secrets", secret),
        callback_url=of("callback_url", address, receipts_to),
        sender=of("sender", Node.text, ""),
        cost=of("cost", lambda part: part.number(0, 1_000), 0.0),
        currency=of("currency", _currency, standard.currency),
        timeout_ms=of("timeout", lambda part: part.duration(100, 60_000), standard.timeout_ms),
        trace=of("trace", Node.flag, standard.trace),
    )


def _adapter(node: Node, adapters: Collection[str]) -> str:
    if adapters:
        return node.one_of(sorted(adapters))
    return node.matching(_PROVIDER, "the name of an adapter")


def _currency(node: Node) -> str:
    return node.matching(_CURRENCY, "three capital letters, as EUR")
