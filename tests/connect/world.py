"""The three stages that make an outcome of a request (accept, fallback, dispatch), as processes
under a prefix of their own, with a provider that takes everything."""

import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.domain import ids
from pipeline.local.supervisor import Supervisor
from pipeline.runtime.admin import Admin
from pipeline.runtime.codec import Codec
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.registry import Registry
from tests.broker.tiny_provider import TinyProvider

ROOT = Path(__file__).parents[2]
PEPPER = bytes(range(16))
STAGES = ("accept", "fallback", "dispatch")
PARTITIONS = 2

_PRIORITY = """{window: 60s, deadline: 10m, retry: {tries: 3, base: 200ms, cap: 1s},
  on_doubt: wait, command_ttl: 60s, blind_hold: 30s}"""
POLICY = f"""\
priorities:
  urgent: {_PRIORITY}
  normal: {_PRIORITY}
  bulk: {_PRIORITY}
default_route:
  - {{channel: sms, success: accepted}}
providers:
  sms-a:
    adapter: generic
    channel: sms
    base_url: http://127.0.0.1:PORT/sms-a
    honours_keys: true
"""


@dataclass
class Line:
    """A running pipeline. `environment` is what its workers find."""

    prefix: str
    environment: Mapping[str, str]
    supervisor: Supervisor
    logins: Mapping[str, Mapping[str, str]]

    def start(self, stage: str, release: Path = ROOT) -> None:
        """Starts the worker of a stage from a release's files."""
        self.supervisor.add(
            stage,
            [sys.executable, "-P", "-m", "pipeline", "run", stage],
            {**self.environment, **self.logins.get(stage, {}), "PYTHONPATH": str(release)},
        )

    def roll(self, stage: str, release: Path) -> None:
        """Stops the worker and starts the same slot from another release."""
        assert self.supervisor.remove(stage) == 0, self.log(stage)
        self.start(stage, release)

    def well(self) -> bool:
        """Whether no worker has ended by itself; fails with its last words when one has."""
        ended = [row.name for row in self.supervisor.status() if row.restarts]
        assert not ended, "\n".join(map(self.log, ended))
        return True

    def log(self, stage: str) -> str:
        return (self.supervisor.logs / f"{stage}.log").read_text()[-3000:]


@contextmanager
def line(
    folder: Path,
    bootstrap: str,
    prefix: str,
    registry: str = "",
    stages: Sequence[str] = STAGES,
    logins: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> Iterator[Line]:
    """A pipeline with one worker of each stage; `registry` is its address, `logins` what a stage
    finds in its environment besides."""
    cluster = Cluster(bootstrap, prefix)
    client = Registry(registry) if registry else None
    provider = TinyProvider().start()
    policy = folder / "pipeline.yaml"
    policy.write_text(POLICY.replace("PORT", str(provider.port)))
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        "PIPELINE_PREFIX": prefix,
        "PIPELINE_CONFIG": str(policy),
        "PIPELINE_DATA_DIR": str(folder / "data"),
        "PIPELINE_PEPPER": PEPPER.hex(),
        "PIPELINE_REFERENCE_KEYS": f"0:{bytes(range(32)).hex()}",
        "SCHEMA_REGISTRY_URL": registry,
    }
    supervisor = Supervisor(folder / "logs")
    found = Line(prefix, environment, supervisor, logins)
    try:
        codec = Codec(client, prefix)
        codec.start()
        admin = Admin(cluster, codec, ids.pepper_fingerprint(PEPPER), partitions=PARTITIONS)
        admin.apply(admin.plan())
        for stage in stages:
            found.start(stage)
        yield found
    finally:
        supervisor.stop()
        provider.stop()
        if client is not None:
            client.close()
        keeper = cluster.admin()
        names = [name for name in keeper.list_topics(timeout=10).topics if name.startswith(prefix)]
        for gone in keeper.delete_topics(names).values():
            gone.result(20)


def rows(numbers: range) -> str:
    """A request a line, each with a key and a person of its own."""
    return "".join(json.dumps(request(number)) + "\n" for number in numbers)


def request(number: int) -> dict[str, Any]:
    return {
        "to": {"phone": phone(number)},
        "content": {"text": f"Parcel {number} is on its way\nand comes today"},
        "idempotency_key": f"row-{number}",
    }


def phone(number: int) -> str:
    return f"+49151{number:08d}"


def message_ids(numbers: range) -> set[str]:
    """What the messages of these rows are called, by the rules of domain/ids.py alone."""
    return {
        ids.message_id(
            "default",
            ids.recipient_key(PEPPER, "default", "phone", phone(number)),
            f"row-{number}",
        )
        for number in numbers
    }


def next_release(folder: Path, field: Mapping[str, Any], *records: str) -> Path:
    """This release with one more field in some records' schemas: what an upgrade brings."""
    for part in ("pipeline", "schemas", "deploy"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "topics.yaml", folder)
    for record in records:
        path = folder / "schemas" / record
        schema = json.loads(path.read_text(encoding="utf-8"))
        schema["fields"].append(dict(field))
        path.write_text(json.dumps(schema), encoding="utf-8")
    return folder
