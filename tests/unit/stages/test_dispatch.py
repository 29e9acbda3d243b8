"""The ladder of dispatch: what each answer means for a command."""

from typing import Any, ClassVar

import pytest

from pipeline.domain import ids, reference
from pipeline.domain.errors import ErrorClass, Result
from pipeline.domain.ladder import CommandProgress
from pipeline.domain.outcomes import Inbound
from pipeline.domain.ports import (
    Account,
    Capabilities,
    Delivery,
    HttpReply,
    HttpRequest,
    Reply,
)
from pipeline.domain.ports_dispatch import Finish, NotSent, Send, Unclear
from pipeline.domain.records import Command
from pipeline.domain.switches import Switches
from pipeline.domain.texts import Rendered
from pipeline.stages.dispatch import Dispatch, DispatchConfig

PEPPER, KEY = bytes(16), bytes(32)
NOW = 1_000_000
RECIPIENT = ids.recipient_key(PEPPER, "acme", "phone", "+4915100000000")
MESSAGE = ids.message_id("acme", RECIPIENT, "k")


class Scripted:
    """An adapter whose answers are the statuses of `REPLIES`."""

    REPLIES: ClassVar = {
        202: Reply(Result.ACCEPTED, provider_message_id="p-1"),
        400: Reply(Result.REFUSED, ErrorClass.RECIPIENT, "invalid_address"),
        401: Reply(Result.REFUSED, ErrorClass.CONFIG, "bad_credentials"),
        402: Reply(Result.REFUSED, ErrorClass.PROVIDER, "no_credit"),
        404: Reply(Result.REFUSED, ErrorClass.CHANNEL, "not_on_channel"),
        422: Reply(Result.REFUSED, ErrorClass.CONTENT, "content_rejected"),
        429: Reply(Result.REFUSED, ErrorClass.THROTTLE, "too_fast", retry_after_ms=7_000),
        430: Reply(Result.REFUSED, ErrorClass.THROTTLE, "too_fast"),
        451: Reply(Result.REFUSED, ErrorClass.OPT_OUT, "opted_out"),
        500: Reply(Result.UNKNOWN, ErrorClass.TRANSIENT, "http_500"),
        503: Reply(Result.REFUSED, ErrorClass.TRANSIENT, "busy", retry_after_ms=3_000),
    }

    def __init__(self) -> None:
        self.built: list[tuple[str, Delivery]] = []

    def build(self, account: Account, delivery: Delivery) -> HttpRequest:
        self.built.append((account.name, delivery))
        return HttpRequest("POST", account.base_url, {}, delivery.text.encode())

    def read_reply(self, account: Account, reply: HttpReply) -> Reply:
        if reply.status == 599:
            raise RuntimeError("a fault in an adapter")
        return self.REPLIES[reply.status]

    def verify(self, account: Account, callback: Any, now: int) -> bool:
        raise NotImplementedError

    def read_callback(self, account: Account, callback: Any) -> list[Any]:
        raise NotImplementedError


def account(name: str, *, keys: bool = False, **changes: Any) -> Account:
    echoes = changes.pop("echoes", True)
    return Account(
        name=name,
        adapter="scripted",
        channel="sms",
        base_url="http://x",
        capabilities=Capabilities(honours_keys=keys, echoes_reference=echoes),
        cost=0.05,
        **changes,
    )


def command(**changes: Any) -> Command:
    return {
        "record_version": 1,
        "tenant": "acme",
        "message_id": MESSAGE,
        "recipient_key": RECIPIENT,
        "command_id": ids.command_id(MESSAGE, 0, 1),
        "step": 0,
        "try_no": 1,
        "key_no": 0,
        "channel": "sms",
        "address": "+4915100000000",
        "content": {"text": "hello", "subject": None, "html": None},
        "country": "DE",
        "category": "transactional",
        "campaign": "spring",
        "priority": "normal",
        "on_doubt": "wait",
        "window_ms": 60_000,
        "expires_at": NOW + 10_000,
        "accepted_at": NOW - 5_000,
        "order": 3,
        **changes,  # type: ignore[typeddict-item]
    }


def stage(
    *accounts: Account, suppressed: bool = False, switches: Switches | None = None, text: str = "hi"
) -> Dispatch:
    config = DispatchConfig(
        accounts=accounts,
        adapters={"scripted": Scripted()},
        render=lambda channel, content: Rendered(text),
        pepper=PEPPER,
        reference_key_id=1,
        reference_key=KEY,
    )
    return Dispatch(config, lambda *_: suppressed, switches or Switches())


