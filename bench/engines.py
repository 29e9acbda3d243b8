"""The stream engines on the path of messages: decode, re-encode, produce, commit exactly once.

`python -m bench.engines` runs our transactional loop and Faust (exactly once) in turn over the same
records on the same broker; docs/decisions/0001 has what came out.
"""

import sys
from typing import Final

from bench.figures import Figure, show
from bench.ground import Ground, Watcher, ground, timed
from bench.load import messages

ROUNDS: Final = 3
SIZES: Final = {"ours": 20_000, "faust": 4_000}
INPUT: Final = "accepted.normal"
OUTPUT: Final = "accepted.bulk"


def engines(world: Ground) -> list[Figure]:
    """Messages a second and processor time a message of both."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in SIZES}
    sides = {}
    try:
        for name in SIZES:
            cluster = world.topics(f"{name}.")
            sides[name] = (cluster, Watcher(world, cluster, [OUTPUT]))
            argv = (world.kafka.bootstrap, cluster.prefix, INPUT, OUTPUT)
            world.program(name, f"bench.engine_{name}", *argv)
            timed(world, *sides[name][:1], INPUT, messages(world.codec, 1_000), sides[name][1])
        for _ in range(ROUNDS):
            for name, (cluster, watcher) in sides.items():
                used, size = world.cpu_s(name), SIZES[name]
                speed = timed(world, cluster, INPUT, messages(world.codec, size), watcher)
                found[name].append((speed, (world.cpu_s(name) - used) / size * 1e6))
    finally:
        for _, watcher in sides.values():
            watcher.close()
        world.end(*SIZES)
    figures = []
    for name, rounds in found.items():
        speeds, costs = zip(*sorted(rounds), strict=True)
        figures.append(Figure(name, speeds[ROUNDS // 2], "messages/s"))
        figures.append(Figure(f"{name}: processor", sorted(costs)[ROUNDS // 2], "us/message"))
    return figures


def main() -> int:
    """Prints the table."""
    with ground() as world:
        show(engines(world), "exactly once: decode, re-encode, produce, commit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
