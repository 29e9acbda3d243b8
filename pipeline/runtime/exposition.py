"""Metrics as Prometheus reads them: text, version 0.0.4."""

from collections.abc import Iterable
from typing import Final

from pipeline.domain.meters import Labels, Meters, Series, Spread
from pipeline.domain.metrics import Metric

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def text(meters: Meters, common: dict[str, str]) -> str:
    """Everything as of now; every series also has the `common` labels."""
    by_metric: dict[Metric, list[Series]] = {}
    for series in meters.read():
        by_metric.setdefault(series.metric, []).append(series)
    lines: list[str] = []
    for metric, found in by_metric.items():
        lines.append(f"# HELP {metric.exposed} {metric.help}")
        lines.append(f"# TYPE {metric.exposed} {metric.kind}")
        for series in found:
            lines += _lines(series, common)
    return "\n".join(lines) + "\n"


def _lines(series: Series, common: dict[str, str]) -> Iterable[str]:
    name, value = series.metric.exposed, series.value
    if not isinstance(value, Spread):
        yield f"{name}{_labels(series, common)} {_number(value)}"
        return
    below = 0
    bounds = [*map(_number, series.metric.bounds), "+Inf"]
    for bound, count in zip(bounds, value.counts, strict=True):
        below += count
        yield f"{name}_bucket{_labels(series, common, ('le', bound))} {below}"
    yield f"{name}_sum{_labels(series, common)} {_number(value.total)}"
    yield f"{name}_count{_labels(series, common)} {below}"


def _labels(series: Series, common: dict[str, str], *more: tuple[str, str]) -> str:
    own: Labels = series.labels
    pairs = [*common.items(), *zip(series.metric.labels, own, strict=True), *more]
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs)
    return f"{{{inside}}}" if inside else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
