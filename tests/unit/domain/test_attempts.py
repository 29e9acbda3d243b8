"""What the journal says about commands."""

from pipeline.domain.attempts import KEEP_MS, NOT_SENT, SEND, SETTLED, Attempts
from pipeline.domain.records import JournalEntry


def entry(command: str, provider: str, kind: str = SEND, offset: int = 1) -> JournalEntry:
    return {
        "command_id": command,
        "attempt_id": f"{command}-{provider}",
        "provider": provider,
        "key_no": 0,
        "topic": "send.sms.normal",
        "partition": 0,
        "offset": offset,
        "kind": kind,
    }


def open_of(*entries: JournalEntry) -> tuple[str, ...]:
    attempts = Attempts()
    attempts.learn(entries, 0)
    known = attempts.look("c")
    assert known is not None
    return known.open


def test_what_was_sent_and_not_taken_back_is_open() -> None:
    assert open_of(entry("c", "a")) == ("a",)
    assert open_of(entry("c", "a"), entry("c", "a", NOT_SENT)) == ()
    assert open_of(entry("c", "a"), entry("c", "a", NOT_SENT), entry("c", "b")) == ("b",)


def test_every_request_counts_and_one_is_taken_back_at_a_time() -> None:
    assert open_of(entry("c", "a"), entry("c", "b"), entry("c", "a")) == ("a", "b", "a")
    sends = entry("c", "a"), entry("c", "b"), entry("c", "a")
    assert open_of(*sends, entry("c", "a", NOT_SENT)) == ("a", "b")


def test_a_command_settled_without_a_request_is_known_and_not_in_doubt() -> None:
    assert open_of(entry("c", "", SETTLED)) == ()


def test_a_command_from_another_position_is_a_repeat() -> None:
    attempts = Attempts()
    assert attempts.note("c", "send.sms.normal", 5, 0)
    assert attempts.note("c", "send.sms.normal", 5, 0)
    assert not attempts.note("c", "send.sms.normal", 9, 0)
    assert not attempts.note("c", "send.sms.urgent", 5, 0)
    assert attempts.look("other") is None


def test_commands_are_forgotten_after_a_quarter_of_an_hour() -> None:
    attempts = Attempts()
    for minute in range(40):
        attempts.note(f"c{minute}", "send.sms.normal", minute, minute * 60_000)
    attempts.forget(39 * 60_000)
    assert attempts.look("c39")
    assert attempts.look(f"c{39 - KEEP_MS // 60_000}")
    assert attempts.look("c10") is None
    assert len(attempts) <= 18
