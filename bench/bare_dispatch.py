"""Dispatch with nothing around it: no journal, no lease, no turns, no transactions.

`python -m bench.bare_dispatch BOOTSTRAP PREFIX PROVIDER_URL IN_FLIGHT` reads `send.sms.normal`,
makes the same requests through aiohttp with as many in flight, and writes `dispatched`.
"""

import asyncio
import sys
import time
from collections import deque

import aiohttp
from confluent_kafka import Message

from bench.ground import REFERENCE_KEY
from bench.plain import consumer, producer
from pipeline.channels import render
from pipeline.domain import ids, reference
from pipeline.domain.drafts import blank_event
from pipeline.domain.ports import Account, Delivery, HttpReply
from pipeline.providers import PROVIDERS
from pipeline.runtime.codec import Codec


async def work() -> None:
    """Runs until SIGTERM."""
    bootstrap, prefix, url, in_flight = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    account = Account("sms-a", "generic", "sms", url, cost=0.032)
    adapter = PROVIDERS["generic"]
    codec = Codec()
    source, into = consumer(bootstrap, prefix, ["send.sms.normal"]), producer(bootstrap)
    topic = f"{prefix}dispatched"
    waiting: deque[Message] = deque()

    def more() -> bool:
        into.poll(0)
        waiting.extend(m for m in source.consume(500, 0) if m.error() is None)
        return bool(waiting)

    async def one(session: aiohttp.ClientSession, message: Message) -> None:
        command = codec.decode_as("Command", message.value())
        rendered = render(command["channel"], command["content"])
        named = reference.Named(
            command["tenant"], command["message_id"], command["recipient_key"], command["step"]
        )
        key = ids.idempotency_key(command["message_id"], command["step"], command["key_no"])
        request = adapter.build(
            account,
            Delivery(
                address=command["address"],
                text=rendered.text,
                subject=rendered.subject,
                html=rendered.html,
                reference=reference.make(named, 0, REFERENCE_KEY),
                idempotency_key=key,
                valid_for_ms=command["window_ms"],
            ),
        )
        started_at, started = int(time.time() * 1000), time.monotonic()
        async with session.request(
            request.method, request.url, headers=request.headers, data=request.body
        ) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            answer = HttpReply(response.status, headers, await response.read())
        reply = adapter.read_reply(account, answer)
        latency = int((time.monotonic() - started) * 1000)
        event = blank_event(
            ids.event_id(
                command["message_id"], command["step"], command["try_no"], "sms-a", "dispatched", ""
            ),
            "dispatched",
            command["tenant"],
            command["message_id"],
            command["recipient_key"],
        )
        event["command_id"], event["try_no"] = command["command_id"], command["try_no"]
        event["occurred_at"], event["accepted_at"] = started_at, command["accepted_at"]
        event["channel"], event["provider"] = command["channel"], "sms-a"
        event["country"], event["priority"] = command["country"], command["priority"]
        event["category"], event["origin"] = command["category"], "dispatch"
        event["result"], event["latency_ms"] = reply.result.value, latency
        event["cost"], event["currency"] = account.cost, account.currency
        event["provider_message_id"] = reply.provider_message_id
        event["source"] = {
            "topic": "send.sms.normal",
            "partition": message.partition() or 0,
            "offset": message.offset() or 0,
        }
        event["attempts"] = [
            {
                "attempt_id": ids.attempt_id(command["command_id"], "sms-a"),
                "provider": "sms-a",
                "requests": 1,
                "started_at": started_at,
                "latency_ms": latency,
                "result": reply.result.value,
                "error_class": None,
                "code": None,
                "provider_message_id": reply.provider_message_id,
                "cost": account.cost,
                "currency": account.currency,
                "in_doubt": False,
                "resent": False,
            }
        ]
        into.produce(topic, codec.encode("Event", event), command["recipient_key"].encode())

    async def worker(session: aiohttp.ClientSession) -> None:
        while True:
            if waiting or more():
                await one(session, waiting.popleft())
            else:
                await asyncio.sleep(0.005)

    connector = aiohttp.TCPConnector(limit=in_flight)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(worker(session) for _ in range(in_flight)))


if __name__ == "__main__":
    asyncio.run(work())
