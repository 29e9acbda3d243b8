"""One line for each attempt, with everything that is known and nothing that was said."""

import json
from pathlib import Path
from typing import Any

from pipeline.domain.attempt_lines import lines
from pipeline.domain.outcomes import Emit

EXAMPLES = Path(__file__).resolve().parents[3] / "schemas" / "examples" / "Event"
TRACE = "0af7651916cd43dd8448eb211c80319c"
HEADERS = (("traceparent", f"00-{TRACE}-b7ad6b7169203331-00".encode()),)


def events(kind: str) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in sorted(EXAMPLES.glob("*.json"))]
    return [event for event in found if event["kind"] == kind]


def dispatched() -> dict[str, Any]:
    (event, *_) = [event for event in events("dispatched") if event["attempts"]]
    return event


def test_each_attempt_of_a_command_has_a_line_of_its_own() -> None:
    event = dispatched()
    first = event["attempts"][0]
    event["attempts"] = [first, {**first, "provider": "second", "attempt_id": "a-2"}]
    found = lines([Emit("dispatched", "r", event, HEADERS), Emit("references", "r", {})])
    assert [(line["number"], line["of"], line["provider"]) for line in found] == [
        (1, 2, first["provider"]),
        (2, 2, "second"),
    ]
    for line, attempt in zip(found, event["attempts"], strict=True):
        assert attempt.items() <= line.items()
        assert line["trace_id"] == TRACE
        assert line["end"] == "dispatched"
        for name in ("tenant", "message_id", "command_id", "step", "channel", "priority"):
            assert line[name] == event[name]


def test_a_command_that_no_provider_saw_and_other_stages_events_have_none() -> None:
    event = {**dispatched(), "attempts": []}
    delivered = events("delivered")[0]
    outcome = {"attempts": 3}
    emits = [
        ("dispatched", event),
        ("delivered", delivered),
        ("outcomes", outcome),
        ("failed", None),
    ]
    assert lines([Emit(topic, "r", value) for topic, value in emits]) == []


def test_what_a_caller_wrote_is_not_in_it() -> None:
    event = {**dispatched(), "campaign": "CANARY", "labels": {"a": "CANARY"}, "reason": "CANARY"}
    shown = json.dumps(lines([Emit("dispatched", "r", event)]))
    assert "CANARY" not in shown
    assert event["recipient_key"] not in shown
