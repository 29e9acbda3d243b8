"""Commands under way: from their recipient's turn to the fact that they end in.

    turn -> slot -> journal -> request -> answer -> settlement

Everything here runs on the thread that owns the Kafka clients; requests run elsewhere (inflight.py).
The point of no return is where a request begins: before it a command can be dropped and read again
by anybody; after it the journal says that it may have been sent.
"""

import logging
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from pipeline.domain.attempts import NOT_SENT, SEND, SETTLED
from pipeline.domain.outcomes import Inbound
from pipeline.domain.ports_dispatch import ConcurrentStage, Finish, Send
from pipeline.domain.records import PRIORITIES, JournalEntry
from pipeline.domain.switches import NONE, Switches
from pipeline.domain.turns import Limits, Place, Slots, Turns
from pipeline.runtime.clock import Clock
from pipeline.runtime.holding import Item, Part, Phase, Task
from pipeline.runtime.inflight import Job, Lease, Requests, Withheld, no_step
from pipeline.runtime.journal import Journal
from pipeline.runtime.settlement import Settlement
from pipeline.runtime.transaction import Encoded
from pipeline.runtime.wire import Wire

log = logging.getLogger(__name__)

LEASE_TO_JOURNAL_S: Final = 0.5
"""With less left of the lease a request would only be withheld."""

STALE_S: Final = 0.2
"""After this long the stage is asked again whether a request is still to be made."""

_NO_REQUEST: Final = Send("", "", 0, 0, 0)


