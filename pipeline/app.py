"""Where settings, stages and the runtime meet: builds one worker of one stage and runs it.

What only one stage needs is imported there: it halves the start of the others, and a worker that was
killed is back that much sooner.
"""

import logging
import os
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipeline.domain import ids
from pipeline.domain.drafts import NO_TENANT, blank_event, source_of
from pipeline.domain.errors import BadInput
from pipeline.domain.outcomes import Answer, Emit, Inbound
from pipeline.domain.ports_api import Api
from pipeline.domain.suppressions import suppressed
from pipeline.domain.switches import NONE, Switches
from pipeline.domain.turns import Limits
from pipeline.runtime.admin import verify
from pipeline.runtime.clock import BrokerClock, Clock
from pipeline.runtime.codec import Codec
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.observe import Unobserved
from pipeline.runtime.registry import Registry
from pipeline.runtime.tasks import SlotLock
from pipeline.runtime.telemetry import TelemetryOptions, observing
from pipeline.runtime.wire import Wire
from pipeline.settings.config import Config
from pipeline.settings.environment import Settings
from pipeline.stages import gateway, sink
from pipeline.topology import CATALOGUE

if TYPE_CHECKING:
    from pipeline.stages.accept import AcceptConfig

log = logging.getLogger(__name__)

SPACING_MS: Final = {"urgent": 15, "normal": 50, "bulk": 200}
"""How long a commit may wait for more records of a lane: each transaction costs the brokers some
milliseconds, and an urgent message no more than that."""

EVENT_SPACING_MS: Final = 30
_LOAD_S: Final = 30.0


@dataclass(frozen=True)
class Parts:
    """What every worker is made of."""

    settings: Settings
    config: Config
    cluster: Cluster
    codec: Codec
    wire: Wire
    clock: Clock
    partitions: int
    slot: int
    static: bool
    switches: Switches
    stop: threading.Event
    on_step: Callable[[str], None]
    observed: Unobserved

    @property
    def pepper(self) -> bytes:
        """What recipients' keys are made with."""
        return self.settings.pepper_bytes

    def directory(self, stage: str) -> Path:
        """Where this worker keeps state."""
        return self.settings.data_dir / "state" / f"{stage}-{self.slot}"


def cluster_of(settings: Settings) -> Cluster:
    """The cluster that the settings name."""
    return Cluster(settings.bootstrap, settings.prefix, settings.security, settings.group_protocol)


def codec_of(settings: Settings) -> Codec:
    """The codec, with the registry when one is configured. Raises RegistryUnavailable."""
    registry = None
    if settings.registry_url:
        password = settings.registry_password.get_secret_value()
        login = (settings.registry_user, password) if settings.registry_user else None
        registry = Registry(settings.registry_url, login)
    codec = Codec(registry, settings.prefix)
    codec.start()
    return codec


def run_stage(
    stage: str,
    slot: int,
    settings: Settings,
    config: Config,
    switches: Switches = NONE,
    *,
    stop: threading.Event,
    static: bool = True,
    on_step: Callable[[str], None] = lambda _step: None,
) -> None:
    """Runs one worker until `stop` is set. Blocks.

    `slot` tells this worker from the others of its stage; a restart in the same slot gets the same
    tasks back at once. `static` False is for workers that come and go: they leave the group when
    they stop. `on_step` is told of each step of a transaction, for tests that stop a worker there.

    Raises:
        SlotTaken: another process has this slot.
        TopicsMismatch, ControlMismatch, MissingOffset: it must not run like this; the text says
            what to do.
    """
    lock = SlotLock(settings.data_dir / "locks", f"{settings.prefix}{stage}", slot)
    cluster, codec = cluster_of(settings), codec_of(settings)
    fingerprint = ids.pepper_fingerprint(settings.pepper_bytes)
    partitions = verify(cluster, codec, fingerprint, stage)
    clock = BrokerClock()
    telemetry = TelemetryOptions(
        settings.data_dir,
        settings.metrics_host,
        settings.metrics_port,
        settings.otlp_endpoint,
        settings.otlp_headers.get_secret_value(),
        attempts=settings.attempt_log == "on",
    )
    with observing(stage, slot, cluster, clock, telemetry) as observed:
        parts = Parts(
            settings=settings,
            config=config,
            cluster=cluster,
            codec=codec,
            wire=Wire(cluster, codec),
            clock=clock,
            partitions=partitions,
            slot=slot,
            static=static,
            switches=switches,
            stop=stop,
            on_step=on_step,
            observed=observed,
        )
        log.info("%s: slot %d starts", stage, slot)
        RUN[stage](parts)
        log.info("%s: slot %d stopped", stage, slot)
    lock.release()


