"""What committed records count for: from a record's topic and value to the metrics.

Runs for every record that a stage writes, so it looks at a handful of fields and makes nothing but
label tuples.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from pipeline.domain import metrics
from pipeline.domain.meters import Meters

Count = Callable[[Mapping[str, Any]], None]

_EVENTS: Final = ("dispatched", "failed", "delivered", "read", "timed-out", "late-receipts")


class Tallies:
    """Counts what one worker has committed."""

    def __init__(self, meters: Meters) -> None:
        self._events = meters.tally(metrics.EVENTS)
        self._outcomes = meters.tally(metrics.OUTCOMES)
        self._end_to_end = meters.histogram(metrics.END_TO_END)
        self._attempts = meters.histogram(metrics.ATTEMPTS)
        self._errors = meters.tally(metrics.ERRORS)
        self._letters = meters.tally(metrics.DEAD_LETTERS)
        self._by_topic: dict[str, Count] = {
            "rejected": self._rejected,
            "outcomes": self._outcome,
            "dead-letter": self._letter,
            **dict.fromkeys(_EVENTS, self._event),
        }

    def committed(self, topic: str, value: Mapping[str, Any] | None) -> None:
        """Counts one record of a topic (the catalogue's name)."""
        if value is None:
            return
        count = self._by_topic.get(topic)
        if count is None:
            count = self._by_topic[topic] = self._of_family(topic)
        count(value)

    def _of_family(self, topic: str) -> Count:
        family = topic.partition(".")[0]
        return {"accepted": self._accepted, "send": self._command}.get(family, _nothing)

    def _accepted(self, value: Mapping[str, Any]) -> None:
        self._events.add(("accepted", "", "", value["priority"]))

    def _command(self, value: Mapping[str, Any]) -> None:
        self._events.add(("command", value["channel"], "", value["priority"]))

    def _rejected(self, value: Mapping[str, Any]) -> None:
        # A request that could not be read may have said anything.
        self._events.add(("rejected", "", "", ""))

    def _event(self, value: Mapping[str, Any]) -> None:
        channel, provider = value["channel"], value["provider"]
        self._events.add((value["kind"], channel, provider, value["priority"]))
        attempts = value["attempts"]
        for attempt in attempts:
            by = attempt["provider"]
            self._attempts.add((channel, by, attempt["result"]), attempt["latency_ms"] / 1_000)
            if attempt["error_class"] is not None:
                self._errors.add((attempt["error_class"], channel, by))
        # A late receipt repeats an event that was counted when receipts wrote it.
        if not attempts and value["error_class"] is not None and value["origin"] != "fallback":
            self._errors.add((value["error_class"], channel, provider))

    def _outcome(self, value: Mapping[str, Any]) -> None:
        status, channel, priority = value["status"], value["channel"], value["priority"]
        self._outcomes.add((status, channel, value["provider"], priority))
        self._end_to_end.add((status, channel, priority), value["latency_ms"] / 1_000)

    def _letter(self, value: Mapping[str, Any]) -> None:
        self._letters.add((value["category"], value["channel"]))


def _nothing(_value: Mapping[str, Any]) -> None:
    """A record that counts for nothing."""
