"""Requests that carry what must be found nowhere, and the search for it."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson

from pipeline.commands.fleet import Fleet
from pipeline.runtime.clickhouse import Store
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.reader import Reader
from pipeline.simulators.people import Asked
from pipeline.topology import CATALOGUE

PHONE: Final = "+4915799881234"
EMAIL: Final = "canary.k7q@birds.example"
TEXT: Final = "yellow-feathers-k7q in a coal mine"
SECRET: Final = "canary-secret-k7q"

COLLECTED: Final = 1_000_000
"""Numbers of these requests begin here, behind those of any run."""


def requests() -> list[Asked]:
    """Good ones over every channel, and malformed ones with the canary in every place."""
    to = {"phone": PHONE, "email": EMAIL}
    content = {"text": TEXT, "subject": TEXT, "html": f"<p>{TEXT}</p>"}
    good: list[dict[str, Any]] = [
        {
            "to": to,
            "content": content,
            "route": [{"channel": channel}, {"channel": "sms"}, {"channel": "email"}],
            "priority": priority,
            "idempotency_key": f"{SECRET}-{channel}-{priority}",
        }
        for channel in ("whatsapp", "voice", "sms", "email")
        for priority in ("urgent", "normal")
    ]
    spoilt: list[dict[str, Any]] = [
        {"to": {"phone": PHONE + "9999"}, "content": content},
        {"to": {"email": EMAIL + "@" + EMAIL}, "content": content},
        {"to": to, "content": {"text": 3, "subject": TEXT}},
        {"to": to, "content": content, "route": [{"channel": TEXT}]},
        {"to": to, "content": content, "priority": SECRET},
        {"to": to, "content": content, TEXT: SECRET},
        {"to": TEXT, "content": content},
    ]
    values = [orjson.dumps(one) for one in (*good, *good[:2], *spoilt)]
    values += [b'{"to": {"phone": "' + PHONE.encode(), TEXT.encode(), SECRET.encode() * 9]
    return [
        Asked(COLLECTED + number, "canary", "intake", PHONE.encode(), value, None)
        for number, value in enumerate(values)
    ]


def needles(*secrets: str) -> list[bytes]:
    """What to look for; base64 as well, in which bytes may hide in JSON."""
    plain = [PHONE[1:], EMAIL, TEXT, SECRET, *secrets]
    found = [text.encode() for text in plain]
    # The middle of each in base64, whatever stands around it.
    return found + [base64.b64encode(text)[4:-4] for text in found if len(text) > 12]


def traces(runs: Fleet) -> Iterator[str]:
    """Every place where a canary or one of the pipeline's own secrets stands and must not."""
    settings = runs.settings
    assert runs.simulation is not None
    secrets = [
        settings.pepper.get_secret_value(),
        settings.reference_keys.get_secret_value().partition(":")[2],
        runs.simulation.secret.removeprefix("whsec_"),
    ]
    wanted = needles(*secrets)
    yield from _in_topics(settings.bootstrap, settings.prefix, wanted, needles(*secrets)[4:])
    yield from _in_logs(settings.data_dir, wanted)
    store = Store(settings.clickhouse_url.get_secret_value())
    for table in ("events", "messages"):
        rows = store.read(f"SELECT * FROM {table}", "JSONEachRow")
        assert rows
        yield from (f"ClickHouse, {table}: {one!r}" for one in wanted if one in rows)
    store.close()


def _in_topics(
    bootstrap: str, prefix: str, wanted: list[bytes], secrets: list[bytes]
) -> Iterator[str]:
    """Content may stand in topics that are marked for it, but not in their headers; secrets may
    stand nowhere."""
    content = {topic.name: topic.content for topic in CATALOGUE}
    with Reader(Cluster(bootstrap, prefix)) as reader:
        for record in reader.read(reader.ranges(content)):
            headers = b"".join(name.encode() + b"=" + value for name, value in record.headers)
            body = (record.key or b"") + b"\0" + (record.value or b"")
            for one in wanted:
                if one in headers or (one in body and not content[record.topic]):
                    yield f"{record.topic}[{record.partition}]@{record.offset}: {one!r}"
            for one in secrets:
                if one in body:
                    yield f"{record.topic}[{record.partition}]@{record.offset}: {one!r}"


def _in_logs(folder: Path, wanted: list[bytes]) -> Iterator[str]:
    logs = folder / "logs"
    files = [*logs.glob("*"), folder / "kafka" / "kafka.log", folder / "clickhouse/clickhouse.log"]
    names = {path.name for path in files}
    assert {"accept-0.log", "gateway-1.log", "sink-0.log", "simulator.log"} <= names, names
    for path in files:
        text = path.read_bytes()
        yield from (f"{path}: {one!r}" for one in wanted if one in text)
