"""Dead letters as they stand in their topic."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from pipeline.commands.connections import codec_of, reader_of
from pipeline.domain.errors import Undecodable
from pipeline.domain.outcomes import Inbound
from pipeline.domain.records import DeadLetter
from pipeline.settings import Settings

TOPIC: Final = "dead-letter"

Heard = Callable[[int], None]
"""Is told of progress, in records."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters; empty texts mean any. `since` in milliseconds since the epoch; `names` are
    ids of dead letters or of their messages."""

    since: int = 0
    channel: str = ""
    error_class: str = ""
    reason: str = ""
    category: str = ""
    tenant: str = ""
    names: frozenset[str] = frozenset()

    def fits(self, letter: DeadLetter) -> bool:
        """Whether it is one of these; a reason is found anywhere in the letter's."""
        return (
            letter["occurred_at"] >= self.since
            and self.channel in {"", letter["channel"]}
            and self.error_class in {"", letter["error_class"] or ""}
            and self.category in {"", letter["category"]}
            and self.tenant in {"", letter["tenant"]}
            and self.reason.lower() in letter["reason"].lower()
            and (
                not self.names
                or letter["dead_letter_id"] in self.names
                or letter["message_id"] in self.names
            )
        )


def find(settings: Settings, wanted: Wanted, heard: Heard = lambda _: None) -> Iterator[DeadLetter]:
    """The dead letters in the topic that fit; one that came again under its own id once.

    Raises:
        BadInput, Unreachable, RegistryUnavailable: the topic cannot be read.
    """
    for _, letter in letters(settings, wanted, heard):
        yield letter


def letters(
    settings: Settings,
    wanted: Wanted,
    heard: Heard = lambda _: None,
    total: Heard = lambda _: None,
) -> Iterator[tuple[Inbound, DeadLetter]]:
    """The same with the record that each was read from. `total` is told how many offsets there are
    to read, `heard` how many were read since it was told last.

    Raises:
        BadInput, Unreachable, RegistryUnavailable: the topic cannot be read.
    """
    codec = codec_of(settings)
    seen: set[str] = set()
    with reader_of(settings) as reader:
        ranges = reader.ranges([TOPIC])
        if wanted.since:
            # a letter is appended after what it tells of
            ranges = reader.since(ranges, wanted.since)
        total(sum(end - low for low, end in ranges.values()))
        for record in reader.read(ranges, heard):
            try:
                letter: Any = codec.decode_as("DeadLetter", record.value)
            except Undecodable as error:
                letter = _unreadable(record, error)
            if letter["dead_letter_id"] not in seen and wanted.fits(letter):
                seen.add(letter["dead_letter_id"])
                yield record, letter


def _unreadable(record: Inbound, error: Undecodable) -> DeadLetter:
    """A dead letter that is itself no record: it is shown like the others."""
    return {
        "record_version": 1,
        "dead_letter_id": f"{record.topic}:{record.partition}:{record.offset}",
        "tenant": "",
        "message_id": None,
        "recipient_key": None,
        "stage": "",
        "category": "undecodable",
        "reason": error.code,
        "error_class": None,
        "detail": error.detail,
        "channel": "",
        "provider": "",
        "priority": "",
        "occurred_at": record.timestamp,
        "source": {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
        },
        "message": None,
        "attempts": [],
        "raw_key": record.key,
        "raw_value": record.value,
    }
