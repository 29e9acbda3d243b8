"""Who is killed, stopped or cut off when, and proof that it happened with work in flight."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient

from tests.faults.history import Fault
from tests.faults.mutants import STAGES, Plan
from tests.faults.proxy_process import Event
from tests.faults.recovery import Recoveries, Wait, inputs
from tests.faults.report import Line
from tests.faults.sources import Watcher
from tests.faults.stack import PREFIX, Stack, wait_until, worker_name
from tests.faults.topics_for_tests import quiet

REST_S: Final = 1.5
"""Between two faults of one row of them, so that they strike a pipeline at work."""

GUEST: Final = 2

SPARE: Final = 5
"""Kills beyond the wanted ones, for those that met an idle worker."""


class Chaos:
    """Carries out a plan in two threads: kills in one, everything else in the other. One stage has
    one fault at a time, so that each recovery is its own."""

    def __init__(
        self, plan: Plan, stack: Stack, watcher: Watcher, recoveries: Recoveries, seed: int
    ) -> None:
        self.faults: list[Fault] = []
        self.lines: list[Line] = []
        self.errors: list[str] = []
        self.rebalances = 0
        self._plan = plan
        self._stack = stack
        self._watcher = watcher
        self._recoveries = recoveries
        self._random = random.Random(seed)
        self._busy = {stage: threading.Lock() for stage in STAGES}
        self._admin = AdminClient(quiet(stack.bootstrap))
        self._out = threading.Event()

    def run(self, seconds: float) -> None:
        """Blocks until every fault has struck, or `seconds` have passed."""
        rows = (self._kill_row(), self._other_row())
        threads = [threading.Thread(target=self._go, args=(row,), daemon=True) for row in rows]
        for thread in threads:
            thread.start()
        until = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        self._out.set()
        for thread in threads:
            thread.join(60)

    def _go(self, row: list[Callable[[], None]]) -> None:
        for strike in row:
            if self._out.is_set():
                return
            try:
                strike()
            except (TimeoutError, KafkaException, OSError) as error:
                self.errors.append(f"{getattr(strike, '__name__', 'fault')}: {error}")
            self._out.wait(REST_S)

    def _line(self, test: str, wanted: int) -> Line:
        line = Line(test, wanted)
        self.lines.append(line)
        return line

    def _kill_row(self) -> list[Callable[[], None]]:
        plan = self._plan
        lines = {stage: self._line(f"kill -9 {stage}", plan.kills) for stage in plan.kill_stages}
        row = [
            _bound(self._kill, lines[stage], stage, number % 2)
            for stage in plan.kill_stages
            for number in range(plan.kills)
        ]
        self._random.shuffle(row)
        return row

    def _other_row(self) -> list[Callable[[], None]]:
        plan, row = self._plan, []
        if plan.terms:
            line = self._line("SIGTERM", plan.terms)
            stages = plan.term_stages
            row += [
                _bound(self._term, line, stages[number % len(stages)], number // len(stages) % 2)
                for number in range(plan.terms)
            ]
        if plan.stops:
            line = self._line(f"SIGSTOP dispatch {plan.stop_s:.0f} s", plan.stops)
            row += [
                _bound(self._stop, line, "dispatch", number % 2) for number in range(plan.stops)
            ]
        if plan.joins:
            line = self._line("third worker joins, leaves", plan.joins)
            stages = plan.join_stages
            row += [
                _bound(self._visit, line, stages[number % len(stages)])
                for number in range(plan.joins)
            ]
        holds = {
            "silent": ("EndTxn held, silent", plan.silent),
            "reset": ("EndTxn held, reset", plan.reset),
            "replay": ("EndTxn twice", plan.replays),
            "spoil": ("transaction aborted", plan.spoils),
        }
        for mode, (test, count) in holds.items():
            if count:
                line = self._line(test, count)
                stages = plan.hold_stages
                row += [
                    _bound(self._hold, line, stages[number % len(stages)], mode)
                    for number in range(count)
                ]
        self._random.shuffle(row)
        return row

    # One fault each

    def _kill(self, line: Line, stage: str, slot: int) -> None:
        with self._alone(stage):
            pid = self._pid(stage, slot)
            wait = self._struck(stage, slot, lambda: os.kill(pid, signal.SIGKILL))
            self._expect_new(stage, slot, pid)
            self._book(line, "kill", stage, wait)
        if not wait.first_missing and line.done < line.wanted + SPARE:
            self._kill(line, stage, 1 - slot)  # it met no work: that proves nothing, so once more

    def _term(self, line: Line, stage: str, slot: int) -> None:
        with self._alone(stage):
            pid = self._pid(stage, slot)
            began = time.monotonic()
            wait = self._struck(stage, slot, lambda: os.kill(pid, signal.SIGTERM))
            wait_until(lambda: not _alive(pid), 15, f"{stage} {slot} to stop")
            took = time.monotonic() - began
            if took > 10:
                line.notes.append(f"{stage} {slot} took {took:.1f} s to stop; 10 s is the limit")
            self._expect_new(stage, slot, pid)
            self._book(line, "term", stage, wait)

    def _stop(self, line: Line, stage: str, slot: int) -> None:
        with self._alone(stage):
            pid = self._pid(stage, slot)
            wait = self._struck(stage, slot, lambda: os.kill(pid, signal.SIGSTOP))
            try:
                self._out.wait(self._plan.stop_s)
            finally:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            self._book(line, "stop", stage, wait)

    def _visit(self, line: Line, stage: str) -> None:
        with self._alone(stage):
            before = self._members(stage)
            joined = self._struck(
                stage, GUEST, lambda: self._stack.add_worker(stage, GUEST, guest=True)
            )
            wait_until(lambda: self._members(stage) > before, 30, f"a third {stage} to join")
            self.rebalances += 1
            self._book(None, "join", stage, joined)
            self._out.wait(2)
            left = self._struck(
                stage, GUEST, lambda: self._stack.supervisor.remove(worker_name(stage, GUEST))
            )
            wait_until(lambda: self._members(stage) <= before, 30, f"the third {stage} to leave")
            self.rebalances += 1
            self._book(line, "leave", stage, left, also=joined)

    def _hold(self, line: Line, stage: str, mode: str) -> None:
        name = f"{PREFIX}{stage}-1"
        proxy = self._stack.proxy
        with self._alone(stage):
            mark = proxy.count()
            proxy.order("hold", mode=mode, match=name)
            proxy.wait(lambda event: _is(event, "held", name), 30, mark)
            # Only transactions with records are held, so work was in flight.
            wait = self._struck(stage, 1, lambda: None)
            released = proxy.wait(lambda event: _is(event, "released", name), 40, mark)
            if mode == "replay":
                if released["error"] != 0:
                    line.notes.append(f"{stage}: the copy was refused ({released['error']})")
                pid = self._pid(stage, 1)
                os.kill(pid, signal.SIGKILL)
                self._expect_new(stage, 1, pid)
            self._book(line, f"hold_{mode}", stage, wait, certain=True)

    # Around a fault

    @contextmanager
    def _alone(self, stage: str) -> Iterator[None]:
        with self._busy[stage]:
            for slot in (0, 1):
                wait_until(lambda slot=slot: self._pid_or_none(stage, slot) is not None, 30, stage)  # type: ignore[misc]
            if inputs(stage):
                wait_until(lambda: self._settled(stage), 30, f"the group of {stage} to settle")
            yield

    def _settled(self, stage: str) -> bool:
        """Whether the last fault's rebalance is over: the next recovery is to be its own."""
        found = self._admin.describe_consumer_groups([PREFIX + stage])[PREFIX + stage].result(10)
        return bool(found.state == ConsumerGroupState.STABLE)

    def _pid_or_none(self, stage: str, slot: int) -> int | None:
        return self._stack.pid(stage, slot)

    def _pid(self, stage: str, slot: int) -> int:
        pid = self._stack.pid(stage, slot)
        if pid is None:
            raise TimeoutError(f"{stage} {slot} does not run")
        return pid

    def _struck(self, stage: str, slot: int, strike: Callable[[], object]) -> Wait:
        """Strikes and begins to time the recovery. What was in flight is what stood in the stage's
        inputs and was not committed when the fault struck."""
        topics = [topic for found in inputs(stage).values() for topic in found]
        before = self._watcher.total("callbacks")
        began = time.monotonic()
        strike()
        time.sleep(self._watcher.delay_s)  # it has read what stood there when the fault struck
        ends = self._watcher.ends(topics)
        done = None
        if stage == "gateway":
            done = lambda: self._stack.gateway_ready(slot)  # noqa: E731
        wait = Wait(stage, ends, began, done)
        if stage == "gateway":
            time.sleep(0.3)
            moving = (self._stack.provider_stats() or {}).get("pending_receipts", 0) > 0
            wait.missing = {("callbacks", 0): 1} if moving or before else {}
        else:
            wait.missing = self._recoveries.positions.behind(stage, ends)
        in_flight = dict(wait.missing)
        self._recoveries.begin(wait)
        wait.first_missing = in_flight
        return wait

    def _book(
        self,
        line: Line | None,
        kind: str,
        stage: str,
        wait: Wait,
        *,
        also: Wait | None = None,
        certain: bool = False,
    ) -> None:
        """Waits for the recovery and writes it down."""
        wait.over.wait(70)
        now = int(time.time() * 1000)
        struck = now - int((time.monotonic() - wait.began) * 1000)
        self.faults.append(Fault(kind, stage, struck, struck + int((wait.seconds or 60) * 1000)))
        if line is None:
            return
        line.done += 1
        line.in_flight += bool(certain or wait.first_missing or (also and also.first_missing))
        slowest = [one.seconds for one in (wait, also) if one is not None]
        line.recoveries.append(
            None if None in slowest else max(s for s in slowest if s is not None)
        )
        if wait.seconds is None:
            line.notes.append(
                f"{kind} {stage}: not recovered, behind {dict(list(wait.missing.items())[:5])}"
            )
        elif wait.seconds > 5:
            line.notes.append(f"{kind} {stage}: {wait.seconds:.1f} s")

    def _expect_new(self, stage: str, slot: int, old: int) -> None:
        wait_until(
            lambda: (pid := self._stack.pid(stage, slot)) is not None and pid != old,
            20,
            f"the supervisor to restart {stage} {slot}",
        )

    def _members(self, stage: str) -> int:
        group = PREFIX + stage
        found = self._admin.describe_consumer_groups([group])[group].result(10)
        return len(found.members)


def _bound(strike: Callable[..., None], *arguments: object) -> Callable[[], None]:
    def bound() -> None:
        strike(*arguments)

    bound.__name__ = " ".join(
        [strike.__name__.strip("_"), *(str(a) for a in arguments if not isinstance(a, Line))]
    )
    return bound


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _is(event: Event, kind: str, name: str) -> bool:
    return bool(event["event"] == kind and event["id"] == name)