def _accept(parts: Parts) -> None:
    from pipeline.runtime.stateless import Intake, StatelessWorker
    from pipeline.stages.accept import AcceptConfig, accept

    admin = parts.cluster.admin()
    config = AcceptConfig(
        policy=parts.config.policy,
        pepper=parts.pepper,
        cluster=admin.describe_cluster().result(_LOAD_S).cluster_id,
        decode=parts.codec.decode,
        tenants=parts.config.tenants,
        switches=parts.switches,
        trace_ratio=parts.settings.trace_ratio if parts.settings.otlp_endpoint else 0.0,
        random_id=(lambda: str(uuid.UUID(bytes=os.urandom(16))))
        if parts.switches.random_message_id
        else None,
    )
    StatelessWorker(
        parts.cluster,
        parts.wire,
        "accept",
        lambda record: accept(record, config),
        lambda record, _detail: _accept_crashed(record, config),
        parts.slot,
        parts.clock,
        [
            Intake("accept", ("intake", "recipients"), SPACING_MS["urgent"]),
            Intake("accept-bulk", ("intake.bulk",), SPACING_MS["bulk"]),
        ],
        static=parts.static,
        switches=parts.switches,
        on_step=parts.on_step,
        observed=parts.observed,
    ).run(parts.stop)


def _accept_crashed(record: Inbound, config: "AcceptConfig") -> list[Answer]:
    """A request on which our own code failed is rejected as such, so that its sender hears of it."""
    from pipeline.stages.accept import tenant_of

    name = ids.unreadable_id(record.topic, record.partition, record.offset)
    try:
        tenant = tenant_of(record, config)
    except BadInput:
        tenant = config.tenants.get(record.topic, NO_TENANT)
    event = blank_event(name, "rejected", tenant, "", "")
    event["occurred_at"] = record.timestamp
    event["origin"], event["code"], event["reason"] = "accept", "internal", "internal"
    event["source"] = source_of(record)
    return [Emit("rejected", None, event)]


def _fallback(parts: Parts) -> None:
    from pipeline.runtime.listening import Silence
    from pipeline.runtime.progress import TOPIC as PROGRESS
    from pipeline.runtime.progress import listened
    from pipeline.runtime.stateful import Lane, StatefulWorker
    from pipeline.runtime.tables import Tables
    from pipeline.stages.fallback import Fallback

    tables = Tables(parts.cluster, parts.wire, "fallback", [PROGRESS, "suppressions"], parts.clock)
    tables.load(_LOAD_S)

    def is_suppressed(tenant: str, channel: str, category: str, address: str) -> bool:
        rows = tables.rows("suppressions")
        if not rows:
            return False
        hashed = ids.address_hash(parts.pepper, tenant, address)
        return suppressed(rows, tenant, hashed, channel, category, parts.clock.now())

    # Failures last: what reached the person by now leaves nothing to send.
    events = ("dispatched", "delivered", "read", "failed")
    StatefulWorker(
        parts.cluster,
        parts.wire,
        "fallback",
        Fallback(parts.config.policy, is_suppressed, parts.switches),
        parts.slot,
        parts.directory("fallback"),
        parts.clock,
        lanes=[
            Lane((*events, "profiles"), EVENT_SPACING_MS),
            *(Lane((f"accepted.{lane}",), SPACING_MS[lane]) for lane in CATALOGUE.lanes),
        ],
        silence=lambda: Silence(
            parts.cluster.admin(),
            [parts.cluster.real(topic) for topic in events],
            lambda: listened(tables.rows(PROGRESS), parts.partitions),
            parts.clock,
            parts.switches,
        ),
        each_pass=lambda _worker: tables.poll(),
        static=parts.static,
        switches=parts.switches,
        on_step=parts.on_step,
        observed=parts.observed,
    ).run(parts.stop)
    tables.close()


