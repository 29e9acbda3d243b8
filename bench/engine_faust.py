"""The same work as a Faust agent, exactly once:
`python -m bench.engine_faust BOOTSTRAP PREFIX INPUT OUTPUT`."""

import sys
import tempfile
from typing import Any

from pipeline.runtime.codec import Codec


def main() -> None:
    """Runs until SIGTERM."""
    import faust

    bootstrap, prefix, source, target = sys.argv[1:5]
    codec = Codec()
    app = faust.App(
        f"{prefix}engine",
        broker=f"kafka://{bootstrap}",
        store="memory://",
        processing_guarantee="exactly_once",
        consumer_auto_offset_reset="earliest",
        topic_disable_leader=True,
        web_enabled=False,
        datadir=tempfile.mkdtemp(prefix="faust-"),
    )
    into = app.topic(prefix + target, value_serializer="raw", key_serializer="raw", partitions=8)

    @app.agent(
        app.topic(prefix + source, value_serializer="raw", key_serializer="raw", partitions=8)
    )
    async def work(stream: Any) -> None:
        async for raw in stream:
            value = codec.decode_as("Message", raw)
            await into.send(
                key=value["recipient_key"].encode(), value=codec.encode("Message", value)
            )

    app.finalize()
    worker = faust.Worker(app, loglevel="WARN", daemon=True)
    worker.execute_from_commandline()


if __name__ == "__main__":
    main()
