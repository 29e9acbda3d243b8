"""G1 and G2: everything acknowledged is answered once, and nothing comes from an aborted record."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from tests.faults.findings import Finding, finding
from tests.faults.history import History, Place, Record, source_of


def _rejections(history: History) -> dict[Place, list[Record]]:
    found: dict[Place, list[Record]] = defaultdict(list)
    for record in history.of("rejected"):
        source = source_of(record)
        if source is not None:
            found[source].append(record)
    return found


def _opened(history: History) -> dict[Place, set[str]]:
    """The messages that each intake record became and that fallback did not turn away."""
    rejected = _rejections(history)
    found: dict[Place, set[str]] = defaultdict(set)
    for record in history.of("accepted."):
        source = source_of(record)
        if source is not None and source not in rejected:
            found[source].add(record.value["message_id"])
    return found


def lost(history: History) -> Finding:
    """Every acknowledged request ends in an outcome or a rejection of its own."""
    rejected, opened, settled = _rejections(history), _opened(history), history.outcomes()

    def wrong() -> Iterator[str]:
        for sent in history.sent:
            if sent.place in rejected:
                continue
            messages = opened.get(sent.place)
            if not messages:
                yield f"{sent.place} ({sent.expected}): neither accepted nor rejected"
            elif not messages & settled.keys():
                yield f"{sent.place}: message {sorted(messages)} has no outcome"
        owner: dict[str, Place] = {}
        for place, messages in opened.items():
            for message in messages:
                if owner.setdefault(message, place) != place:
                    yield f"{place}: repeats {message} of {owner[message]}, but was not answered"

    return finding("lost", "G1", len(history.sent), wrong())


def doubled(history: History) -> Finding:
    """Nothing has two answers: one outcome a message, one message a request and identity."""
    rejected, opened = _rejections(history), _opened(history)
    settled = history.outcomes()

    def wrong() -> Iterator[str]:
        for message, records in settled.items():
            if len({record.value["event_id"] for record in records}) > 1:
                yield f"message {message}: {len(records)} different outcomes"
        for place, records in rejected.items():
            if len({record.value["event_id"] for record in records}) > 1:
                yield f"{place}: {len(records)} different rejections"
        for place, messages in opened.items():
            if len(messages) > 1:
                yield f"{place}: became messages {sorted(messages)}"
        identities: dict[str, set[str]] = defaultdict(set)
        for sent in history.sent:
            if sent.identity is not None:
                identities[sent.identity] |= opened.get(sent.place, set())
        for identity, messages in identities.items():
            if len(messages) > 1:
                yield f"identity {identity}: opened as {sorted(messages)}"

    return finding("doubled", "G2", len(settled), wrong())


def misjudged(history: History) -> Finding:
    """Malformed requests are rejected with a field, repeats as duplicates, good ones taken."""
    rejected = _rejections(history)
    by_identity: dict[str, int] = Counter(
        sent.identity
        for sent in history.sent
        if sent.identity is not None and sent.place not in rejected
    )

    def wrong() -> Iterator[str]:
        for sent in history.sent:
            said = [record.value for record in rejected.get(sent.place, ())]
            reasons = {value["reason"] for value in said}
            if sent.expected == "malformed" and not any(value["field"] for value in said):
                yield f"{sent.place}: malformed, but no rejection names a field"
            elif sent.expected == "good" and said and "duplicate" not in reasons:
                yield f"{sent.place}: good, but rejected: {sorted(map(str, reasons))}"
            elif sent.expected in ("good", "repeat") and sent.identity is not None:
                if by_identity[sent.identity] != 1:
                    yield f"{sent.place}: {by_identity[sent.identity]} requests of its identity opened"

    return finding("misjudged", "G1", len(history.sent), wrong())


def _identity(record: Record) -> Any:
    """What makes a record that record, wherever it stands; None where repeats are natural."""
    value = record.value
    if record.topic.startswith("accepted."):
        return (value["message_id"], source_of(record))
    if record.topic.startswith("send."):
        return value["command_id"]
    if record.topic == "dead-letter":
        return value["dead_letter_id"]
    if value.get("origin") == "receipts" or "event_id" not in value:
        return None
    return value["event_id"]


def repeated(history: History, allowed: int = 0) -> Finding:
    """No output stands in the log twice under its own id. A torn transaction may do it; with the
    producer rebuilt after every slow commit none is torn, so none is allowed."""
    seen: Counter[tuple[str, object]] = Counter()
    looked = 0
    for topic, records in history.topics.items():
        for record in records:
            identity = None if topic.startswith("intake") else _identity(record)
            if identity is not None:
                seen[topic, identity] += 1
                looked += 1
    wrong = [f"{topic}: {identity} {n} times" for (topic, identity), n in seen.items() if n > 1]
    return finding("repeated", "G2", looked, wrong, allowed)


def receipts_repeated(history: History) -> Finding:
    """Receipts become events at most as often as the provider posted them."""
    posts: Counter[str] = Counter()
    for notice in history.notices:
        posts[notice.event_id] += notice.posts
    seen: Counter[tuple[str, str]] = Counter()
    for record in history.of("delivered", "read", "failed"):
        if record.value.get("origin") == "receipts" and record.value.get("provider_event_id"):
            seen[record.topic, record.value["provider_event_id"]] += 1
    wrong = [
        f"{topic}: receipt {event} stands {n} times, posted {posts[event]} times"
        for (topic, event), n in seen.items()
        if n > posts[event]
    ]
    return finding("receipts repeated", "G2", len(seen), wrong)


def aborted_reads(history: History) -> Finding:
    """What a read_committed reader saw while the faults went on is still there afterwards."""
    final: dict[tuple[str, int], set[int]] = defaultdict(set)
    for records in history.topics.values():
        for record in records:
            final[record.topic, record.partition].add(record.offset)
    wrong = [
        f"{(*place, offset)} was read during the faults and is gone"
        for place, offsets in history.live.items()
        for offset in sorted(offsets - final[place])
    ]
    looked = sum(len(offsets) for offsets in history.live.values())
    return finding("aborted reads", "G2", looked, wrong)


def underived(history: History) -> Finding:
    """Every output comes from a committed input: readers that saw aborted records would show."""
    accepted = {record.place for record in history.of("accepted.")}
    sends = {record.place for record in history.of("send.")}
    messages = set(history.accepted())
    commands = {record.value["command_id"] for record in history.of("send.")}
    offsets: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for record in history.of("accepted."):
        offsets[record.value["message_id"]].add((record.partition, record.offset))

    def wrong() -> Iterator[str]:
        for record in history.of("send.", "outcomes"):
            if record.value["message_id"] not in messages:
                yield f"{record.place}: its message is not in accepted"
        for record in history.of("dispatched", "failed"):
            if record.value["origin"] == "dispatch" and record.value["command_id"] not in commands:
                yield f"{record.place}: its command is not in send"
        for record in history.of("dispatch.journal"):
            for entry in record.value["entries"]:
                if (entry["topic"], entry["partition"], entry["offset"]) not in sends:
                    yield f"{record.place}: journals {entry['command_id']} from an aborted record"
        for record in history.of("fallback.changelog"):
            message = record.value.get("message_id")
            at = record.value.get("accepted_offset")
            if message is None or at is None or not offsets.get(message):
                continue
            if (record.partition, at) not in offsets[message]:
                yield f"{record.place}: {message} was opened from an aborted record at {at}"
        for request in history.requests:
            if request.message_id not in messages:
                yield f"request line {request.line}: unknown message {request.message_id}"

    return finding("underived", "G2", len(accepted) + len(sends), wrong())
