"""Accept with nothing around it: no groups of tasks, no transactions, no rules about requests.

`python -m bench.bare_accept BOOTSTRAP PREFIX` reads `intake` and writes `accepted.<lane>`.
"""

import sys
from typing import Final

import orjson

from bench.load import PEPPER, TENANT
from bench.plain import batches, consumer, producer
from pipeline.domain import ids
from pipeline.runtime.codec import Codec
from pipeline.stages.accept import read_phone

DEADLINE_MS: Final = 3_600_000


def main() -> None:
    """Runs until SIGTERM."""
    bootstrap, prefix = sys.argv[1:3]
    codec = Codec()
    into = producer(bootstrap)
    topics = {lane: f"{prefix}accepted.{lane}" for lane in ("urgent", "normal", "bulk")}
    for messages in batches(consumer(bootstrap, prefix, ["intake"])):
        for message in messages:
            request = orjson.loads(message.value() or b"")
            at = message.timestamp()[1]
            to, content = request["to"], request["content"]
            phone = read_phone(to["phone"], None)
            assert phone is not None
            recipient = ids.recipient_key(PEPPER, TENANT, "phone", phone.e164)
            key = request["idempotency_key"]
            value = {
                "record_version": 1,
                "tenant": TENANT,
                "message_id": ids.message_id(TENANT, recipient, key),
                "recipient_key": recipient,
                "idempotency_hash": ids.idempotency_hash(PEPPER, TENANT, key),
                "source": {
                    "topic": "intake",
                    "partition": message.partition(),
                    "offset": message.offset(),
                },
                "accepted_at": at,
                "priority": request["priority"],
                "category": request["category"],
                "campaign": None,
                "labels": request["labels"],
                "to": {
                    "id": None,
                    "phone": phone.e164,
                    "email": to["email"].strip().lower(),
                    "country": None,
                },
                "country": phone.country,
                "content": {"text": content["text"], "subject": content["subject"], "html": None},
                "route": None,
                "deadline": at + DEADLINE_MS,
                "sequence": None,
                "on_doubt": "wait",
                "replay_of": None,
            }
            into.produce(
                topics[request["priority"]], codec.encode("Message", value), recipient.encode()
            )
        into.poll(0)


if __name__ == "__main__":
    main()
