"""What a worker's telemetry comes to when it is all set up, and when it cannot be."""

import json
import logging
import socket
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain import metrics
from pipeline.domain.outcomes import Emit
from pipeline.runtime.clock import BrokerClock
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.observe import Observe
from pipeline.runtime.telemetry import TelemetryOptions, observing
from tests.otlp_receiver import receiving

NOBODY = Cluster("127.0.0.1:1")
TRACE = "0af7651916cd43dd8448eb211c80319c"
HEADERS = (("traceparent", f"00-{TRACE}-b7ad6b7169203331-01".encode()),)
EXAMPLES = Path(__file__).resolve().parents[3] / "schemas" / "examples" / "Event"


def dispatched() -> dict[str, Any]:
    found = [json.loads(path.read_text()) for path in sorted(EXAMPLES.glob("*.json"))]
    return next(e for e in found if e["kind"] == "dispatched" and e["attempts"])


def fates(observed: Observe) -> dict[tuple[str, ...], Any]:
    return {s.labels: s.value for s in observed.meters.read() if s.metric is metrics.TELEMETRY}


def test_a_commit_becomes_spans_lines_and_metrics_by_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pipeline.attempt")
    event = dispatched()
    with receiving() as receiver:
        options = TelemetryOptions(tmp_path, collector=receiver.url, attempts=True)
        with observing("dispatch", 3, NOBODY, BrokerClock(), options) as observed:
            emits = [Emit("dispatched", "r", event, HEADERS), Emit("dispatched", "r", event)]
            observed.committed(emits, 0.01)
        names = [span.name for span in receiver.spans]
        assert names == ["process send." + event["channel"] + "." + event["priority"],
                         *["POST"] * len(event["attempts"]), "commit dispatch"]  # fmt: skip
        assert {span.resource["service.instance.id"] for span in receiver.spans} == {"dispatch-3"}
        assert {"delivery.events", "delivery.attempt"} <= {m.name for m in receiver.metrics}
    lines = [record for record in caplog.records if record.name == "pipeline.attempt"]
    assert len(lines) == 2 * len(event["attempts"])
    assert lines[0].fields["trace_id"] == TRACE  # type: ignore[attr-defined]
    assert fates(observed) == {
        ("span", "exported"): len(names), ("span", "failed"): 0, ("span", "dropped"): 0,
        ("line", "exported"): len(lines), ("line", "failed"): 0, ("line", "dropped"): 0,
    }  # fmt: skip


def test_nothing_is_begun_that_nobody_asked_for(tmp_path: Path) -> None:
    with observing("accept", 0, NOBODY, BrokerClock(), TelemetryOptions(tmp_path)) as observed:
        observed.committed([Emit("dispatched", "r", dispatched(), HEADERS)], 0.01)
    assert fates(observed) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_said_and_the_worker_runs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = TelemetryOptions(tmp_path, port=port)
        with observing("accept", 0, NOBODY, BrokerClock(), options) as observed:
            observed.turn()
    (line,) = caplog.messages
    assert f"127.0.0.1:{port} cannot be listened on" in line
    assert "PIPELINE_METRICS_PORT" in line
    assert not (tmp_path / "metrics").exists()