def _receipts(parts: Parts) -> None:
    from pipeline.providers import PROVIDERS
    from pipeline.runtime.progress import ProgressWriter
    from pipeline.runtime.stateful import Lane, StatefulWorker
    from pipeline.stages.receipts import Receipts

    stage = Receipts(
        parts.config.accounts,
        PROVIDERS,
        parts.settings.reference_key_table,
        park_ms=parts.config.policy.park_ms,
    )
    StatefulWorker(
        parts.cluster,
        parts.wire,
        "receipts",
        stage,
        parts.slot,
        parts.directory("receipts"),
        parts.clock,
        lanes=[Lane(("references", "unmatched", "callbacks"), EVENT_SPACING_MS)],
        each_pass=ProgressWriter(parts.cluster, parts.codec, parts.clock),
        static=parts.static,
        switches=parts.switches,
        on_step=parts.on_step,
        observed=parts.observed,
    ).run(parts.stop)


def _gateway(parts: Parts) -> None:
    from pipeline.providers import PROVIDERS
    from pipeline.runtime.message_events import MessageEvents
    from pipeline.runtime.web import WebOptions, run_gateway
    from pipeline.stages.accept import world_of
    from pipeline.stages.http_intake import HttpIntake

    config = gateway.GatewayConfig(parts.config.accounts, PROVIDERS)
    stage = HttpIntake(
        world=world_of(parts.config.policy),
        pepper=parts.pepper,
        keys=parts.config.api_keys,
        new_key=lambda: os.urandom(16).hex(),
    )
    run_gateway(
        parts.cluster,
        parts.codec,
        lambda provider, request, now: gateway.receive(provider, request, now, config),
        parts.clock,
        parts.stop,
        WebOptions(parts.settings.gateway_host, parts.settings.gateway_port),
        api=Api(stage, MessageEvents(parts.settings.clickhouse_url.get_secret_value())),
        observed=parts.observed,
    )


def _sink(parts: Parts) -> None:
    from pipeline.runtime.clickhouse import Store
    from pipeline.runtime.sink_loop import SinkLoop

    store = Store(parts.settings.clickhouse_url.get_secret_value(), sink.COLUMNS)
    SinkLoop(
        parts.cluster,
        store,
        parts.codec,
        parts.slot if parts.static else None,
        {topic.name: topic.record for topic in CATALOGUE.inputs("sink")},
        sink.to_row,
        sink.unreadable,
        parts.clock,
        observed=parts.observed,
    ).run(parts.stop)


def _dispatch(parts: Parts) -> None:
    from pipeline.channels import render
    from pipeline.providers import PROVIDERS
    from pipeline.runtime.concurrent import DispatchWorker
    from pipeline.runtime.tables import Tables
    from pipeline.stages.dispatch import Dispatch, DispatchConfig

    tables = Tables(parts.cluster, parts.wire, "dispatch", ["suppressions"], parts.clock)

    def is_suppressed(tenant: str, hashed: str, channel: str, category: str, now: int) -> bool:
        return suppressed(tables.rows("suppressions"), tenant, hashed, channel, category, now)

    accounts = tuple(parts.config.accounts.values())
    key_id, key = next(iter(parts.settings.reference_key_table.items()))
    config = DispatchConfig(
        accounts=accounts,
        adapters=PROVIDERS,
        render=render,
        pepper=parts.pepper,
        reference_key_id=key_id,
        reference_key=key,
    )
    limits = parts.config.dispatch
    DispatchWorker(
        parts.cluster,
        parts.codec,
        Dispatch(config, is_suppressed, parts.switches),
        parts.slot,
        parts.clock,
        tables=tables,
        limits=Limits(limits.slots, limits.provider_share, limits.provider_waiting),
        longest_request_ms=max((account.timeout_ms for account in accounts), default=0),
        static=parts.static,
        switches=parts.switches,
        on_step=parts.on_step,
        observed=parts.observed,
    ).run(parts.stop)
    tables.close()


RUN: Final[Mapping[str, Callable[[Parts], None]]] = {
    "accept": _accept,
    "fallback": _fallback,
    "dispatch": _dispatch,
    "gateway": _gateway,
    "receipts": _receipts,
    "sink": _sink,
}
"""How each stage runs."""
