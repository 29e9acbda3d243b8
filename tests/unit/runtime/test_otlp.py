"""Metrics and spans as a collector gets them."""

from pipeline.domain import metrics
from pipeline.domain.outcomes import Emit
from pipeline.domain.spans import Span
from pipeline.runtime.clock import BrokerClock
from pipeline.runtime.observe import Observe
from pipeline.runtime.otlp import Collector, MetricPush, spans_to
from tests.otlp_receiver import attributes, receiving

SPAN = Span(
    "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "", "POST", "client",
    1_000, 1_250, {"delivery.provider": "one", "delivery.try": 1}, "throttle",
    (("1" * 32, "2" * 16),),
)  # fmt: skip


def test_a_span_arrives_as_it_was_made() -> None:
    with receiving() as receiver:
        worker = {"service.name": "delivery-pipeline", "delivery.stage": "dispatch"}
        headers = "authorization=Bearer%20geheim, x-team=delivery"
        outlet = spans_to(Collector(receiver.url + "/", headers, worker))
        outlet.put([SPAN])
        outlet.stop()
        outlet.join(20)
        (found,) = receiver.spans
    assert (found.trace_id, found.span_id, found.parent_id) == (SPAN.trace_id, SPAN.span_id, "")
    assert (found.name, found.kind, found.wrong) == ("POST", "client", True)
    assert (found.start_ns, found.end_ns) == (1_000_000_000, 1_250_000_000)
    assert found.attributes == {**SPAN.attributes, "error.type": "throttle"}
    assert found.links == SPAN.links
    assert worker.items() <= found.resource.items()
    assert receiver.headers[0]["authorization"] == "Bearer geheim"
    assert receiver.headers[0]["x-team"] == "delivery"
    assert outlet.exported == 1


def test_a_collector_that_refuses_is_counted_and_said_without_its_address(caplog) -> None:
    with receiving() as receiver:
        receiver.status = 400
        outlet = spans_to(Collector(receiver.url, "", {}))
        outlet.put([SPAN, SPAN])
        outlet.stop()
        outlet.join(20)
    assert (outlet.exported, outlet.failed) == (0, 2)
    assert caplog.messages == ["spans are not taken"]


def test_metrics_arrive_with_their_labels_and_since_when_they_count() -> None:
    clock = BrokerClock()
    observed = Observe(clock)
    observed.watch(numbers={metrics.ROWS: lambda: {(): 7}})
    with receiving() as receiver:
        push = MetricPush(Collector(receiver.url, "", {}), observed.meters, clock)
        observed.committed([Emit("accepted.urgent", "r", {"priority": "urgent"})], 0.02)
        push.stop()
        push.join(20)  # sends what there is
        found = {metric.name: metric for metric in receiver.metrics}
    (events,) = found["delivery.events"].sum.data_points
    assert attributes(events.attributes)["kind"] == "accepted"
    assert events.as_double == 1 or events.as_int == 1
    assert 0 < events.start_time_unix_nano <= events.time_unix_nano
    assert found["delivery.events"].sum.is_monotonic
    assert found["delivery.events"].sum.aggregation_temporality == 2  # cumulative
    (commit,) = found["delivery.commit"].histogram.data_points
    assert list(commit.explicit_bounds) == list(metrics.SHORT_S)
    assert sum(commit.bucket_counts) == commit.count == 1
    assert commit.sum == 0.02
    assert not commit.HasField("min")
    (rows,) = found["delivery.rows"].sum.data_points
    assert (rows.as_double or rows.as_int) == 7
    assert found["delivery.loop_age"].gauge.data_points
    assert found["delivery.commit"].unit == "s"
