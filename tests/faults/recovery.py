"""How long a stage needs after a fault: until every partition of its groups has been committed
beyond what stood in it when the fault struck."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from pipeline.topology import CATALOGUE
from tests.faults.topics_for_tests import quiet

POLL_S: Final = 0.1
GIVE_UP_S: Final = 60.0

Place = tuple[str, int]


def inputs(stage: str) -> dict[str, tuple[str, ...]]:
    """The topics that a stage works through, by its groups (names without the prefix)."""
    lead = CATALOGUE.lead(stage)
    return {
        group: tuple(topic.name for topic in topics if topic.name != lead)
        for group, topics in CATALOGUE.groups(stage).items()
    }


class Positions:
    """Committed offsets, asked from outside by consumers that never join. (The admin client's own
    call crashes the process when a coordinator answers with an error.)"""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self._bootstrap = bootstrap
        self._prefix = prefix
        self._consumers: dict[str, Consumer] = {}
        self._lock = threading.Lock()

    def committed(self, group: str, places: Sequence[Place]) -> dict[Place, int]:
        """Offsets by topic (without the prefix) and partition; 0 where none is known."""
        if not places:
            return {}
        with self._lock:
            if group not in self._consumers:
                self._consumers[group] = Consumer(
                    quiet(self._bootstrap, group_id=self._prefix + group, enable_auto_commit=False)
                )
            asked = [TopicPartition(self._prefix + topic, number) for topic, number in places]
            found = self._consumers[group].committed(asked, 10)
        return {
            (part.topic.removeprefix(self._prefix), part.partition): max(0, part.offset)
            for part in found
        }

    def close(self) -> None:
        """Closes the consumers."""
        for consumer in self._consumers.values():
            consumer.close()

    def behind(self, stage: str, ends: Mapping[Place, int]) -> dict[Place, int]:
        """How many records each partition of a stage's inputs lacks to `ends`; none is left out
        only when nothing is missing."""
        found: dict[Place, int] = {}
        for group, topics in inputs(stage).items():
            places = [place for place in ends if place[0] in topics]
            for place, offset in self.committed(group, places).items():
                if offset < ends[place]:
                    found[place] = ends[place] - offset
        return found


@dataclass(slots=True)
class Wait:
    """One recovery that is being timed. `seconds` stays None until it is over, or for good when
    it took longer than a minute."""

    stage: str
    ends: Mapping[Place, int]
    began: float
    done: Callable[[], bool] | None = None  # the stage's own definition, where it has no group
    seconds: float | None = None
    over: threading.Event = field(default_factory=threading.Event)
    missing: dict[Place, int] = field(default_factory=dict)
    first_missing: dict[Place, int] = field(default_factory=dict)  # what was in flight


class Recoveries:
    """Times any number of recoveries at once, on one thread."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self.positions = Positions(bootstrap, prefix)
        self._open: list[Wait] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recoveries", daemon=True)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def stop(self) -> None:
        """Ends; what is still open counts as never recovered."""
        self._stop.set()
        self._thread.join(30)
        self.positions.close()

    def begin(self, wait: Wait) -> Wait:
        """Times one more."""
        with self._lock:
            self._open.append(wait)
        return wait

    def _run(self) -> None:
        while not self._stop.wait(POLL_S):
            with self._lock:
                waits = list(self._open)
            for wait in waits:
                if self._recovered(wait):
                    wait.seconds = time.monotonic() - wait.began
                elif time.monotonic() - wait.began < GIVE_UP_S:
                    continue
                wait.over.set()
                with self._lock:
                    self._open.remove(wait)

    def _recovered(self, wait: Wait) -> bool:
        if wait.done is not None:
            return wait.done()
        try:
            wait.missing = self.positions.behind(wait.stage, wait.ends)
        except KafkaException:
            return False  # a coordinator that is busy; asked again
        return not wait.missing
