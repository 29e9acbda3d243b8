"""What a dispatch worker holds: its tasks, and the commands that are under way in them."""

from dataclasses import dataclass, field
from enum import Enum

from pipeline.domain.attempts import Attempts
from pipeline.domain.completion import Completion
from pipeline.domain.outcomes import Inbound
from pipeline.domain.ports import HttpRequest
from pipeline.domain.ports_dispatch import Progress, Send
from pipeline.domain.records import JournalEntry

Part = tuple[str, int]


class Phase(Enum):
    """How far a task is ours."""

    ASSIGNED = "assigned"
    WAITING = "waiting"  # for the lease of its last owner
    READING = "reading"  # its journal
    CLAIMING = "claiming"  # the next commit says that it is ours
    LIVE = "live"
    DRAINING = "draining"  # it goes to somebody else: begin nothing, finish what runs
    GONE = "gone"


@dataclass(slots=True, eq=False)
class Task:
    """One partition number of every topic. `parts` are the topics' partitions by the cluster's
    names; `notes` are journal entries to be written with the next turn."""

    number: int
    phase: Phase = Phase.ASSIGNED
    ready_at: int = 0
    lead_offset: int = 0
    attempts: Attempts = field(default_factory=Attempts)
    parts: dict[Part, Completion] = field(default_factory=dict)
    notes: list[JournalEntry] = field(default_factory=list)
    held: int = 0

    @property
    def live(self) -> bool:
        """Whether requests of this task may begin."""
        return self.phase is Phase.LIVE

    @property
    def ours(self) -> bool:
        """Whether results of this task may be committed."""
        return self.phase in (Phase.CLAIMING, Phase.LIVE, Phase.DRAINING)


@dataclass(slots=True, eq=False)
class Item:
    """One command under way. `send` is what is next or running, `request` its bytes; `asked_at` when
    the stage was asked for it (monotonic seconds)."""

    record: Inbound
    task: Task
    part: Part
    lane: str
    progress: Progress
    turn: tuple[str, str]
    journalled: bool = False
    send: Send | None = None
    request: HttpRequest | None = None
    asked_at: float = 0.0
    dropped: bool = False

    def entry(self, send: Send, kind: str) -> JournalEntry:
        """What the journal says of one request for it."""
        return {
            "command_id": self.progress.command["command_id"],
            "attempt_id": send.attempt_id,
            "provider": send.provider,
            "key_no": send.key_no,
            "topic": self.record.topic,
            "partition": self.record.partition,
            "offset": self.record.offset,
            "kind": kind,
        }
