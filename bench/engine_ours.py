"""Our transactional loop with a stage that only decodes and encodes:
`python -m bench.engine_ours BOOTSTRAP PREFIX INPUT OUTPUT`."""

import signal
import sys
import threading

from pipeline.domain.outcomes import Answer, Emit, Inbound
from pipeline.runtime.clock import BrokerClock
from pipeline.runtime.codec import Codec
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.stateless import Intake, StatelessWorker
from pipeline.runtime.wire import Wire


def main() -> None:
    """Runs until SIGTERM."""
    bootstrap, prefix, source, target = sys.argv[1:5]
    cluster, codec = Cluster(bootstrap, prefix), Codec()

    def answer(record: Inbound) -> list[Answer]:
        value = codec.decode_as("Message", record.value)
        return [Emit(target, value["recipient_key"], value)]

    def crashed(record: Inbound, detail: str) -> list[Answer]:
        raise RuntimeError(f"{record.topic}[{record.partition}]@{record.offset}: {detail}")

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    intakes = [Intake("sink", (source,), 15)]
    wire = Wire(cluster, codec)
    StatelessWorker(cluster, wire, "engine", answer, crashed, 0, BrokerClock(), intakes).run(stop)


if __name__ == "__main__":
    main()
