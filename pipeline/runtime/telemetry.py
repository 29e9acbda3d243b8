"""Everything that carries a worker's telemetry outside, begun and ended with it.

Telemetry is never a reason for a worker not to run: what cannot be set up is said in a warning.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaException

from pipeline.domain import metrics
from pipeline.domain.meters import Labels
from pipeline.domain.outcomes import Emit
from pipeline.domain.spans import spans
from pipeline.runtime.clock import Clock
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.observe import Observe
from pipeline.runtime.otlp import Collector, MetricPush, spans_to
from pipeline.runtime.outlet import Outlet
from pipeline.runtime.probes import Probes

log = logging.getLogger(__name__)

_REACHABLE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class TelemetryOptions:
    """What goes where. `port` None: no HTTP port; 0: any free one. `collector` empty: no OTLP."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int | None = None
    collector: str = ""
    collector_headers: str = field(default="", repr=False)  # they may hold a password


@contextlib.contextmanager
def observing(
    stage: str, slot: int, cluster: Cluster, clock: Clock, options: TelemetryOptions
) -> Iterator[Observe]:
    """What a worker tells its loop's events to, carried outside until the block ends."""
    with contextlib.ExitStack() as stack:
        collector = _collector(stage, slot, options)
        outlet = spans_to(collector) if collector else None

        def committed(emits: Sequence[Emit], began: int, ended: int) -> None:
            if outlet is not None and (found := spans(emits, stage, began, ended)):
                outlet.put(found)

        observed = Observe(clock, committed)
        if collector is not None and outlet is not None:
            stack.callback(outlet.close)
            stack.callback(MetricPush(collector, observed.meters, clock).close)
            observed.watch(numbers={metrics.TELEMETRY: lambda: _fates("span", outlet)})
        _serve(stack, observed, stage, slot, cluster, options)
        yield observed


def _collector(stage: str, slot: int, options: TelemetryOptions) -> Collector | None:
    if not options.collector:
        return None
    worker = {
        "service.name": "delivery-pipeline",
        "service.instance.id": f"{stage}-{slot}",
        "delivery.stage": stage,
        "delivery.slot": str(slot),
    }
    return Collector(options.collector, options.collector_headers, worker)


def _fates(kind: str, outlet: Outlet[Any]) -> dict[Labels, float]:
    return {
        (kind, "exported"): outlet.exported,
        (kind, "failed"): outlet.failed,
        (kind, "dropped"): outlet.dropped,
    }


def _serve(
    stack: contextlib.ExitStack,
    observed: Observe,
    stage: str,
    slot: int,
    cluster: Cluster,
    options: TelemetryOptions,
) -> None:
    if options.port is None:
        return
    admin = cluster.admin()

    def reachable() -> bool:
        try:
            admin.list_topics(cluster.real("outcomes"), timeout=_REACHABLE_S)
        except KafkaException:
            return False
        return True

    try:
        probes = Probes(
            observed, stage, slot, (options.host, options.port), options.data_dir, reachable
        )
    except OSError as error:
        log.warning(
            "no metrics and probes: %s:%d cannot be listened on (%s); set PIPELINE_METRICS_PORT",
            options.host,
            options.port,
            error,
        )
        return
    stack.callback(probes.close)
    log.info("%s: slot %d has its metrics at %s:%d", stage, slot, options.host, probes.port)
