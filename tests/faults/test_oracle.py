"""The oracle finds nothing in a right history, and each check finds its own fault."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.history import Handover, History, Record, Request, Sent
from tests.faults.made import (
    KILL,
    T0,
    WINDOW,
    accepted,
    attempt,
    changed,
    command,
    event,
    outcome,
    rejection,
    right,
    state,
)
from tests.faults.oracle import broken, judge


def test_a_right_history_has_no_fault() -> None:
    findings = judge(right())
    assert [str(finding) for finding in broken(findings)] == []
    assert {finding.check for finding in findings if finding.looked == 0} == set()


def _no_outcome(history: History) -> None:
    del history.topics["outcomes"][1]


def _never_answered(history: History) -> None:
    history.sent.append(Sent(("intake", 0, 9), T0))


def _repeat_not_answered(history: History) -> None:
    del history.topics["rejected"][1]


def _two_outcomes(history: History) -> None:
    history.topics["outcomes"].append(outcome("m0", 2, T0 + 430, event_id="another"))


def _repeat_became_another_message(history: History) -> None:
    del history.topics["rejected"][1]
    history.topics["accepted.urgent"][2] = accepted("m2", 3)
    history.topics["outcomes"].append(outcome("m2", 2, T0 + 430))


def _two_rejections(history: History) -> None:
    history.topics["rejected"].append(
        changed(rejection("", 2, reason="invalid"), offset=9, event_id="another")
    )


def _good_rejected(history: History) -> None:
    history.topics["rejected"].append(rejection("", 1, reason="invalid", field="to"))


def _malformed_without_field(history: History) -> None:
    history.topics["rejected"][0] = changed(history.topics["rejected"][0], field=None)


def _output_twice(history: History) -> None:
    history.topics["dispatched"].append(changed(history.topics["dispatched"][0], offset=7))


def _command_twice(history: History) -> None:
    history.topics["send.sms.urgent"].append(
        changed(history.topics["send.sms.urgent"][0], offset=7)
    )


def _receipt_twice(history: History) -> None:
    history.topics["delivered"].append(changed(history.topics["delivered"][0], offset=7))


def _aborted_read(history: History) -> None:
    history.live["outcomes", 0].add(99)


def _command_from_nowhere(history: History) -> None:
    history.topics["dispatched"][0] = changed(history.topics["dispatched"][0], command_id="aborted")


def _journal_from_aborted(history: History) -> None:
    history.topics["dispatch.journal"][0].value["entries"][0]["offset"] = 55


def _state_from_aborted(history: History) -> None:
    history.topics["fallback.changelog"][0] = changed(
        history.topics["fallback.changelog"][0], accepted_offset=77
    )


def _handed_over_twice_with_key(history: History) -> None:
    history.handovers.append(Handover(T0 + 300, "sms-one", "key0", "m0", 0))


def _handed_over_twice_undeclared(history: History) -> None:
    history.handovers.append(Handover(T0 + 300, "sms-two", "key0", "m0", 0))


def _declared_but_not_by_policy(history: History) -> None:
    _handed_over_twice_undeclared(history)
    first = history.topics["dispatched"][0]
    history.topics["dispatched"][0] = changed(first, attempts=[attempt(in_doubt=True, resent=True)])


def _out_of_order(history: History) -> None:
    history.requests[1] = replace(history.requests[1], at=T0 + 90, ended_at=T0 + 95)


def _two_in_flight(history: History) -> None:
    history.requests[0] = replace(history.requests[0], ended_at=T0 + 300)


def _after_expiry(history: History) -> None:
    history.requests[0] = replace(history.requests[0], at=T0 + 13_000, ended_at=T0 + 13_001)


def _after_deadline(history: History) -> None:
    history.topics["accepted.urgent"][1] = accepted("m1", 1, deadline=T0 + 1_000)


def _attempt_after_expiry(history: History) -> None:
    history.topics["dispatched"][0] = changed(
        history.topics["dispatched"][0], attempts=[attempt(started_at=T0 + 10_051)]
    )


def _too_many_tries(history: History) -> None:
    for number in (1, 2):
        name = f"m0/0/{number}"
        history.topics["send.sms.urgent"].append(
            command("m0", 0, 10 + number, T0 + 150 + number, command_id=name)
        )
        history.topics["dispatched"].append(
            event("dispatched", "m0", 0, 10 + number, T0 + 160, command_id=name, try_no=number)
        )


def _too_many_requests(history: History) -> None:
    for number in range(8):
        at = T0 + 10 * number + 500
        history.requests.append(Request(50 + number, at, "sms-one", "key0", "m0", 0, at + 5))


def _doubt_for_what_never_left(history: History) -> None:
    del history.requests[1]
    history.topics["dispatched"][1] = changed(
        history.topics["dispatched"][1], attempts=[attempt(in_doubt=True)]
    )


def _next_step_at_once(history: History) -> None:
    history.topics["send.sms.urgent"][2] = command("m1", 1, 2, T0 + 1_000)
    history.topics["timed-out"].clear()


def _written_again_though_dispatched(history: History) -> None:
    """Fallback lagged, took the command for dead and did not look at what dispatch had said."""
    again = command("m0", 0, 9, T0 + 26_000, command_id="m0/0/2", try_no=2)
    history.topics["send.sms.urgent"].append(again)


def _written_again_though_unheard(history: History) -> None:
    """Its life and its lease were over, but a dead dispatcher may have been in the middle of it."""
    del history.topics["dispatched"][0]
    _written_again_though_dispatched(history)


def _window_cut_short(history: History) -> None:
    at = T0 + 200 + WINDOW // 2
    history.topics["send.sms.urgent"][2] = command("m1", 1, 2, at)
    history.topics["timed-out"][0] = changed(history.topics["timed-out"][0], at=at - 5)


def _deaf(history: History) -> None:
    history.notices[2] = replace(history.notices[2], sent_at=T0 + 500, acked_at=T0 + 510)


def _delivered_without_receipt(history: History) -> None:
    history.notices[0] = replace(history.notices[0], sent_at=T0 + 900, acked_at=T0 + 905)


def _failed_though_delivered(history: History) -> None:
    history.topics["outcomes"][0] = outcome("m0", 0, T0 + 20_000, status="failed")
    history.topics["timed-out"].append(
        event("timed-out", "m0", 0, 1, T0 + 150 + WINDOW, origin="fallback", blind=False)
    )


def _late_delivery_forgotten(history: History) -> None:
    history.topics["late-receipts"].clear()


def _status_back(history: History) -> None:
    history.topics["fallback.changelog"].append(state("m0", 3, ["failed"], "delivered"))


def _outcome_changed(history: History) -> None:
    history.topics["fallback.changelog"].append(state("m0", 3, ["delivered"], "failed"))


def _sent_after_outcome(history: History) -> None:
    history.topics["send.sms.urgent"].append(command("m0", 1, 9, T0 + 9_000))


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        (_no_outcome, "lost"),
        (_never_answered, "lost"),
        (_repeat_not_answered, "lost"),
        (_two_outcomes, "doubled"),
        (_two_rejections, "doubled"),
        (_repeat_became_another_message, "doubled"),
        (_good_rejected, "misjudged"),
        (_malformed_without_field, "misjudged"),
        (_output_twice, "repeated"),
        (_command_twice, "repeated"),
        (_receipt_twice, "receipts repeated"),
        (_aborted_read, "aborted reads"),
        (_command_from_nowhere, "underived"),
        (_journal_from_aborted, "underived"),
        (_state_from_aborted, "underived"),
        (_handed_over_twice_with_key, "double hand-overs, keys honoured"),
        (_handed_over_twice_undeclared, "double hand-overs, not declared"),
        (_declared_but_not_by_policy, "double hand-overs, not declared"),
        (_out_of_order, "order"),
        (_two_in_flight, "requests in flight together"),
        (_after_expiry, "sent too late"),
        (_after_deadline, "sent too late"),
        (_attempt_after_expiry, "sent too late"),
        (_too_many_tries, "retries"),
        (_too_many_requests, "retries"),
        (_doubt_for_what_never_left, "doubt without a request"),
        (_next_step_at_once, "next step too early"),
        (_window_cut_short, "next step too early"),
        (_written_again_though_dispatched, "next step too early"),
        (_written_again_though_unheard, "next step too early"),
        (_deaf, "silence not heard out"),
        (_delivered_without_receipt, "outcome against the ledger"),
        (_failed_though_delivered, "outcome against the ledger"),
        (_late_delivery_forgotten, "late receipts"),
        (_status_back, "status goes back"),
        (_outcome_changed, "status goes back"),
        (_sent_after_outcome, "status goes back"),
    ],
)
def test_each_check_finds_its_fault(fault: Callable[[History], None], check: str) -> None:
    history = right()
    fault(history)
    assert check in {finding.check for finding in broken(judge(history))}


def test_a_declared_resend_by_policy_is_no_fault() -> None:
    history = right()
    _declared_but_not_by_policy(history)
    for number, message in ((0, "m0"), (2, "m0")):
        record = history.topics["accepted.urgent"][number]
        history.topics["accepted.urgent"][number] = accepted(
            message, record.offset, on_doubt="resend"
        )
    assert broken(judge(history)) == []


def test_a_receipt_that_names_an_id_nobody_learned_cannot_be_heard() -> None:
    """The answer with the id was lost: silence is what the pipeline honestly saw."""
    history = right()
    _deaf(history)
    history.rules = replace(history.rules, echoes={"sms-one": False})
    assert "silence not heard out" not in {finding.check for finding in broken(judge(history))}


def test_a_receipt_is_heard_from_when_its_id_was_learned() -> None:
    history = right()
    _deaf(history)
    history.rules = replace(history.rules, echoes={"sms-one": False})
    history.notices = [replace(notice, provider_id=notice.event_id) for notice in history.notices]
    history.topics["references"] = [
        Record("references", 0, 0, T0 + 100, {"provider": "sms-one", "provider_message_id": "e2"})
    ]
    assert "silence not heard out" in {finding.check for finding in broken(judge(history))}


def test_a_first_command_that_ended_unsent_has_had_its_turn() -> None:
    """m0 expired unsent and is sent later, after m1: the order of first tries was kept."""
    history = right()
    history.requests[0] = replace(history.requests[0], at=T0 + 170, ended_at=T0 + 172)
    history.requests[1] = replace(history.requests[1], at=T0 + 160, ended_at=T0 + 165)
    assert "order" not in {finding.check for finding in broken(judge(history))}


def test_doubts_up_to_the_slots_of_each_kill_are_no_fault() -> None:
    history = right()
    _doubt_for_what_never_left(history)
    history.faults.append(KILL)
    assert "doubt without a request" not in {f.check for f in broken(judge(history))}


def test_a_repeat_under_its_own_id_is_counted_and_allowed_only_where_asked() -> None:
    history = right()
    _output_twice(history)
    assert [finding.check for finding in broken(judge(history))] == ["repeated"]
    assert broken(judge(history, repeats_allowed=1)) == []


def test_a_command_of_the_outcomes_own_transaction_was_decided_before_it() -> None:
    history = right()
    late = command("m0", 1, 9, history.outcomes()["m0"][0].at + 3)
    history.topics["send.sms.urgent"].append(late)
    assert "status goes back" in {finding.check for finding in broken(judge(history))}
    history.topics["fallback.changelog"][1] = state(
        "m0", 1, ["delivered", "sent"], "delivered", late.value["command_id"]
    )
    assert "status goes back" not in {finding.check for finding in broken(judge(history))}
