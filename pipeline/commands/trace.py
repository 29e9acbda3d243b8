"""`pipeline trace`: everything that happened to one message, why, and what it waits for."""

import json
import sys
import time
from collections.abc import Mapping
from typing import Annotated, Any, Final, cast

from cyclopts import App, Parameter
from rich.console import Console

from pipeline.commands.connections import UNABLE, codec_of, reader_of, store_of
from pipeline.commands.moments import read_moment
from pipeline.domain import ids, story
from pipeline.domain.errors import BadInput, Undecodable
from pipeline.domain.recipients import read_recipient
from pipeline.domain.records import MessageState, Recipient
from pipeline.domain.story_words import Fact, clock, span
from pipeline.runtime.clickhouse import Refused, Store, Unavailable
from pipeline.runtime.reader import Unreachable
from pipeline.runtime.registry import RegistryRefused, RegistryUnavailable
from pipeline.settings import Settings, load_settings
from pipeline.stages.accept import COUNTRIES, read_phone

app = App(name="trace", help="Tell one message's story: what happened, why, what it waits for.")

OK: Final = 0
BAD: Final = 1
CHANGELOG: Final = "fallback.changelog"
MOST_EVENTS: Final = 5_000
"""A message that a caller repeats for ever has as many events; the first ones tell its story."""

_MILLIS: Final = ("occurred_at", "accepted_at", "deadline", "retry_at")
_RENAMED: Final[Mapping[str, str]] = {
    **{name: f"toUnixTimestamp64Milli({name})" for name in _MILLIS},
    "appended_at": "toUnixTimestamp64Milli(_appended_at)",
    "cost": "toFloat64(cost)",
    "topic": "_topic",
    "partition": "_partition",
    "attempts": "toJSONString(attempts)",
}
_COLUMNS: Final = ", ".join(
    f"{_RENAMED[name]} AS {name}_" if name in _RENAMED else name for name in Fact.__annotations__
)

Json = Annotated[bool, Parameter(name="--json", negative="")]


@app.default
def trace(
    message_id: str = "",
    /,
    *,
    key: str = "",
    to: str = "",
    at: str = "",
    as_json: Json = False,
) -> int:
    """Print every event of a message in order, with the reason of every decision; of one that is
    open also what it waits for and until when.

    Exit status 1: no such message is known; 2: nobody can be asked.

    Args:
        message_id: As events, outcomes and answers to requests name it.
        key: Instead of the id: TENANT/KEY, the idempotency key of its request.
        to: With --key, the recipient as the request named it (its id, else its phone number, else
            its e-mail address): then the message is found even if ClickHouse has nothing of it
            yet, and a key that several recipients have names one message.
        at: The story as of then: 10m (ago) or 2026-01-31T10:00 (UTC).
        as_json: For programs.
    """
    now = int(time.time() * 1000)
    try:
        moment = read_moment(at, now, "--at") if at else None
        settings = load_settings()
        store = store_of(settings)
        try:
            names = named(settings, store, message_id, key, to)
            if len(names) > 1:
                return _several(names)
            found = find(settings, store, names[0], now, moment) if names else None
        finally:
            store.close()
    except (BadInput, Refused, Unavailable) as error:
        print(f"pipeline trace: {error}", file=sys.stderr)
        return UNABLE
    if found is None:
        what = f"message {names[0]}" if names else f"message with the key {key}"
        when = f" at {clock(moment)}" if moment is not None else ""
        print(
            f"pipeline trace: ClickHouse knows no {what}{when}; it is another one's, or the sink "
            "has not come to it yet (pipeline status)",
            file=sys.stderr,
        )
        return BAD
    if as_json:
        print(json.dumps(story.as_dict(found), indent=2, ensure_ascii=False))
    else:
        show(found, now if moment is None else moment)
    return OK


def named(settings: Settings, store: Store, message_id: str, key: str, to: str) -> list[str]:
    """The ids of the messages that the arguments name: usually one.

    Idempotency keys are stored as HMAC only, so the pepper of the settings is needed.

    Raises:
        BadInput, Unavailable
    """
    if bool(message_id) == bool(key):
        raise BadInput("ID, --key", "one of them is needed", "give an id, or --key TENANT/KEY")
    if not key:
        return [message_id]
    tenant, slash, name = key.partition("/")
    if not (tenant and slash and name):
        raise BadInput("--key", f"{key!r} names no tenant and key", "write it as default/login-42")
    if to:
        recipient = ids.key_of(settings.pepper_bytes, tenant, _recipient(to))
        return [ids.message_id(tenant, recipient, name)]
    hashed = ids.idempotency_hash(settings.pepper_bytes, tenant, name)
    rows = store.query(
        "SELECT DISTINCT message_id FROM events WHERE tenant = {tenant:String}"
        " AND kind = 'accepted' AND idempotency_hash = {hash:String} ORDER BY 1 LIMIT 20",
        {"tenant": tenant, "hash": hashed},
    )
    return [found for (found,) in rows]