class Commands:
    """The commands of one worker. `sent` and `withheld` count requests."""

    def __init__(
        self,
        stage: ConcurrentStage,
        wire: Wire,
        journal: Journal,
        requests: Requests,
        settlement: Settlement,
        lease: Lease,
        clock: Clock,
        limits: Limits,
        switches: Switches = NONE,
        on_step: Callable[[str], None] = no_step,
    ) -> None:
        self.sent = self.withheld = 0
        self._stage, self._wire, self._clock = stage, wire, clock
        self._journal, self._requests = journal, requests
        self._settlement, self._lease = settlement, lease
        self._switches, self._on_step = switches, on_step
        self._turns: Turns[tuple[str, str], Item] = Turns()
        self._slots: Slots[Item] = Slots(limits, PRIORITIES)
        self._todo: deque[Item] = deque()
        self._ready: deque[Item] = deque()
        self._jobs: list[Job] = []

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return not (self._slots.held or self._slots.waiting or self._ready or self._todo)

    @property
    def busy(self) -> bool:
        """Something can be done without a record or an answer coming in."""
        return bool(self._todo or self._journal.unwritten) or (
            bool(self._ready) and self._lease.left > LEASE_TO_JOURNAL_S
        )

    @property
    def waiting(self) -> int:
        """Commands that wait for a slot."""
        return self._slots.waiting

    def filled(self, channel: str, lane: str) -> float:
        """How full the emptiest provider of a channel is in a lane: 0 to 1."""
        providers = self._stage.providers(channel)
        return min((self._slots.filled(name, lane) for name in providers), default=0.0)

    def open(
        self, record: Inbound, task: Task, part: Part, lane: str, doubt: tuple[str, ...]
    ) -> None:
        """Takes a decoded command in; `doubt` is what the journal left open of it."""
        progress = self._stage.begin(record, doubt)
        turn = (lane, record.value["recipient_key"])
        item = Item(record, task, part, lane, progress, turn, bool(doubt))
        task.held += 1
        if self._turns.enter(turn, item):
            self._todo.append(item)

    def step(self, tasks: Iterable[Task]) -> None:
        """Does everything that can be done now; waits a moment for the journal."""
        self._run_todo()
        self._write_journal(tasks)
        if self._journal.unwritten:
            self._journal.poll(0.003)
        self._submit()
        self._collect()
        self._run_todo()

    def drop_unsent(self, task: Task) -> None:
        """Commands whose request is not journalled go back: the successor reads them again."""

        def mine(item: Item) -> bool:
            return item.task is task

        waiting = self._turns.drop(mine) + [item for item in self._todo if mine(item)]
        self._todo = deque(item for item in self._todo if not mine(item))
        queued = self._slots.drop(mine)
        granted = [item for item in self._ready if mine(item)]
        self._ready = deque(item for item in self._ready if not mine(item))
        for item in {*waiting, *queued, *granted}:
            self._drop(item)
        for item in granted:
            self._free(item)

    def _drop(self, item: Item) -> None:
        if not item.dropped:
            item.dropped = True
            item.task.held -= 1

    def _run_todo(self) -> None:
        """Items whose turn it is look for a slot."""
        while self._todo:
            item = self._todo.popleft()
            self._place(item, self._next(item))

    def _next(self, item: Item) -> Send | Finish:
        """Asks the stage; a fault of ours settles the command instead of stopping the rest."""
        item.asked_at = self._clock.monotonic()
        now = self._clock.now()
        try:
            return item.progress.next(now)
        except Exception as error:
            log.exception("dispatch: a command of task %d", item.task.number)
            return self._broken(item, error)

    def _broken(self, item: Item, error: Exception) -> Finish:
        return self._stage.broken(
            item.record,
            "".join(traceback.format_exception(error, limit=20))[-4_000:],
            self._clock.now(),
            in_doubt=item.progress.in_doubt,
        )

    def _place(self, item: Item, move: Send | Finish) -> None:
        if isinstance(move, Finish):
            self._settle(item, move)
            return
        item.send = move
        place = self._slots.ask(move.provider, item.lane, item)
        if self._switches.journal_before_token and place is not Place.FULL:
            self._journal.write(item.task.number, [item.entry(move, SEND)], _ignore)
        if place is Place.GRANTED:
            self._ready.append(item)
        elif place is Place.FULL:
            self._settle(item, item.progress.crowded(self._clock.now()))

    def _free(self, item: Item) -> None:
        assert item.send is not None
        self._ready.extend(self._slots.free(item.send.provider))

    # Requests out

    def _write_journal(self, tasks: Iterable[Task]) -> None:
        """One record per task and turn, for everything that holds turn and slot now."""
        sending: dict[Task, list[Item]] = {}
        if self._lease.left > LEASE_TO_JOURNAL_S:
            for _ in range(len(self._ready)):
                item = self._ready.popleft()
                if self._still_due(item) and self._made(item):
                    sending.setdefault(item.task, []).append(item)
        for task in tasks:
            items = sending.get(task, [])
            if not (items or task.notes):
                continue
            notes, task.notes = task.notes, []
            entries = notes + [item.entry(_send(item), SEND) for item in items]
            if self._switches.journal_before_token:
                entries = notes
            self._journal.write(task.number, entries, self._written(task, notes, items))

    def _still_due(self, item: Item) -> bool:
        """Looks again where time has passed since the stage was asked."""
        if self._clock.monotonic() - item.asked_at < STALE_S:
            return True
        held, move = _send(item), self._next(item)
        if isinstance(move, Send) and move.provider == held.provider:
            item.send = move
            return True
        self._free(item)
        self._place(item, move)
        return False

    def _made(self, item: Item) -> bool:
        """Builds the bytes, now that nothing stands before them but the journal."""
        try:
            item.request = item.progress.request()
        except Exception as error:
            log.exception("dispatch: a request to %s", _send(item).provider)
            move: Send | Finish = self._broken(item, error)
        else:
            if item.request is not None:
                return True
            move = self._next(item)
        self._free(item)
        self._place(item, move)
        return False

    def _written(
        self, task: Task, notes: list[JournalEntry], items: Sequence[Item]
    ) -> Callable[[bool], None]:
        def written(done: bool) -> None:
            if not done:
                # Nobody knows whether it is in the log: take it back, and try again.
                back = [item.entry(_send(item), NOT_SENT) for item in items]
                task.notes += notes + back
            elif items:
                self._on_step("after_journal")
            for item in items:
                if done and not item.dropped and item.request is not None:
                    item.journalled = True
                    self._jobs.append(Job(_send(item), item.request, lambda: task.live, item))
                elif task.live:
                    item.asked_at = 0.0
                    self._ready.append(item)
                else:
                    self._take_back(item)

        return written

    def _submit(self) -> None:
        if self._jobs:
            jobs, self._jobs = self._jobs, []
            self.sent += len(jobs)
            self._requests.submit(jobs)

    def _take_back(self, item: Item) -> None:
        """The request did not begin and will not: the successor decides anew."""
        item.task.notes.append(item.entry(_send(item), NOT_SENT))
        self._drop(item)
        self._free(item)

    def _collect(self) -> None:
        for job in self._requests.take():
            item: Item = job.owner
            if item.task.phase is Phase.GONE and not self._switches.poll_time_metadata:
                self._drop(item)
                self._free(item)
            elif isinstance(job.answer, Withheld):
                self.withheld += 1
                if item.task.live:
                    item.task.notes.append(item.entry(job.send, NOT_SENT))
                    item.asked_at = 0.0
                    self._ready.append(item)
                else:
                    self._take_back(item)
            else:
                self._answered(item, job)

    def _answered(self, item: Item, job: Job) -> None:
        assert job.answer is not None
        assert not isinstance(job.answer, Withheld)
        move: Send | Finish
        try:
            refused = item.progress.answered(
                job.answer, job.started_at, job.latency_ms, self._clock.now()
            )
        except Exception as error:
            log.exception("dispatch: an answer of %s", job.send.provider)
            refused, move = False, self._broken(item, error)
        else:
            move = self._next(item)
        if isinstance(move, Finish):
            self._free(item)
            self._settle(item, move)
            return
        if refused:
            item.task.notes.append(item.entry(job.send, NOT_SENT))
        if not item.task.live:
            self._drop(item)
            self._free(item)
        elif move.provider == job.send.provider:
            item.send = move
            self._ready.append(item)
        else:
            self._free(item)
            self._place(item, move)

    # Facts out

    def _settle(self, item: Item, move: Finish) -> None:
        try:
            outputs = self._encoded(move)
        except (ValueError, TypeError, KeyError) as error:
            outputs = self._encoded(self._broken(item, error))
        task = item.task
        if not item.journalled:
            task.notes.append(item.entry(_NO_REQUEST, SETTLED))
        self._settlement.add(task, item.part, item.record.offset, item.lane, outputs)
        self._drop(item)
        following = self._turns.leave(item.turn)
        if following is not None:
            self._todo.append(following)

    def _encoded(self, move: Finish) -> list[Encoded]:
        return [self._wire.encode(emit) for emit in move.answers]


def _send(item: Item) -> Send:
    assert item.send is not None
    return item.send


def _ignore(_written: bool) -> None:
    """Nobody waits for this record."""
