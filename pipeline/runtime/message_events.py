"""A message's events from ClickHouse, for the HTTP API: a bounded question in a bounded time."""

import asyncio
import logging
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from pipeline.domain.message_status import Seen
from pipeline.domain.ports_api import StoreAway
from pipeline.runtime.clickhouse import Store, Unavailable

log = logging.getLogger(__name__)

THREADS: Final = 4
ANSWER_S: Final = 4
"""A worker has 10 s to stop, so nobody waits longer for ClickHouse."""

_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KINDS: Final = (
    "accepted", "rejected", "dispatched", "failed", "timed_out", "delivered", "read", "outcomes",
    "late_receipts",
)  # fmt: skip
# The order key of the table begins with tenant, kind and message: this reads a few granules. A
# caller may repeat a message without end, so nothing is unbounded.
_QUESTION: Final = """
SELECT kind, toUnixTimestamp64Milli(occurred_at), step, channel, provider, status, result,
    error_class, code, reason, toUnixTimestamp64Milli(retry_at), toUnixTimestamp64Milli(deadline),
    toFloat64(cost), currency
FROM events_unique
WHERE tenant = {tenant:String} AND kind IN {kinds:Array(String)} AND message_id = {id:String}
    AND NOT (kind = 'rejected' AND reason = 'duplicate')
ORDER BY occurred_at, _appended_at, kind
LIMIT 200 BY kind
"""


class MessageEvents:
    """Asks for one message at a time in each of a few threads. `url` may be empty: then nobody
    answers."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._mine = threading.local()
        self._threads = ThreadPoolExecutor(THREADS, "lookup")

    async def __call__(self, tenant: str, message_id: str) -> list[Seen]:
        """The message's events, by time; none when there is no such message.

        Raises:
            StoreAway: ClickHouse does not answer.
        """
        if not _ID.fullmatch(message_id):
            return []
        if not self._url:
            raise StoreAway("no ClickHouse is configured (CLICKHOUSE_URL)")
        asked = asyncio.get_running_loop().run_in_executor(
            self._threads, self._ask, tenant, message_id
        )
        try:
            async with asyncio.timeout(ANSWER_S):
                return await asked
        except TimeoutError:
            raise StoreAway(f"no answer within {ANSWER_S} s") from None
        except Unavailable as error:
            raise StoreAway(str(error)) from error

    def _ask(self, tenant: str, message_id: str) -> list[Seen]:
        store: Store | None = getattr(self._mine, "store", None)
        if store is None:
            store = self._mine.store = Store(self._url, answer_s=ANSWER_S)
        values = {"tenant": tenant, "kinds": list(_KINDS), "id": message_id}
        return [Seen(*row) for row in store.query(_QUESTION, values)]
