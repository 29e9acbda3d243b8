"""The sink with nothing around it: no positions in the store, no tokens, no retries.

`python -m bench.bare_sink BOOTSTRAP PREFIX URL ROWS` reads `dispatched` and inserts batches of so
many rows.
"""

import sys
from typing import Any

import clickhouse_connect
from confluent_kafka import Message

from bench.plain import batches, consumer
from pipeline.domain.outcomes import Inbound
from pipeline.runtime.clickhouse import Store
from pipeline.runtime.codec import Codec
from pipeline.stages import sink

INSERT = {
    "async_insert": 0,
    "max_insert_block_size": 1 << 20,
    "min_insert_block_size_rows": 1 << 20,
    "min_insert_block_size_bytes": 1 << 30,
    "max_insert_threads": 1,
    "max_threads": 1,
}


def main() -> None:
    """Runs until SIGTERM."""
    bootstrap, prefix, url, size = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    Store(url).migrate()
    client = clickhouse_connect.get_client(dsn=url, autogenerate_session_id=False)
    names, types = list(sink.COLUMNS), list(sink.COLUMNS.values())
    codec = Codec()
    rows: list[tuple[Any, ...]] = []
    for messages in batches(consumer(bootstrap, prefix, ["dispatched"]), 5_000):
        rows += [_row(codec, message) for message in messages]
        while len(rows) >= size:
            context = client.create_insert_context(
                "events",
                column_names=names,
                column_type_names=types,
                column_oriented=True,
                data=list(zip(*rows[:size], strict=True)),
                settings=INSERT,
            )
            context.block_row_count = size
            client.insert(context=context)
            del rows[:size]


def _row(codec: Codec, message: Message) -> tuple[Any, ...]:
    record = Inbound(
        "dispatched",
        message.partition() or 0,
        message.offset() or 0,
        message.timestamp()[1],
        message.key(),
        codec.decode_as("Event", message.value()),
    )
    return sink.to_row(record, "topic")


if __name__ == "__main__":
    main()
