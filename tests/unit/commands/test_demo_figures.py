"""The demo's figures from a run of which everything is known, and what breaks its equations."""

from collections.abc import Callable

import pytest

from pipeline.commands.demo_checks import check
from pipeline.commands.demo_figures import answers, cells, figures, percentile
from tests.unit.commands.demo_made import Made, good_run


def test_every_counter_of_a_small_run():
    found = figures(good_run().evidence)
    assert found == {
        "messages": 4,
        "rejected": 1,
        "delivered": 2,
        "failed": 1,
        "in_flight": 0,
        "attempts": 4,
        "fallbacks_by_failure": 0,
        "fallbacks_by_silence": 1,
        "timed_out": 1,
        "retries": 0,
        "late_receipts": 1,
        "double_deliveries": 1,
        "in_doubt": 0,
        "in_doubt_resent": 0,
        "dead_letters": 1,
        "provider_requests": 4,
        "provider_repeated_keys": 0,
        "provider_double_sends": 0,
        "kafka_events": {
            "accepted": 3,
            "dead_letter": 1,
            "dispatched": 3,
            "failed": 1,
            "late_receipts": 1,
            "outcomes": 3,
            "rejected": 1,
            "timed_out": 1,
        },
        "clickhouse_events": {
            "accepted": 3,
            "dead_letter": 1,
            "dispatched": 3,
            "failed": 1,
            "late_receipts": 1,
            "outcomes": 3,
            "rejected": 1,
            "timed_out": 1,
        },
    }


def test_a_good_run_has_no_problems():
    made = good_run()
    assert check(made.evidence, figures(made.evidence)) == []


def test_answers_are_named_by_request_and_hold_nothing_that_differs_between_runs():
    assert answers(good_run().evidence) == {
        1: [{"status": "delivered", "channel": "sms", "reason": "delivered"}],
        2: [{"status": "delivered", "channel": "sms", "reason": "delivered"}],
        3: [{"status": "rejected", "reason": "invalid", "field": "to"}],
        4: [{"status": "failed", "channel": "sms", "reason": "recipient"}],
    }


def test_cells_count_by_channel_and_country():
    found = cells(good_run().evidence)
    assert found["sms", "DE"].delivered == 2
    assert found["sms", "DE"].failed == 1
    assert found["whatsapp", "DE"].by_silence == 1
    assert found["sms", "DE"].latency_s(0.5) == 0.6
    assert found["sms", "DE"].latency_s(0.95) == 5.1


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([1], 0.5, 1), ([1, 2], 0.5, 1), ([1, 2, 3], 0.5, 2), (range(1, 101), 0.95, 95)],
)
def test_percentile_is_the_nearest_rank(values, share, expected):
    assert percentile(values, share) == expected


def lost(made: Made) -> None:
    made.accepted(9)


def unanswered(made: Made) -> None:
    made.request(9)


def answered_twice(made: Made) -> None:
    made.event("rejected", 0, source={"topic": "intake", "partition": 0, "offset": 1},
               reason="invalid", field="to", event_id="again")  # fmt: skip


def double_where_honoured(made: Made) -> None:
    made.handover("m1", 0, 150)


def double_undeclared(made: Made) -> None:
    made.handover("m4", 0, 150, honoured=False)
    made.handover("m4", 0, 160, honoured=False)


def request_unknown_to_dispatch(made: Made) -> None:
    made.evidence.ledger.requests.append(made.evidence.ledger.requests[0])


def foreign(made: Made) -> None:
    made.evidence.foreign = 1


def invented(made: Made) -> None:
    made.accepted(8)
    made.outcome("m8", 100)


def missed_delivery(made: Made) -> None:
    made.accepted(8)
    made.command("m8", 0)
    made.attempt("m8", 0, 100)
    made.handover("m8", 0, 100, acknowledged_at=4_000)
    made.event("timed_out", 4_200, message_id="m8", step=0)
    made.event("late_receipts", 4_300, message_id="m8", step=0, reason="delivered")
    made.outcome("m8", 4_250, "failed")


def late_lost(made: Made) -> None:
    made.evidence.records["late_receipts"].clear()


def late_doubled(made: Made) -> None:
    made.event("late_receipts", 6_700, message_id="m2", step=0, reason="read", event_id="again")


def row_lost(made: Made) -> None:
    made.evidence.stored["outcomes"] -= 1


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lost, "messages have no outcome"),
        (unanswered, "requests have no answer: 9"),
        (answered_twice, "belong to no request, or to several: m1"),
        (double_where_honoured, "double sends where keys are honoured"),
        (double_undeclared, "only 0 were declared"),
        (request_unknown_to_dispatch, "dispatch says 4 requests, the provider 5"),
        (foreign, "references at the provider are not ours"),
        (invented, "delivered before anybody said so: m8"),
        (missed_delivery, "although a delivery was acknowledged in time: m8"),
        (late_lost, "neither outcome nor late receipt: m2"),
        (late_doubled, "neither outcome nor late receipt: m2"),
        (row_lost, "outcomes: 3 in Kafka, 2 in ClickHouse"),
    ],
)
def test_what_does_not_add_up_is_said(spoil: Callable[[Made], None], said: str):
    made = good_run()
    spoil(made)
    if spoil is not row_lost:
        made.store()
    problems = check(made.evidence, figures(made.evidence))
    assert any(said in problem for problem in problems), problems


def test_a_large_run_without_a_kind_of_fault_tested_nothing():
    made = good_run()
    found = figures(made.evidence) | {"messages": 2_000, "rejected": 1_997}
    problems = check(made.evidence, found)
    assert any(problem.startswith("never happened: ") for problem in problems), problems
    assert "retries" in problems[-1]


def test_a_resend_that_was_declared_may_be_a_double_send():
    made = good_run()
    made.accepted(8)
    made.command("m8", 0)
    made.attempt("m8", 0, 100, requests=2, in_doubt=True, resent=True)
    made.handover("m8", 0, 100, honoured=False)
    made.handover("m8", 0, 200, honoured=False, acknowledged_at=600)
    made.outcome("m8", 700)
    made.store()
    found = figures(made.evidence)
    assert found["provider_double_sends"] == found["in_doubt_resent"] == 1
    assert check(made.evidence, found) == []
