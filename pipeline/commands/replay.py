"""Replays dead letters: reads them, asks ClickHouse what became of their messages since, and writes
those that still matter to `accepted` as messages of their own.

Safe to run twice, and two at once: what ClickHouse has as replayed is passed over, and fallback
knows a replay that it has seen by its name.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from pipeline.commands.caught_up import await_sink
from pipeline.commands.connections import Unable, cluster_of, codec_of, reader_of, store_of
from pipeline.domain import replays
from pipeline.domain.drafts import source_of
from pipeline.domain.outcomes import Inbound
from pipeline.domain.records import DeadLetter, Message
from pipeline.domain.tracing import carried
from pipeline.runtime.clickhouse import Store
from pipeline.runtime.codec import Codec
from pipeline.runtime.kafka import Cluster
from pipeline.settings import Settings
from pipeline.topology import CATALOGUE

BATCH: Final = 500
LIMIT: Final = 1_000
SINK_WAIT_S: Final = 30.0
_ACKNOWLEDGED_S: Final = 15.0
_SLACK_MS: Final = 3_600_000
"""What is asked for begins so long before the oldest letter: an outcome is written with its letter,
and the two stand in topics of their own."""

ASKED: Final = (
    *(f"accepted.{lane}" for lane in CATALOGUE.lanes), "delivered", "read", "late-receipts",
    "outcomes",
)  # fmt: skip
"""Topics that say what became of a message: the sink must have stored them."""

Letters = Iterator[tuple[Inbound, DeadLetter]]
"""Dead letters with the records that they were read from."""


@dataclass(slots=True)
class Replayed:
    """What a replay came to. `messages` has (dead letter, its message, the replay) of each that
    was, or with `dry_run` would be, written; `refused` counts the others by verdict."""

    dry_run: bool
    fitting: int = 0
    messages: list[tuple[str, str, str]] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    limited: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "dry_run": self.dry_run,
            "fitting": self.fitting,
            "replayed": len(self.messages),
            "refused": dict(self.refused),
            "limit_reached": self.limited,
            "messages": [
                {"dead_letter_id": letter, "replay_of": name, "message_id": again}
                for letter, name, again in self.messages
            ],
        }


def run(
    settings: Settings,
    letters: Letters,
    *,
    limit: int = LIMIT,
    dry_run: bool = False,
    in_doubt: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Replayed:
    """Replays those of `letters` that still matter, `limit` at most; reads no further than that.

    Raises:
        Unable: the sink is behind, so nobody knows what was delivered; or Kafka refuses.
        BadInput, Unreachable, Unavailable, RegistryRefused, RegistryUnavailable
    """
    store = store_of(settings)
    try:
        _caught_up(settings, say)
        writer = None if dry_run else _Writer(cluster_of(settings), codec_of(settings))
        return _replay(letters, store, writer, limit, in_doubt)
    finally:
        store.close()


def _replay(
    letters: Letters, store: Store, writer: "_Writer | None", limit: int, in_doubt: bool
) -> Replayed:
    found = Replayed(dry_run=writer is None)
    while batch := list(islice(letters, BATCH)):
        known = _known(store, [letter for _, letter in batch])
        now = int(time.time() * 1000)
        made = []
        for record, letter in batch:
            if len(found.messages) >= limit:
                found.limited = True
                break
            found.fitting += 1
            verdict = replays.verdict(letter, known, now, in_doubt=in_doubt)
            if verdict:
                found.refused[verdict] += 1
                continue
            message = replays.replay(letter, source_of(record), now)
            made.append((record, message))
            found.messages.append(
                (letter["dead_letter_id"], letter["message_id"] or "", message["message_id"])
            )
        if writer is not None:
            writer.write(made)
        if found.limited:
            break
    return found


def _caught_up(settings: Settings, say: Callable[[str], None]) -> None:
    """A receipt that the sink has not stored would be taken for silence."""
    with reader_of(settings) as reader:
        behind = await_sink(reader, reader.ranges(ASKED), SINK_WAIT_S, say)
    if behind:
        raise Unable(
            f"the sink has {sum(behind.values())} offsets to go, so it is not known what was "
            "delivered or replayed since; start it, or wait for it (pipeline status)"
        )


def _known(store: Store, letters: Sequence[DeadLetter]) -> replays.Known:
    """What ClickHouse has of the letters' messages, and of those that they replayed."""
    names = {letter["message_id"] for letter in letters}
    names |= {letter["message"]["replay_of"] for letter in letters if letter["message"]}
    # Spelled out: parameters travel in the address, which would become too long.
    listed = ", ".join(_quoted(name) for name in sorted(filter(None, names)))
    if not listed:
        return replays.Known()
    since = min(letter["occurred_at"] for letter in letters) - _SLACK_MS
    rows = store.query(
        "SELECT if(kind = 'accepted', replay_of, message_id) AS name,"
        " max(kind = 'accepted') AS replayed,"
        " max(kind IN ('delivered', 'read')"
        "  OR (kind = 'late_receipts' AND reason IN ('delivered', 'read'))"
        "  OR (kind = 'outcomes' AND status = 'delivered')) AS reached,"
        " max(kind = 'outcomes' AND in_doubt) AS doubted"
        f" FROM events WHERE _appended_at >= fromUnixTimestamp64Milli({max(0, since)})"
        f" AND ((kind = 'accepted' AND replay_of IN ({listed}))"
        "  OR (kind IN ('delivered', 'read', 'late_receipts', 'outcomes')"
        f"   AND message_id IN ({listed})))"
        " GROUP BY name"
    )
    return replays.Known(
        reached=frozenset(name for name, _, reached, _ in rows if reached),
        replayed=frozenset(name for name, replayed, _, _ in rows if replayed),
        in_doubt=frozenset(name for name, _, _, doubted in rows if doubted),
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


class _Writer:
    """Writes messages as accept does, under their recipients."""

    def __init__(self, cluster: Cluster, codec: Codec) -> None:
        codec.start()
        self._cluster, self._codec = cluster, codec
        self._producer = cluster.producer(
            linger_ms=5, message_timeout_ms=int(_ACKNOWLEDGED_S * 1000)
        )

    def write(self, made: Sequence[tuple[Inbound, Message]]) -> None:
        """All of them are acknowledged, or it raises Unable; then run it again."""
        failed: list[str] = []

        def reported(error: Any, _message: Any) -> None:
            if error is not None:
                failed.append(error.str())

        for record, message in made:
            value: Mapping[str, Any] = message
            self._producer.produce(
                self._cluster.real(f"accepted.{message['priority']}"),
                self._codec.encode("Message", value),
                message["recipient_key"].encode(),
                headers=list(carried(record.headers)),
                on_delivery=reported,
            )
        left = self._producer.flush(_ACKNOWLEDGED_S + 1)
        if failed or left:
            why = failed[0] if failed else "no answer in time"
            raise Unable(
                f"Kafka at {self._cluster.bootstrap} did not take {len(failed) + left} of them "
                f"({why}); run it again: what was written is passed over"
            )