def find(
    settings: Settings, store: Store, message_id: str, now: int, at: int | None = None
) -> story.Story | None:
    """The story of a message, None when ClickHouse has no event of it (until `at`).

    Fallback's state is read from Kafka while the message is open, and for a story of the past,
    whose windows only the state knows. Without it the story has a note that says why.

    Raises:
        Unavailable
    """
    facts = read_facts(store, message_id)
    if not story.in_order(facts, at):
        return None
    replays = [
        name
        for (name,) in store.query(
            "SELECT DISTINCT message_id FROM events WHERE tenant = {tenant:String}"
            " AND kind = 'accepted' AND replay_of = {id:String} ORDER BY 1",
            {"tenant": facts[0]["tenant"], "id": message_id},
        )
    ]
    state, note = None, ""
    if at is not None or not any(fact["kind"] == "outcomes" for fact in facts):
        state, note = _state(settings, facts)
    found = story.tell(facts, state, now, at=at, replays=replays)
    if note and found.waiting is not None:
        found.notes.append(note)
    if len(facts) == MOST_EVENTS:
        found.notes.append(f"only the first {MOST_EVENTS} events are told")
    return found


def read_facts(store: Store, message_id: str) -> list[Fact]:
    """The message's events, as stored; the earliest `MOST_EVENTS` of them.

    Raises:
        Unavailable
    """
    rows = store.query(
        f"SELECT {_COLUMNS} FROM events_unique WHERE message_id = {{id:String}}"
        f" AND kind != 'unreadable' ORDER BY _appended_at LIMIT {MOST_EVENTS}",
        {"id": message_id},
    )
    facts = []
    for row in rows:
        fact = dict(zip(Fact.__annotations__, row, strict=True))
        fact["attempts"] = json.loads(fact["attempts"])
        facts.append(cast(Fact, fact))
    return facts


def _state(settings: Settings, facts: list[Fact]) -> tuple[MessageState | None, str]:
    """Fallback's last word on the message, from its changelog, or why there is none.

    Everything about a recipient has one partition number, and the state was written after the
    last event that it rests on: so one partition is read, from there; from the message's beginning
    when fallback has not come to that event yet.
    """
    kinds = [f for f in facts if f["kind"] not in {"rejected", "dead_letter"}]
    if not kinds:
        return None, ""
    ordered = story.in_order(kinds)
    try:
        codec = codec_of(settings)
        with reader_of(settings) as reader:
            whole = reader.ranges([CHANGELOG])
            place = (CHANGELOG, ordered[0]["partition"])
            if place not in whole:
                return None, f"{CHANGELOG} has no partition {place[1]}: another cluster's rows?"
            wanted = f"m:{ordered[0]['message_id']}".encode()
            for start in (ordered[-1]["appended_at"], ordered[0]["appended_at"]):
                last = None
                for record in reader.read(reader.since({place: whole[place]}, start)):
                    last = record if record.key == wanted else last
                if last is not None and last.value is not None:
                    found: Any = codec.decode_as("MessageState", last.value)
                    return cast(MessageState, found), ""
    except (BadInput, Unreachable) as error:
        return None, f"what it waits for is guessed from its events: {error}"
    except (Undecodable, RegistryRefused, RegistryUnavailable) as error:
        return None, f"what it waits for is guessed from its events: its state: {error}"
    return None, "fallback has no state of it: it has not come to it yet, or has forgotten it"


def _recipient(text: str) -> Recipient:
    """The recipient as a request's `to` would name it."""
    kind = "email" if "@" in text else "phone" if text.startswith("+") else "id"
    return read_recipient({kind: text}, read_phone, COUNTRIES)[0]


def _several(names: list[str]) -> int:
    print(
        f"pipeline trace: {len(names)} messages to several recipients have this key; add --to, or "
        "give one of their ids:",
        *names,
        sep="\n  ",
        file=sys.stderr,
    )
    return BAD


def show(found: story.Story, now: int) -> None:
    """The story for people."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    about = found.about
    named = ("priority", "category", "campaign", "country")
    words = ", ".join(str(about[name]) for name in named if about[name])
    console.print(f"message {found.message_id}, tenant {about['tenant']}, {words}")
    console.print(f"recipient {about['recipient_key'] or 'unknown'}")
    if about["trace_id"]:
        console.print(f"trace {about['trace_id']}")
    if about["replay_of"]:
        console.print(f"a replay of {about['replay_of']}")
    for name in found.replays:
        console.print(f"replayed as {name}")
    console.print()
    began = found.lines[0].at
    for line in found.lines:
        kind = line.kind.replace("_", " ")
        console.print(f"{clock(line.at)}  +{span(line.at - began):>8}  {kind:13} {line.text}")
        if line.because:
            console.print(f"{'':50}{line.because}")
    console.print()
    if found.waiting is not None:
        until = found.waiting.until
        left = f" (in {span(until - now)})" if until is not None and until >= now else ""
        ends = f"until {clock(until)}{left}" if until is not None else "nobody knows until when"
        console.print(f"waits for {found.waiting.text}, {ends}; then {found.waiting.then}")
    else:
        console.print(f"{found.status}")
    for note in found.notes:
        console.print(f"note: {note}")
