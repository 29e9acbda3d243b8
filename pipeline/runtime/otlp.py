"""Spans and metrics to a collector, by OTLP over HTTP (protobuf).

OpenTelemetry's SDK gives the data model and the exporters. Its tracers and meters are not used: a
span is made whole from a committed record (domain/spans.py), and counters are plain numbers, so
nothing of the SDK runs on a message's path. Everything here runs in threads of its own, which also
import the SDK: it takes longer than a worker's start may.
"""

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from pipeline.domain.meters import Meters, Series, Spread
from pipeline.domain.metrics import Metric
from pipeline.domain.spans import Span
from pipeline.runtime.clock import Clock
from pipeline.runtime.outlet import Outlet

log = logging.getLogger(__name__)

METRICS_EVERY_S: Final = 15.0
TIMEOUT_S: Final = 5.0
"""For one request to the collector, its retries included."""

_NS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Collector:
    """Where to, and who says so: `headers` is a list of name=value with commas between, as
    OTEL_EXPORTER_OTLP_HEADERS has it; `worker` are the resource's attributes."""

    endpoint: str
    headers: str
    worker: Mapping[str, str]

    def options(self, signal: str) -> dict[str, Any]:
        """What an exporter is made with."""
        pairs = (part.partition("=") for part in self.headers.split(",") if "=" in part)
        return {
            "endpoint": f"{self.endpoint.rstrip('/')}/v1/{signal}",
            "headers": {name.strip(): unquote(value.strip()) for name, _, value in pairs},
            "timeout": TIMEOUT_S,
        }

    def resource(self) -> Any:
        """As the SDK has it; OTEL_RESOURCE_ATTRIBUTES adds to it."""
        from opentelemetry.sdk.resources import Resource

        return Resource.create(dict(self.worker))


def spans_to(collector: Collector) -> Outlet[Span]:
    """A way out for spans."""
    return Outlet("spans", _SpanExport(collector).deliver)


def _quiet() -> None:
    """The exporters log every failure, with the address; we count them, and say it once."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)


class _SpanExport:
    """Belongs to the outlet's thread."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._exporter: Any = None

    def deliver(self, found: Sequence[Span]) -> bool:
        if self._exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            _quiet()
            self._resource = self._collector.resource()
            self._exporter = OTLPSpanExporter(**self._collector.options("traces"))
        from opentelemetry.sdk.trace.export import SpanExportResult

        readable = [_readable(span, self._resource) for span in found]
        return bool(self._exporter.export(readable) is SpanExportResult.SUCCESS)


def _readable(span: Span, resource: Any) -> Any:
    """A span as the SDK's exporters take it."""
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import Link, SpanKind
    from opentelemetry.trace.status import Status, StatusCode

    attributes = dict(span.attributes)
    if span.error:
        attributes["error.type"] = span.error
    return ReadableSpan(
        name=span.name,
        context=_context(span.trace_id, span.span_id),
        parent=_context(span.trace_id, span.parent_id) if span.parent_id else None,
        resource=resource,
        attributes=attributes,
        links=[Link(_context(*link)) for link in span.links],
        kind=SpanKind[span.kind.upper()],
        status=Status(StatusCode.ERROR, span.error) if span.error else Status(),
        start_time=span.start * _NS,
        end_time=span.end * _NS,
        instrumentation_scope=InstrumentationScope("delivery-pipeline"),
    )


def _context(trace_id: str, span_id: str) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags

    sampled = TraceFlags(TraceFlags.SAMPLED)
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=sampled)


class MetricPush:
    """Sends all metrics every 15 s, and once more when it is closed."""

    def __init__(
        self, collector: Collector, meters: Meters, clock: Clock, every_s: float = METRICS_EVERY_S
    ) -> None:
        self._collector, self._meters, self._clock = collector, meters, clock
        self._every_s = every_s
        self._started = clock.now()
        self._well = True
        self._stop = threading.Event()
        self._exporter: Any = None
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stop.wait(self._every_s)
            try:
                taken = self._push()
            except Exception as error:  # noqa: BLE001 - telemetry breaks nothing
                log.debug("metrics: %s", type(error).__name__)
                taken = False
            if taken != self._well:
                self._well = taken
                log.warning("metrics %s", "are taken again" if taken else "are not taken")

    def _push(self) -> bool:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics.export import MetricExportResult

        if self._exporter is None:
            _quiet()
            self._exporter = OTLPMetricExporter(**self._collector.options("metrics"))
        times = self._started * _NS, self._clock.now() * _NS
        data = _data(self._meters.read(), self._collector.resource(), times)
        return bool(self._exporter.export(data) is MetricExportResult.SUCCESS)

    def stop(self) -> None:
        """Begins to send what there is, for the last time."""
        self._stop.set()

    def join(self, seconds: float) -> None:
        """After `stop`: waits until it is sent, at most so long. A collector that did not take
        things lately is not waited for."""
        if self._well:
            self._thread.join(seconds)


def _data(found: Iterable[Series], resource: Any, times: tuple[int, int]) -> Any:
    from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    by_metric: dict[Metric, list[Series]] = {}
    for series in found:
        by_metric.setdefault(series.metric, []).append(series)
    metrics = [_metric(metric, series, times) for metric, series in by_metric.items()]
    scope = ScopeMetrics(InstrumentationScope("delivery-pipeline"), metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _metric(metric: Metric, found: Sequence[Series], times: tuple[int, int]) -> Any:
    """All series of one metric, cumulative since the worker's start."""
    from opentelemetry.sdk.metrics import export

    cumulative = export.AggregationTemporality.CUMULATIVE
    points = [_point(series, times) for series in found]
    data: Any
    if metric.kind == "histogram":
        data = export.Histogram(points, cumulative)
    elif metric.kind == "counter":
        data = export.Sum(points, cumulative, is_monotonic=True)
    else:
        data = export.Gauge(points)
    return export.Metric(metric.name, metric.help, metric.unit, data)


def _point(series: Series, times: tuple[int, int]) -> Any:
    from opentelemetry.sdk.metrics import export

    attributes = dict(zip(series.metric.labels, series.labels, strict=True))
    value = series.value
    if not isinstance(value, Spread):
        return export.NumberDataPoint(attributes, *times, value)
    unknown: Any = None  # the least and the greatest since the start say nothing of now
    return export.HistogramDataPoint(
        attributes,
        *times,
        count=sum(value.counts),
        sum=value.total,
        bucket_counts=value.counts,
        explicit_bounds=series.metric.bounds,
        min=unknown,
        max=unknown,
    )
