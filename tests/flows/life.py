"""A message's whole life in memory: real accept, fallback, dispatch decisions and receipts, and
scripted providers."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.channels import render
from pipeline.domain import ids
from pipeline.domain.outcomes import Answer, Inbound
from pipeline.domain.policy import Policy, PriorityPolicy, RetryPolicy, RouteStep
from pipeline.domain.ports import Account, Capabilities
from pipeline.domain.switches import NONE, Switches
from pipeline.providers import PROVIDERS
from pipeline.runtime.codec import Codec
from pipeline.stages.accept import AcceptConfig, accept
from pipeline.stages.dispatch import Dispatch, DispatchConfig
from pipeline.stages.fallback import Fallback
from pipeline.stages.receipts import Receipts
from pipeline.testing import (
    Driver,
    Input,
    Item,
    ManualClock,
    MemoryLog,
    StatelessDriver,
    World,
)
from pipeline.topology import CATALOGUE
from tests.flows.outside import Outside, Script
from tests.flows.wire import on_the_wire

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

WINDOW = MINUTE
DEADLINE = HOUR
PEPPER = b"p" * 16
_CODEC = Codec()
KEY = b"k" * 32
PHONE = "+4915112345678"
OTHER_PHONE = "+4915112345679"


def _priority(on_doubt: str, tries: int) -> PriorityPolicy:
    return PriorityPolicy(
        window_ms=WINDOW,
        deadline_ms=DEADLINE,
        retry=RetryPolicy(tries, 2 * SECOND, 30 * SECOND),
        on_doubt=on_doubt,
        command_ttl_ms=5 * MINUTE,
        blind_hold_ms=5 * SECOND,
    )


POLICY = Policy(
    priorities={
        "urgent": _priority("resend", 2),
        "normal": _priority("wait", 3),
        "bulk": _priority("wait", 5),
    },
    rules=(),
    default_route=(RouteStep("whatsapp"), RouteStep("sms"), RouteStep("voice")),
    min_window_ms=SECOND,
)


def _account(name: str, channel: str, **capabilities: bool) -> Account:
    return Account(
        name,
        "generic",
        channel,
        "http://127.0.0.1",
        Capabilities(**capabilities),
        callback_url=f"http://127.0.0.1/callbacks/{name}",
        cost=0.01,
    )


ACCOUNTS = {
    account.name: account
    for account in (
        _account("wa", "whatsapp", honours_keys=True, echoes_reference=False),
        _account("sms", "sms"),
        _account("sms2", "sms", honours_keys=True),
        _account("voice", "voice", honours_keys=True),
    )
}


# Events before requests, failures last of them, urgent requests first, as the real loop reads them.
_INPUTS = [topic.name for topic in CATALOGUE.inputs("fallback")]
FALLBACK_READS = sorted(_INPUTS, key=lambda name: (name.startswith("accepted."), name == "failed"))


class _Accept:
    def __init__(self, config: AcceptConfig) -> None:
        self._config = config

    def on_record(self, record: Inbound, now: int) -> Sequence[Answer]:
        return accept(record, self._config)


class Life:
    """One world with every stage in it; `script` says what the providers do."""

    def __init__(
        self,
        script: Script,
        *,
        policy: Policy = POLICY,
        switches: Switches = NONE,
        trace_ratio: float = 0.0,
    ) -> None:
        self.policy = policy
        self.clock = ManualClock()
        self.started = self.clock.now()
        self.log = MemoryLog(self.clock, partitions=2, check=on_the_wire)
        accept_config = AcceptConfig(
            policy, PEPPER, "cluster", _CODEC.decode, switches=switches, trace_ratio=trace_ratio
        )
        dispatch = Dispatch(
            DispatchConfig(list(ACCOUNTS.values()), PROVIDERS, render, PEPPER, 0, KEY),
            lambda *_: False,
        )
        self.outside = Outside(
            self.log,
            dispatch,
            ACCOUNTS,
            [topic.name for topic in CATALOGUE.inputs("dispatch")],
            script,
        )
        self.fallback = Driver(
            self.log,
            "fallback",
            lambda: Fallback(policy, lambda *_: False, switches),
            FALLBACK_READS,
        )
        self.receipts = Driver(
            self.log,
            "receipts",
            lambda: Receipts(ACCOUNTS, PROVIDERS, {0: KEY}),
            [topic.name for topic in CATALOGUE.inputs("receipts")],
        )
        self.accept = StatelessDriver(
            self.log,
            "accept",
            lambda: _Accept(accept_config),
            [topic.name for topic in CATALOGUE.inputs("accept")],
        )
        self.world = World(self.log, [self.accept, self.receipts, self.fallback], [self.outside])

    def play(self, *items: Item) -> "Life":
        """Plays and settles."""
        self.world.play(items)
        return self

    # what came of it

    def outcomes(self) -> list[Mapping[str, Any]]:
        """Every outcome that was written."""
        return self.log.values("outcomes")

    def outcome(self, name: str = "m", phone: str = PHONE) -> Mapping[str, Any]:
        """The one outcome of a message."""
        found = [o for o in self.outcomes() if o["message_id"] == message_id(name, phone)]
        assert len({outcome["event_id"] for outcome in found}) == 1, found
        return found[0]

    def kinds(self) -> Counter[str]:
        """How many events of each kind there are, each name once."""
        named = {
            record.value["event_id"]: record.topic
            for record in self.log.records(
                "rejected",
                "dispatched",
                "failed",
                "delivered",
                "read",
                "timed-out",
                "late-receipts",
            )
        }
        return Counter(named.values())

    def events(self, *topics: str) -> list[Mapping[str, Any]]:
        """Events in the order in which they were written."""
        return self.log.values(*topics)

    def commands(self) -> list[Mapping[str, Any]]:
        """Every command, in the order in which they were written."""
        return [r.value for r in self.log.records() if r.topic.startswith("send.")]

    def asked(self) -> list[str]:
        """The providers in the order of their requests."""
        return [request.provider for request in self.outside.requests]


def request(name: str = "m", phone: str = PHONE, **fields: Any) -> Input:
    """A request as a client writes it."""
    value = {
        "idempotency_key": name,
        "to": {"phone": phone},
        "content": {"text": f"hello {name}"},
        **fields,
    }
    return Input("intake", phone, json.dumps(value).encode())


def recipient(phone: str = PHONE) -> str:
    """The recipient key of a number."""
    return ids.recipient_key(PEPPER, "default", "phone", phone)


def message_id(name: str = "m", phone: str = PHONE) -> str:
    """The id of the message of `request(name, phone)`."""
    return ids.message_id("default", recipient(phone), name)


def unique(records: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Records by their event id."""
    return {record["event_id"]: record for record in records}
