"""What the guarantees forbid, looked for in the log of a world (each finding is a sentence)."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.domain import reference
from pipeline.stages.fallback import UNHEARD_MS
from tests.flows.life import ACCOUNTS, KEY, Life, unique


def findings(life: Life) -> list[str]:
    """Everything wrong with a world in which every message is over."""
    found: list[str] = []
    for check in (
        one_outcome,
        true_outcome,
        told_of_repeats,
        one_hand_over,
        one_live_command,
        whole_windows,
        in_time,
        in_order,
    ):
        found += check(life)
    return found


def _accepted(life: Life) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for record in life.log.records():
        if record.topic.startswith("accepted."):
            found.setdefault(record.value["message_id"], record.value)
    return found


def one_outcome(life: Life) -> Iterator[str]:
    """G1, G5: exactly one outcome a message; a repeat says the same."""
    outcomes = unique(life.outcomes())
    settled = Counter(outcome["message_id"] for outcome in outcomes.values())
    accepted = _accepted(life)
    for name in accepted:
        if settled[name] != 1:
            yield f"G1: {name} has {settled[name]} outcomes"
    for name in set(settled) - set(accepted):
        yield f"G1: the outcome of {name} comes from nowhere"
    for outcome in life.outcomes():
        if outcome["status"] != outcomes[outcome["event_id"]]["status"]:
            yield f"G5: the outcome of {outcome['message_id']} changed"


def true_outcome(life: Life) -> Iterator[str]:
    """G5, G6: delivered only when something said so before, failed only when nothing did."""
    reached: set[str] = set()
    for record in life.log.records("dispatched", "delivered", "read", "outcomes"):
        value = record.value
        name = value["message_id"]
        if record.topic in ("delivered", "read"):
            reached.add(name)
        elif record.topic == "outcomes" and value["status"] == "delivered":
            if name not in reached and value["reason"] != "accepted":
                yield f"G5: nobody said that {name} was delivered"


def told_of_repeats(life: Life) -> Iterator[str]:
    """G1: of the requests under one name one was taken, and each of the others was refused."""
    asked: dict[str, set[str]] = defaultdict(set)
    for record in life.log.records():
        if record.topic.startswith("accepted."):
            asked[record.value["message_id"]].add(str(record.value["source"]))
    refused = Counter(
        event["message_id"]
        for event in unique(life.events("rejected")).values()
        if event["reason"] == "duplicate"
    )
    for name, sources in asked.items():
        if refused[name] != len(sources) - 1:
            yield f"G1: {name} was asked for {len(sources)} times, {refused[name]} were refused"


def whole_windows(life: Life) -> Iterator[str]:
    """G6: silence is called silence when the whole window is over."""
    windows = {command["command_id"]: command["window_ms"] for command in life.commands()}
    since = {event["command_id"]: event["occurred_at"] for event in life.events("dispatched")}
    for record in life.log.records("timed-out"):
        command = record.value["command_id"]
        if record.timestamp < since[command] + windows[command]:
            yield f"G6: the window of {command} was cut short"


def one_hand_over(life: Life) -> Iterator[str]:
    """G3: taken twice only where no key is honoured and dispatch's word says resent."""
    handed = Counter(
        (one.provider, one.key, one.reference) for one in life.outside.requests if one.taken
    )
    resent = {
        (event["message_id"], event["step"])
        for event in life.events("dispatched", "failed")
        if event["resent"]
    }
    for (provider, _, text), count in handed.items():
        named = reference.read(text, {0: KEY})
        assert named is not None
        declared = (named.message_id, named.step) in resent
        keyed = ACCOUNTS[provider].capabilities.honours_keys
        if count > (1 if keyed or not declared else 2):
            yield f"G3: {provider} took step {named.step} of {named.message_id} {count} times"


def one_live_command(life: Life) -> Iterator[str]:
    """G4, G6: a command follows another of its message, or of its recipient and lane, only when
    dispatch has had its word on that one, or it was given up as lost."""
    live: dict[tuple[str, str], tuple[str, int]] = {}
    for record in life.log.records():
        value = record.value
        if record.topic.startswith("send."):
            lane = (value["recipient_key"], value["priority"])
            before = live.get(lane)
            if (
                before is not None
                and before[0] != value["command_id"]
                and record.timestamp < before[1] + UNHEARD_MS
            ):
                yield f"G6: {before[0]} was live when {value['command_id']} was written"
            live[lane] = (value["command_id"], value["expires_at"])
        elif record.topic in ("dispatched", "failed") and value["origin"] == "dispatch":
            for lane, (command, _) in list(live.items()):
                if command == value["command_id"]:
                    del live[lane]


def in_time(life: Life) -> Iterator[str]:
    """G7, G8: no request after the deadline, no command after it, no endless tries."""
    accepted = _accepted(life)
    for one in life.outside.requests:
        named = reference.read(one.reference, {0: KEY})
        assert named is not None
        if one.at >= accepted[named.message_id]["deadline"]:
            yield f"G7: {named.message_id} was sent after its deadline"
    tries = Counter((c["message_id"], c["step"], c["priority"]) for c in unique_commands(life))
    for (name, step, priority), count in tries.items():
        if count > life.policy.priorities[priority].retry.max_tries:
            yield f"G8: step {step} of {name} had {count} commands"


def in_order(life: Life) -> Iterator[str]:
    """G4: first commands in the order of `accepted`, but for what waits for a sequence."""
    asked: dict[str, list[str]] = defaultdict(list)
    sent: dict[tuple[str, str], list[str]] = defaultdict(list)
    held = {name for name, message in _accepted(life).items() if message["sequence"] is not None}
    for record in life.log.records():
        if record.topic.startswith("accepted."):
            asked[record.value["priority"]].append(record.value["message_id"])
    for command in unique_commands(life):
        first = command["step"] == 0 and command["try_no"] == 1
        if first and command["message_id"] not in held:
            sent[command["priority"], command["recipient_key"]].append(command["message_id"])
    for lane, names in sent.items():
        if names != [name for name in dict.fromkeys(asked[lane[0]]) if name in names]:
            yield f"G4: {lane} was sent out of order"


def unique_commands(life: Life) -> list[Mapping[str, Any]]:
    """Commands by their id, in the order in which each was first written."""
    return list({command["command_id"]: command for command in life.commands()}.values())
