"""One dispatch worker in a process of its own, which kills itself at a named step."""

import json
import os
import signal
import sys
import threading
import time

from pipeline.runtime.kafka import Cluster
from tests.broker.dispatch_world import account, make_worker


def main() -> None:
    given = json.loads(sys.argv[1])
    seen = 0

    def step(name: str) -> None:
        nonlocal seen
        if name == given["die_at"]:
            seen += 1
            if seen >= given["nth"]:
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    cluster = Cluster(given["bootstrap"], given["prefix"])
    accounts = [account("a", given["port"], keys=given["keys"])]
    make_worker(cluster, accounts, given["slot"], on_step=step).run(stop)


if __name__ == "__main__":
    main()
