"""`make bench`: the table, `build/bench.json`, and exit status 1 when a target is missed.

`make bench ARGS="accept life"` measures only these.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Final

from bench import stages
from bench.figures import Figure, show, write
from bench.ground import ground
from bench.life import life

PARTS: Final = {
    "accept": stages.accept,
    "dispatch": stages.dispatch,
    "sink": stages.sink,
    "life": life,
}
RESULT: Final = Path("build/bench.json")


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    names = parser.parse_args().parts or list(PARTS)
    began = time.monotonic()
    busy = os.getloadavg()[0]
    if busy > 0.5:
        print(f"this machine is busy (load {busy:.1f}): ratios mean more than figures today")
    found: list[Figure] = []
    with ground() as world:
        for name in names:
            print(f"measuring {name} ...", flush=True)
            measured = PARTS[name](world)
            show(measured, name)
            found += measured
            write(found, RESULT)
    show(found, f"all, in {time.monotonic() - began:.0f} s; written to {RESULT}")
    missed = [one.name for one in found if not one.ok]
    if missed:
        print(f"missed: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
