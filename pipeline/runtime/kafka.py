"""Clients for one cluster and one prefix, with the settings that the guarantees rest on."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

log = logging.getLogger(__name__)

RETRY_BACKOFF_MS: Final = 1_500
"""High, so that a retried EndTxn shows as elapsed time (transaction.py)."""

TRANSACTION_TIMEOUT_MS: Final = 8_000
SESSION_TIMEOUT_MS: Final = 6_000
HEARTBEAT_MS: Final = 500
FETCH_WAIT_MS: Final = 250
"""How long a broker may hold a fetch that finds nothing. New records end it at once; only a partition
that was assigned meanwhile waits for it. Lower costs the brokers a request per consumer each time."""


def _quiet(error: Any) -> None:
    """librdkafka reports every lost connection here; it reconnects by itself."""
    log.debug("kafka client: %s", error)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the topics live and what stands in front of their names.

    `security` holds librdkafka's own option names (security.protocol, sasl.*, ssl.*).
    """

    bootstrap: str
    prefix: str = "delivery."
    security: Mapping[str, str] = field(default_factory=dict)
    group_protocol: str = "classic"

    def real(self, topic: str) -> str:
        """The catalogue's name as the cluster knows it."""
        return self.prefix + topic

    def logical(self, topic: str) -> str:
        """The cluster's name as the catalogue knows it."""
        return topic.removeprefix(self.prefix)

    def group(self, stage: str) -> str:
        """The consumer group of a stage."""
        return self.prefix + stage

    def transactional_id(self, stage: str, slot: int) -> str:
        """Stable per stage and slot, so that a restart fences what its predecessor left open."""
        return f"{self.prefix}{stage}-{slot}"

    def _common(self) -> dict[str, Any]:
        return {
            "bootstrap.servers": self.bootstrap,
            "error_cb": _quiet,
            "log_level": 2,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 500,
            **self.security,
        }

    def producer(self, **options: Any) -> Producer:
        """An idempotent producer; options are librdkafka's with `_` for `.`."""
        return Producer(
            {
                **self._common(),
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 0,
                "compression.type": "lz4",
                **_dotted(options),
            }
        )

    def transactional(self, transactional_id: str) -> Producer:
        """A transactional producer, not yet initialised."""
        return self.producer(
            transactional_id=transactional_id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            message_timeout_ms=TRANSACTION_TIMEOUT_MS,
            retry_backoff_ms=RETRY_BACKOFF_MS,
            retry_backoff_max_ms=5_000,
        )

    def consumer(self, group: str, **options: Any) -> Consumer:
        """A consumer that commits nothing by itself and reads only what is committed."""
        return Consumer(
            {
                **self._common(),
                "group.id": group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "queued.min.messages": 2_000,
                "queued.max.messages.kbytes": 16_384,
                "fetch.wait.max.ms": FETCH_WAIT_MS,
                "fetch.error.backoff.ms": 50,
                "fetch.queue.backoff.ms": 10,
                **_dotted(options),
            }
        )

    def member(self, group: str, slot: int | None, **options: Any) -> Consumer:
        """A consumer that joins `group`, as the static member of `slot` when there is one."""
        if self.group_protocol == "consumer":
            options |= {"group_protocol": "consumer"}
        else:
            options |= {
                "partition_assignment_strategy": "cooperative-sticky",
                "session_timeout_ms": SESSION_TIMEOUT_MS,
                "heartbeat_interval_ms": HEARTBEAT_MS,
            }
        if slot is not None:
            options |= {"group_instance_id": f"{group}-{slot}"}
        return self.consumer(group, **options)

    def admin(self) -> AdminClient:
        """An admin client; keep it while an answer is out."""
        return AdminClient(self._common())


def _dotted(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "."): value for name, value in options.items()}
