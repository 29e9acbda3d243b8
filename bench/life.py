"""The whole life of messages: every stage as a process, the simulated provider, ClickHouse."""

import time
import urllib.error
import urllib.request
from typing import Final

import orjson

from bench.figures import Figure, quantile
from bench.ground import Ground, wait_until
from bench.load import Record, blast, requests
from bench.stages import policy
from pipeline.local.ports import free_port
from pipeline.runtime.clickhouse import Store
from pipeline.runtime.kafka import Cluster
from pipeline.simulators.ledger import address_id, lines
from pipeline.stages.accept import read_phone

STAGES: Final = ("accept", "fallback", "dispatch", "receipts", "sink", "gateway")
SERVERS: Final = ("simulator", "kafka", "clickhouse")
RATE: Final = 500.0
IDLE_MS: Final = 40.0
IDLE_MESSAGES: Final = 100  # of each of two lanes, in turn
IDLE_EVERY_S: Final = 0.2
WARM_UP: Final = 1_000

_SCRIPT: Final = {
    "windows_s": {"sms": 600},
    "other_accounts": {"callback_batch": 20},
    "weights": [{"weights": {"delivers": 1}}],
    "receipt_s": [0.05, 0.2],
}


def life(world: Ground, size: int = 10_000) -> list[Figure]:
    """Messages a second from intake to the outcome's row, what each process used for one, and how
    long an idle pipeline takes to the provider's request."""
    running = Life(world)
    try:
        running.start()
        running.settle(requests(WARM_UP, new_people=True))
        names = (*STAGES, *SERVERS)
        used = {name: world.cpu_s(name) for name in names}
        seconds = running.settle(requests(size, new_people=True))
        cost = {name: (world.cpu_s(name) - used[name]) / size * 1e6 for name in names}
        wait_until(running.owes_nothing, "the last receipts")
        return [
            Figure("whole life", size / seconds, "messages/s", target=RATE),
            *(Figure(f"whole life: {name}", cost[name], "us/message") for name in names),
            Figure("whole life: all processes", sum(cost.values()), "us/message"),
            *running.idle(),
        ]
    finally:
        running.stop()


class Life:
    """The pipeline with one worker of each stage."""

    def __init__(self, world: Ground) -> None:
        self._world = world
        self._provider, self._gateway = free_port(), free_port()
        self._ledger = world.folder / "ledger.jsonl"
        self._cluster: Cluster = world.topics("life.")
        self._store = Store(world.database("life"))
        self._sent = 0

    def start(self) -> None:
        """Starts every process and waits until webhooks are taken."""
        world = self._world
        document = policy(f"http://127.0.0.1:{self._provider}/sms-a")
        environment = world.environment("life.", world.config("life", document), self._gateway)
        self._store.migrate()
        world.program(
            "simulator", "pipeline.commands.simulate", "generic", "--ledger", str(self._ledger),
            "--port", str(self._provider), "--script", str(world.config("script", _SCRIPT)),
            environment=environment,
        )  # fmt: skip
        for stage in STAGES:
            world.worker(stage, environment)
        wait_until(lambda: self._get(self._gateway, "/readyz") is not None, "the gateway")

    def stop(self) -> None:
        """Ends them."""
        self._store.close()
        self._world.end(*STAGES, "simulator")

    def settle(self, records: list[Record]) -> float:
        """Sends requests; the seconds until each has its outcome's row in ClickHouse."""
        began = time.monotonic()
        blast(self._world.producer, self._cluster.real("intake"), records)
        self._sent += len(records)

        def settled() -> bool:
            self._world.check()
            time.sleep(0.1)
            found = self._store.query(
                "SELECT count(), countIf(status = 'delivered') FROM events WHERE kind = 'outcomes'"
            )
            ((outcomes, delivered),) = found
            if outcomes != delivered:
                raise RuntimeError(f"only {delivered} of {outcomes} messages were delivered")
            return int(outcomes) >= self._sent

        wait_until(settled, f"{self._sent} outcomes in ClickHouse")
        return time.monotonic() - began

    def owes_nothing(self) -> bool:
        """Whether the provider has sent every receipt."""
        stats = self._get(self._provider, "/stats")
        return stats is not None and orjson.loads(stats)["pending_receipts"] == 0

    def idle(self) -> list[Figure]:
        """From the append of a request to its arrival at the provider, one at a time."""
        asked = {"urgent": IDLE_MESSAGES, "normal": IDLE_MESSAGES}
        records = {
            lane: requests(amount, new_people=True, priority=lane) for lane, amount in asked.items()
        }
        appended: dict[str, tuple[str, int]] = {}
        for pair in zip(*records.values(), strict=True):
            for lane, (key, value) in zip(records, pair, strict=True):
                self._append(lane, key, value, appended)
                time.sleep(IDLE_EVERY_S)
        wanted = len(appended)
        found: dict[str, list[int]] = {lane: [] for lane in asked}

        def arrived() -> bool:
            for took in found.values():
                took.clear()
            for line in lines(self._ledger):
                if line["what"] == "request" and line["address"] in appended:
                    lane, at = appended[line["address"]]
                    found[lane].append(line["at"] - at)
            return sum(map(len, found.values())) >= wanted

        wait_until(arrived, "the requests at the provider", 30)
        return [
            Figure(
                f"idle latency to the request, {lane}, {word}",
                quantile(took, share),
                "ms",
                target=IDLE_MS if word == "p50" else None,
                better="low",
            )
            for lane, took in found.items()
            for word, share in (("p50", 0.5), ("p95", 0.95))
        ]

    def _append(
        self, lane: str, key: bytes, value: bytes, appended: dict[str, tuple[str, int]]
    ) -> None:
        phone = read_phone(orjson.loads(value)["to"]["phone"], None)
        assert phone is not None
        address = address_id(phone.e164)
        self._world.producer.produce(
            self._cluster.real("intake"),
            value,
            key,
            on_delivery=lambda _, message: appended.update(
                {address: (lane, message.timestamp()[1])}
            ),
        )
        self._world.producer.flush(10)

    @staticmethod
    def _get(port: int, path: str) -> bytes | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=3) as answer:
                body: bytes = answer.read()
                return body
        except (urllib.error.URLError, OSError):
            return None
