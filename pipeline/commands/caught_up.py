"""Whether the sink has stored what stands in its topics."""

import time
from collections.abc import Callable, Mapping
from typing import Final

from pipeline.runtime.reader import Place, Range, Reader

_POLL_S: Final = 0.2


def await_sink(
    reader: Reader,
    ranges: Mapping[Place, Range],
    wait_s: float,
    say: Callable[[str], None] = lambda _: None,
) -> dict[Place, int]:
    """Waits until the sink has stored the ranges, `wait_s` at most; how many offsets it has still
    to go, by place. `say` is told now and then.

    Raises:
        Unreachable
    """
    until = time.monotonic() + wait_s
    places = [place for place, (low, end) in ranges.items() if low < end]
    while True:
        at = reader.committed("sink", places)
        behind = {place: ranges[place][1] - at[place] for place in places}
        behind = {place: left for place, left in behind.items() if left > 0}
        if not behind or time.monotonic() > until:
            return behind
        say(f"waiting for the sink: {sum(behind.values())} offsets to go")
        time.sleep(_POLL_S)
