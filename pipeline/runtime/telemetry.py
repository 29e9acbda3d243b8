"""Everything that carries a worker's telemetry outside, begun and ended with it.

Telemetry is never a reason for a worker not to run: what cannot be set up is said in a warning.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaException

from pipeline.domain import attempt_lines, metrics
from pipeline.domain.attempt_lines import Line
from pipeline.domain.meters import Labels
from pipeline.domain.outcomes import Emit
from pipeline.domain.spans import spans
from pipeline.runtime.clock import Clock
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.observe import Observe
from pipeline.runtime.otlp import Collector, MetricPush, spans_to
from pipeline.runtime.outlet import CLOSE_S, Outlet
from pipeline.runtime.probes import Probes

log = logging.getLogger(__name__)
attempt_log = logging.getLogger("pipeline.attempt")

_REACHABLE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class TelemetryOptions:
    """What goes where. `port` None: no HTTP port; 0: any free one. `collector` empty: no OTLP."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int | None = None
    collector: str = ""
    collector_headers: str = field(default="", repr=False)  # they may hold a password
    attempts: bool = False  # a log line for each attempt


@contextlib.contextmanager
def observing(
    stage: str, slot: int, cluster: Cluster, clock: Clock, options: TelemetryOptions
) -> Iterator[Observe]:
    """What a worker tells its loop's events to, carried outside until the block ends."""
    with contextlib.ExitStack() as stack:
        collector = _collector(stage, slot, options)
        traces = spans_to(collector) if collector else None
        lines = Outlet("attempt lines", _log_attempts) if options.attempts else None

        def committed(emits: Sequence[Emit], began: int, ended: int) -> None:
            if traces is not None and (found := spans(emits, stage, began, ended)):
                traces.put(found)
            if lines is not None and (said := attempt_lines.lines(emits)):
                lines.put(said)

        observed = Observe(clock, committed if traces or lines else None)
        outlets = {"span": traces, "line": lines}
        ways = {kind: outlet for kind, outlet in outlets.items() if outlet is not None}
        if ways:
            observed.watch(numbers={metrics.TELEMETRY: lambda: _fates(ways)})
        pushes = [MetricPush(collector, observed.meters, clock)] if collector else []
        stack.callback(_end, [*ways.values(), *pushes], clock)
        _serve(stack, observed, stage, slot, cluster, options)
        yield observed


def _end(threads: Sequence[Outlet[Any] | MetricPush], clock: Clock) -> None:
    """All of them together have `CLOSE_S`."""
    until = clock.monotonic() + CLOSE_S
    for one in threads:
        one.stop()
    for one in threads:
        one.join(max(0.0, until - clock.monotonic()))


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


def _log_attempts(found: Sequence[Line]) -> bool:
    for line in found:
        attempt_log.info("%s: %s", line["provider"], line["result"], extra={"fields": line})
    return True


def _fates(ways: Mapping[str, Outlet[Any]]) -> dict[Labels, float]:
    found: dict[Labels, float] = {}
    for kind, outlet in ways.items():
        found[kind, "exported"] = outlet.exported
        found[kind, "failed"] = outlet.failed
        found[kind, "dropped"] = outlet.dropped
    return found


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
