"""The bugs that `make faults MUTANT=name` plants, the guarantee that each breaks, and how a run must
look to bring it out. A run without the bug must pass the same plan."""

from dataclasses import dataclass, fields
from typing import Final

from pipeline.domain.switches import Switches


@dataclass(frozen=True, slots=True)
class Plan:
    """What happens in one run under load.

    `kills`, `terms`, `stops` and `joins` count per stage; `holds` per mode, spread over the
    transactional stages. `stop_s` is beyond the session. A `window_s` shorter than a recovery means
    sending again what has long been delivered, which is a load of its own. `special` names what
    only one mutant needs (special.py).
    """

    seconds: float
    rate: int = 200
    kill_stages: tuple[str, ...] = ()
    kills: int = 0
    term_stages: tuple[str, ...] = ()
    terms: int = 0
    stops: int = 0
    stop_s: float = 8.0
    join_stages: tuple[str, ...] = ()
    joins: int = 0
    hold_stages: tuple[str, ...] = ()
    silent: int = 0
    reset: int = 0
    replays: int = 0
    spoils: int = 0
    special: str = ""
    slots: int = 0  # of dispatch; 0: the configured number
    window_s: int = 4  # of every step
    repeats_allowed: int = 0
    judged: tuple[str, ...] = ()  # only these findings count; empty: all


TRANSACTIONAL: Final = ("accept", "fallback", "dispatch", "receipts")
STAGES: Final = (*TRANSACTIONAL, "sink", "gateway")

FULL: Final = Plan(
    seconds=900,
    window_s=10,
    kill_stages=STAGES,
    kills=20,
    term_stages=STAGES,
    terms=10,
    stops=3,
    join_stages=TRANSACTIONAL,
    joins=10,
    hold_stages=TRANSACTIONAL,
    silent=10,
    reset=10,
    spoils=10,
)

SHORT: Final = Plan(
    seconds=240,
    rate=40,
    kill_stages=STAGES,
    kills=1,
    term_stages=("fallback",),
    terms=1,
    stops=1,
    join_stages=("fallback",),
    joins=1,
    hold_stages=("accept", "dispatch"),
    silent=1,
    reset=1,
    spoils=1,
)

_PLAIN: Final = Plan(seconds=20, rate=100)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A planted bug."""

    name: str
    guarantee: str
    bug: str
    plan: Plan


MUTANTS: Final = {
    mutant.name: mutant
    for mutant in (
        Mutant("no_dedup", "G1", "a repeat of a message is opened again", _PLAIN),
        Mutant(
            "offset_too_far",
            "G1",
            "a commit claims one record more than was processed",
            Plan(seconds=30, rate=100, kill_stages=TRANSACTIONAL, kills=2),
        ),
        Mutant(
            "no_rewind",
            "G1",
            "after an abort the records are not read again",
            Plan(seconds=40, rate=100, hold_stages=("accept", "fallback", "receipts"), spoils=6),
        ),
        Mutant(
            "read_uncommitted",
            "G2",
            "readers see aborted records",
            Plan(
                seconds=60,
                kill_stages=("accept", "fallback"),
                kills=5,
                hold_stages=("accept", "fallback"),
                silent=2,
                reset=0,
            ),
        ),
        Mutant(
            "no_producer_rebuild",
            "G2",
            "a late EndTxn reaches the next transaction",
            Plan(seconds=60, rate=100, hold_stages=TRANSACTIONAL, reset=8),
        ),
        Mutant(
            "changelog_first",
            "G2",
            "state may be in the log without its outputs",
            Plan(
                seconds=60,
                rate=100,
                hold_stages=("fallback",),
                replays=6,
                # A transaction torn behind the client's back leaves outputs of a decision that is
                # taken anew, perhaps otherwise: what must hold is that nothing is lost by it.
                repeats_allowed=10_000,
                judged=("lost", "doubled", "pipeline audit", "rows in ClickHouse"),
            ),
        ),
        Mutant(
            "topics_by_assignor",
            "G1",
            "a task's topics come from different partitions",
            Plan(seconds=40, rate=100, join_stages=("fallback",), joins=1),
        ),
        Mutant(
            "last_stable_as_watermark",
            "G6",
            "a receipt in an open transaction is taken for silence",
            Plan(seconds=20, rate=20, special="open_receipt"),
        ),
        Mutant("random_message_id", "G2, G3", "a repeat is another message", _PLAIN),
        Mutant(
            "journal_before_token",
            "G3",
            "what was only queued counts as sent after a crash",
            Plan(seconds=40, rate=100, kill_stages=("dispatch",), kills=4, slots=4),
        ),
        Mutant(
            "poll_time_metadata",
            "G2",
            "dispatch commits under the generation of the poll",
            # Stopped beyond its session: what it still holds belongs to tasks that have moved.
            Plan(seconds=60, rate=100, join_stages=("dispatch",), joins=1, stops=3),
        ),
        Mutant("window_ignored", "G6", "the next step does not wait", _PLAIN),
        Mutant(
            "deadline_ignored",
            "G7",
            "sends go on after the deadline",
            Plan(seconds=30, rate=50, special="late_commands"),
        ),
        Mutant("status_may_go_back", "G5", "a later receipt overwrites a better status", _PLAIN),
    )
}


def names() -> list[str]:
    """Every switch there is, in the order of the product's list."""
    return [field.name for field in fields(Switches)]
