"""Fakes for tests: a log, a clock, a state and drivers that run real stages in memory.

They keep the promises of the real ones (`tests/contracts/` holds both to one suite): transactions
that show all or nothing, readers that see only what is committed, state that is rebuilt from its
changelog, timers that are never early. Faults are items of the input:

    world.play([Input("callbacks", None, callback), Crash(), Repeat(), MovePartition()])

and a test reads: play, play with faults, compare.
"""

from pipeline.testing.memory import (
    START_MS,
    ManualClock,
    MemoryLog,
    MemoryState,
    murmur2,
    partition_of,
)
from pipeline.testing.world import (
    Actor,
    Advance,
    Crash,
    Driver,
    Input,
    Item,
    MovePartition,
    Repeat,
    Settle,
    StatelessDriver,
    StatelessStage,
    StrayAnswer,
    StuckTimer,
    World,
)

__all__ = [
    "START_MS",
    "Actor",
    "Advance",
    "Crash",
    "Driver",
    "Input",
    "Item",
    "ManualClock",
    "MemoryLog",
    "MemoryState",
    "MovePartition",
    "Repeat",
    "Settle",
    "StatelessDriver",
    "StatelessStage",
    "StrayAnswer",
    "StuckTimer",
    "World",
    "murmur2",
    "partition_of",
]
