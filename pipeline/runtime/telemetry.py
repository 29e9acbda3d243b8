"""Everything that carries a worker's telemetry outside, begun and ended with it.

Telemetry is never a reason for a worker not to run: what cannot be set up is said in a warning.
"""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException

from pipeline.runtime.clock import Clock
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.observe import Observe
from pipeline.runtime.probes import Probes

log = logging.getLogger(__name__)

_REACHABLE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class TelemetryOptions:
    """What goes where. `port` None: no HTTP port; 0: any free one."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int | None = None


@contextlib.contextmanager
def observing(
    stage: str, slot: int, cluster: Cluster, clock: Clock, options: TelemetryOptions
) -> Iterator[Observe]:
    """What a worker tells its loop's events to, carried outside until the block ends."""
    observed = Observe(clock)
    with contextlib.ExitStack() as stack:
        _serve(stack, observed, stage, slot, cluster, options)
        yield observed


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
