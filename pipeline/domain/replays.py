"""Dead letters that are sent again: which of them still matter, and the message that each becomes.

A replay is a message of its own, with a name made from its dead letter, so that the same dead
letter replayed twice is one message, and `replay_of` for its history. It keeps the deadline: what
was worthless then is worthless now.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from pipeline.domain import ids
from pipeline.domain.records import DeadLetter, Message, Source

NO_MESSAGE: Final = "no_message"
REPLAYED: Final = "replayed"
DELIVERED: Final = "delivered"
EXPIRED: Final = "expired"
IN_DOUBT: Final = "in_doubt"

WHY: Final = {
    NO_MESSAGE: "hold raw bytes and no message: mend what they are and send it anew",
    REPLAYED: "were replayed before",
    DELIVERED: "were delivered since, or by an earlier replay",
    EXPIRED: "are past their deadline",
    IN_DOUBT: "may have been sent, and must be sent at most once (--in-doubt replays them too)",
}
"""What is said of dead letters that are not replayed, by verdict."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the events say of some messages, by id."""

    reached: Collection[str] = field(default_factory=frozenset)
    replayed: Collection[str] = field(default_factory=frozenset)
    in_doubt: Collection[str] = field(default_factory=frozenset)


def verdict(letter: DeadLetter, known: Known, now: int, *, in_doubt: bool = False) -> str:
    """Why a dead letter is not replayed; empty when it is. `in_doubt`: also what may have been
    sent although its message asked for at most once."""
    message, name = letter["message"], letter["message_id"]
    if message is None or name is None:
        return NO_MESSAGE
    if name in known.replayed:
        return REPLAYED
    if name in known.reached or message["replay_of"] in known.reached:
        return DELIVERED
    if message["deadline"] <= now:
        return EXPIRED
    doubt = name in known.in_doubt or any(one["in_doubt"] for one in letter["attempts"])
    if doubt and message["on_doubt"] != "resend" and not in_doubt:
        return IN_DOUBT
    return ""


def replay(letter: DeadLetter, place: Source, now: int) -> Message:
    """The message that replays a dead letter which stands at `place`. The same again gives the
    same message, which fallback knows as a repeat. The caller's idempotency key stays with the
    message that it named.

    Raises:
        ValueError: the letter holds no message.
    """
    message = letter["message"]
    if message is None:
        raise ValueError("a dead letter without a message")
    return {
        **message,
        "message_id": ids.replay_id(letter["dead_letter_id"]),
        "idempotency_hash": None,
        "source": place,
        "accepted_at": now,
        "replay_of": letter["message_id"],
    }