def begin(made: Dispatch, doubt: tuple[str, ...] = (), **changes: Any) -> CommandProgress:
    trace = (("traceparent", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"), ("other", b"x"))
    record = Inbound("send.sms.normal", 2, 77, NOW - 50, b"k", command(**changes), trace)
    return made.begin(record, doubt)


def play(progress: CommandProgress, *answers: int | NotSent | Unclear) -> tuple[list[str], Any]:
    """Answers each request in turn; gives the providers asked and the final event."""
    asked = []
    for number, answer in enumerate(answers):
        move = progress.next(NOW + number)
        assert isinstance(move, Send), f"it ended after {asked}"
        assert progress.request() is not None
        asked.append(move.provider)
        reply = HttpReply(answer, {}, b"") if isinstance(answer, int) else answer
        progress.answered(reply, NOW + number, 5, NOW + number)
    move = progress.next(NOW + 100)
    assert isinstance(move, Finish), f"after {asked} it asks {move}"
    return asked, move.answers[0]


def test_an_accepted_command_names_the_attempt_its_cost_and_the_trace() -> None:
    asked, emit = play(begin(stage(account("a"))), 202)
    event = emit.value
    assert asked == ["a"]
    assert (emit.topic, emit.key) == ("dispatched", RECIPIENT)
    assert [name for name, _ in emit.headers] == ["traceparent"]
    assert event["result"] == "accepted"
    assert (event["cost"], event["currency"], event["provider_message_id"]) == (0.05, "EUR", "p-1")
    assert event["source"] == {"topic": "send.sms.normal", "partition": 2, "offset": 77}
    (attempt,) = event["attempts"]
    assert attempt["requests"] == 1
    assert attempt["latency_ms"] == 5
    assert not event["in_doubt"]
    assert not event["resent"]


def test_the_request_carries_a_reference_and_a_key_that_name_the_step() -> None:
    made = stage(account("a"))
    progress = begin(made, step=2, key_no=4)
    progress.next(NOW)
    progress.request()
    ((_, delivery),) = made._config.adapters["scripted"].built  # type: ignore[attr-defined]
    named = reference.read(delivery.reference, {1: KEY})
    assert named == reference.Named("acme", MESSAGE, RECIPIENT, 2)
    assert delivery.idempotency_key == ids.idempotency_key(MESSAGE, 2, 4)


@pytest.mark.parametrize("status", [401, 402, 503])
def test_a_provider_that_cannot_take_it_is_followed_by_the_next_at_once(status: int) -> None:
    asked, emit = play(begin(stage(account("a"), account("b"))), status, 202)
    assert asked == ["a", "b"]
    assert emit.topic == "dispatched"
    assert [a["result"] for a in emit.value["attempts"]] == ["refused", "accepted"]
    assert not emit.value["in_doubt"]


@pytest.mark.parametrize(
    ("status", "error_class", "retry_at"),
    [
        (400, "recipient", None),
        (404, "channel", None),
        (422, "content", None),
        (451, "opt_out", None),
        (429, "throttle", NOW + 7_000),
        (430, "throttle", NOW + 1_000),
    ],
)
def test_what_is_about_the_message_is_not_tried_elsewhere(
    status: int, error_class: str, retry_at: int | None
) -> None:
    asked, emit = play(begin(stage(account("a"), account("b"))), status)
    assert asked == ["a"]
    assert emit.topic == "failed"
    assert (emit.value["error_class"], emit.value["retry_at"]) == (error_class, retry_at)


def test_of_several_refusals_the_most_hopeful_speaks() -> None:
    asked, emit = play(begin(stage(account("a"), account("b"), account("c"))), 401, 503, 402)
    assert asked == ["a", "b", "c"]
    assert (emit.value["error_class"], emit.value["code"]) == ("transient", "busy")
    assert emit.value["retry_at"] == NOW + 100 + 3_000
    assert emit.value["provider"] == "b"


def test_a_provider_that_could_not_be_reached_has_no_request() -> None:
    asked, emit = play(begin(stage(account("a"), account("b"))), NotSent("dns"), 202)
    assert asked == ["a", "b"]
    assert [a["requests"] for a in emit.value["attempts"]] == [0, 1]
    assert emit.value["attempts"][0]["code"] == "dns"


def test_only_accounts_that_serve_channel_and_country_are_asked() -> None:
    french, all_over = account("f", countries=("FR",)), account("w")
    assert play(begin(stage(french, all_over)), 202)[0] == ["w"]
    asked, emit = play(begin(stage(french)))
    assert asked == []
    assert (emit.topic, emit.value["error_class"], emit.value["code"]) == (
        "failed",
        "channel",
        "no_provider",
    )


# unknown answers


def test_an_unknown_answer_of_a_keyed_provider_is_repeated_under_its_key() -> None:
    made = stage(account("a", keys=True), account("b"))
    asked, emit = play(begin(made), Unclear("timeout"), 500, 202)
    assert asked == ["a", "a", "a"]
    built = made._config.adapters["scripted"].built  # type: ignore[attr-defined]
    assert len({delivery for _, delivery in built}) == 1, "the same bytes for the same key"
    assert emit.value["result"] == "accepted"
    assert not emit.value["in_doubt"]
    assert not emit.value["resent"]
    assert emit.value["attempts"][0]["requests"] == 3


def test_three_unknown_answers_under_one_key_are_enough() -> None:
    asked, emit = play(begin(stage(account("a", keys=True), account("b"))), 500, 500, 500)
    assert asked == ["a", "a", "a"]
    assert (emit.topic, emit.value["result"]) == ("dispatched", "unknown")
    assert (emit.value["error_class"], emit.value["code"]) == ("transient", "http_500")
    assert emit.value["in_doubt"]


def test_a_refusal_of_a_repeated_key_tells_of_the_first_request_or_only_of_the_moment() -> None:
    _, emit = play(begin(stage(account("a", keys=True))), 500, 400)
    assert (emit.topic, emit.value["error_class"]) == ("failed", "recipient")
    assert not emit.value["in_doubt"]
    _, emit = play(begin(stage(account("a", keys=True))), 500, 429)
    assert (emit.topic, emit.value["result"]) == ("dispatched", "unknown")
    assert emit.value["in_doubt"]


def test_a_keyed_provider_that_goes_away_leaves_it_unknown() -> None:
    gone = NotSent("connect_refused")
    asked, emit = play(begin(stage(account("a", keys=True), account("b"))), 500, gone, gone)
    assert asked == ["a", "a", "a"]
    assert (emit.value["result"], emit.value["attempts"][0]["requests"]) == ("unknown", 1)


def test_without_keys_wait_sends_nothing_more() -> None:
    asked, emit = play(
        begin(stage(account("a"), account("b")), on_doubt="wait"), Unclear("timeout")
    )
    assert asked == ["a"]
    assert (emit.topic, emit.value["result"]) == ("dispatched", "unknown")
    assert emit.value["in_doubt"]
    assert not emit.value["resent"]


def test_without_keys_resend_goes_to_the_next_provider_and_is_marked() -> None:
    asked, emit = play(
        begin(stage(account("a"), account("b")), on_doubt="resend"), Unclear("timeout"), 202
    )
    assert asked == ["a", "b"]
    assert emit.value["result"] == "accepted"
    assert emit.value["in_doubt"]
    assert emit.value["resent"]
    assert [(a["in_doubt"], a["resent"]) for a in emit.value["attempts"]] == [
        (True, False),
        (False, True),
    ]


def test_without_another_provider_resend_asks_the_same_once_more_and_never_a_third_time() -> None:
    asked, emit = play(begin(stage(account("a")), on_doubt="resend"), 500, 500)
    assert asked == ["a", "a"]
    assert emit.value["result"] == "unknown"
    assert emit.value["resent"]


def test_a_refused_resend_was_no_second_message() -> None:
    asked, emit = play(
        begin(stage(account("a"), account("b"), account("c")), on_doubt="resend"),
        500,
        402,
        503,
        402,
    )
    assert asked == ["a", "b", "c", "a"]
    assert (emit.topic, emit.value["result"]) == ("dispatched", "unknown")
    assert emit.value["in_doubt"]
    assert not emit.value["resent"]


def test_an_adapter_that_raises_on_an_answer_leaves_it_unknown() -> None:
    _, emit = play(begin(stage(account("a"))), 599)
    assert (emit.value["result"], emit.value["code"]) == ("unknown", "http_599")


# what a dead worker left


def test_what_a_dead_worker_may_have_sent_is_repeated_under_its_key() -> None:
    asked, emit = play(begin(stage(account("a", keys=True)), ("a",)), 202)
    assert asked == ["a"]
    assert emit.value["result"] == "accepted"
    assert not emit.value["in_doubt"]
    assert emit.value["attempts"][0]["requests"] == 2


def test_without_keys_the_commands_policy_decides() -> None:
    asked, emit = play(begin(stage(account("a")), ("a",), on_doubt="wait"))
    assert asked == []
    assert (emit.topic, emit.value["result"], emit.value["code"]) == (
        "dispatched",
        "unknown",
        "interrupted",
    )
    asked, emit = play(begin(stage(account("a")), ("a",), on_doubt="resend"), 202)
    assert asked == ["a"]
    assert emit.value["in_doubt"]
    assert emit.value["resent"]


def test_a_second_crash_does_not_resend_again() -> None:
    asked, emit = play(begin(stage(account("a")), ("a", "a"), on_doubt="resend"))
    assert asked == []
    assert emit.value["result"] == "unknown"
    (attempt,) = emit.value["attempts"]
    # The dead worker had sent it again: said, though its answer is not known.
    assert (attempt["requests"], attempt["in_doubt"], attempt["resent"]) == (2, True, True)
    _, emit = play(begin(stage(account("a"), account("b")), ("a", "b"), on_doubt="resend"))
    assert [attempt["resent"] for attempt in emit.value["attempts"]] == [False, True]
    asked, _ = play(begin(stage(account("a", keys=True)), ("a", "a", "a")))
    assert asked == []


def test_an_account_that_is_gone_from_the_configuration_is_still_in_doubt() -> None:
    asked, emit = play(begin(stage(account("b")), ("gone",), on_doubt="wait"))
    assert asked == []
    assert (emit.value["result"], emit.value["provider"]) == ("unknown", "gone")


@pytest.mark.parametrize("doubt", [(), ("a",)])
def test_late_or_suppressed_commands_are_not_sent_and_doubt_stays_doubt(
    doubt: tuple[str, ...],
) -> None:
    late = begin(stage(account("a", keys=True)), doubt, expires_at=NOW + 100)
    stopped = begin(stage(account("a", keys=True), suppressed=True), doubt)
    for progress, reason in ((late, "expired"), (stopped, "suppressed")):
        asked, emit = play(progress)
        assert asked == []
        assert emit.topic == ("dispatched" if doubt else "failed")
        assert (emit.value["reason"], emit.value["in_doubt"]) == (reason, bool(doubt))


def test_a_command_is_not_sent_to_the_next_provider_after_its_time() -> None:
    progress = begin(stage(account("a"), account("b")), expires_at=NOW + 50)
    assert isinstance(progress.next(NOW), Send)
    progress.answered(HttpReply(402, {}, b""), NOW, 60, NOW + 60)
    move = progress.next(NOW + 60)
    assert isinstance(move, Finish)
    assert move.answers[0].value["reason"] == "expired"  # type: ignore[index]


def test_the_switch_that_ignores_deadlines_does() -> None:
    made = stage(account("a"), switches=Switches(deadline_ignored=True))
    move = begin(made, expires_at=1).next(NOW)
    assert isinstance(move, Send)
    assert move.expires_at > NOW


# the rest


def test_no_room_gives_the_command_back_for_a_second() -> None:
    progress = begin(stage(account("a")))
    progress.next(NOW)
    (emit,) = progress.crowded(NOW).answers
    event = emit.value
    assert event is not None
    assert (emit.topic, event["error_class"], event["retry_at"]) == (
        "failed",
        "throttle",
        NOW + 1_000,
    )


def test_content_that_the_channel_cannot_say_fails_as_content() -> None:
    progress = begin(stage(account("a"), text=""))
    assert isinstance(progress.next(NOW), Send)
    assert progress.request() is None
    asked, emit = play(progress)
    assert asked == []
    assert (emit.topic, emit.value["error_class"], emit.value["code"]) == (
        "failed",
        "content",
        "content_empty",
    )


def test_a_provider_that_returns_only_its_own_id_gets_a_reference_record() -> None:
    progress = begin(stage(account("a", echoes=False)))
    progress.next(NOW)
    progress.answered(HttpReply(202, {}, b""), NOW, 5, NOW)
    finish = progress.next(NOW + 1)
    assert isinstance(finish, Finish)
    event, record = finish.answers
    assert (record.topic, record.key) == ("references", "a:p-1")
    assert record.value is not None
    assert reference.read(record.value["reference"], {1: KEY}) is not None
    assert record.headers == event.headers


def test_a_fault_of_ours_keeps_the_command_as_a_dead_letter_and_ends_its_step() -> None:
    made = stage(account("a"))
    record = Inbound("send.sms.normal", 2, 77, NOW, b"k", command())
    letter, event = made.broken(record, "trace", NOW, in_doubt=False).answers
    assert (letter.topic, event.topic) == ("dead-letter", "failed")
    assert letter.value is not None
    assert letter.value["detail"] == "trace"
    assert "hello" not in str(letter.value)
    _, event = made.broken(record, "trace", NOW, in_doubt=True).answers
    assert event.topic == "dispatched"
    assert event.value is not None
    assert (event.value["result"], event.value["in_doubt"]) == ("unknown", True)


def test_the_same_decisions_give_the_same_event_id() -> None:
    first = play(begin(stage(account("a"))), 202)[1]
    again = play(begin(stage(account("a"))), 202)[1]
    other = play(begin(stage(account("a")), try_no=2), 202)[1]
    assert first.value["event_id"] == again.value["event_id"] != other.value["event_id"]


def test_events_hold_no_content_and_no_address() -> None:
    _, emit = play(begin(stage(account("a"), text="secret words")), 202)
    assert "secret words" not in str(emit.value)
    assert "+4915100000000" not in str(emit.value)
