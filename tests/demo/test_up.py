"""`pipeline up` in one terminal, any Kafka client and the other commands in another."""

import json
import os
import secrets
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from pipeline.commands.demo_run import Tally
from pipeline.commands.send import FOLLOWED
from pipeline.domain import tracing
from pipeline.runtime.clickhouse import Store
from pipeline.runtime.codec import Codec
from pipeline.runtime.follow import Follower
from pipeline.runtime.kafka import Cluster
from pipeline.settings import Settings, load_settings
from pipeline.simulators.people import Asked, Mix, requests
from pipeline.stages.sink import kind_of
from tests.demo import processes
from tests.otlp_receiver import Receiver, Told, receiving
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
PORTS = ("--kafka-port", "0", "--port", "0", "--clickhouse-port", "0", "--simulator-port", "0")


def start(folder: Path, *words: str, **more: str) -> "subprocess.Popen[str]":
    with (folder / "up.out").open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", "up", *words],
            env=environment(folder, **more),
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )


def environment(folder: Path, **more: str) -> dict[str, str]:
    """What a newcomer has: nothing but a place for the data."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("KAFKA_", "CLICKHOUSE_"))}
    return {**kept, "PIPELINE_DATA_DIR": str(folder / "data"), **more}


@pytest.fixture(scope="module")
def collector() -> Iterator[Receiver]:
    """Where the running pipeline sends its traces: of one message in fifty, and of all that ask."""
    with receiving() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, collector: Receiver) -> Iterator[Path]:
    """A running pipeline's folder."""
    place = tmp_path_factory.mktemp("up")
    to_us = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_TRACES_SAMPLER_ARG": "0.02",
        "PIPELINE_ATTEMPT_LOG": "on",
    }
    program = start(place, *PORTS, **to_us)
    try:
        until(lambda: program.poll() is not None or said(place, "Running;"), 180)
        assert program.poll() is None, (place / "up.out").read_text()
        yield place
        program.send_signal(signal.SIGTERM)
        assert program.wait(60) == 0
        assert said(place, "Stopped; nothing is left running.")
        assert processes.of(place) == {}
        assert not (place / "data" / "running.env").exists()
    finally:
        if program.poll() is None:
            program.kill()
            program.wait()


def said(folder: Path, words: str) -> bool:
    return words in (folder / "up.out").read_text()


@pytest.fixture
def settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """As another terminal finds them."""
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "CLICKHOUSE_URL"):
        monkeypatch.delenv(name, raising=False)
    return load_settings(data_dir=folder / "data")


def pipeline(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *words],
        env=environment(folder),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_it_says_where_everything_is_and_what_to_try(folder: Path, settings: Settings):
    shown = (folder / "up.out").read_text()
    for words in (settings.bootstrap, "pipeline send", "pipeline audit", "simulated, at http"):
        assert words in shown


def test_a_message_can_be_sent_and_followed(folder: Path):
    found = pipeline(
        folder, "send", "--to", "+4915112345678", "--text", "Hello", "--priority", "urgent",
        "--wait", "--timeout", "90", "--json",
    )  # fmt: skip
    assert found.returncode in {0, 1}, found.stderr
    told = json.loads(found.stdout)
    assert told["status"] in {"delivered", "failed"}
    assert told["message_id"]
    assert told["events"][0]["event"] == "accepted"
    assert told["events"][-1]["event"] == "outcomes"


def test_every_worker_is_ready_and_shows_its_metrics_where_the_data_directory_says(
    folder: Path, settings: Settings
):
    """Six stages of two workers, each with a port of its own; and nobody's address in any of them."""
    files = sorted((folder / "data" / "metrics").glob("*.json"))
    assert len(files) == 12
    targets = {file.stem: json.loads(file.read_text())[0]["targets"][0] for file in files}
    for name, target in targets.items():
        assert get(f"http://{target}/healthz") == (200, "ok\n"), name
        assert until(lambda at=target: get(f"http://{at}/readyz") == (200, "ready\n"), 20), name
    ask(settings, {"to": {"phone": "+4915112345691"}, "content": {"text": "CANARY"}})
    counted = (
        "accept delivery_events_total",
        "fallback delivery_outcomes_total",
        "dispatch delivery_attempt_seconds_count",
        "receipts delivery_transactions_total",
        "sink delivery_rows_total",
        "gateway delivery_callbacks_total",
    )
    until(lambda: all(shown(targets).get(name, 0) >= 1 for name in counted), 60)
    assert "fallback delivery_lag" in shown(targets)
    texts = " ".join(get(f"http://{target}/metrics")[1] for target in targets.values())
    assert "15112345691" not in texts
    assert "CANARY" not in texts


def shown(targets: dict[str, str]) -> dict[str, float]:
    """Every metric by stage and name, summed over workers and labels."""
    found: dict[str, float] = {}
    for name, target in targets.items():
        stage = name.rpartition("-")[0]
        for line in get(f"http://{target}/metrics")[1].splitlines():
            if not line.startswith("#"):
                assert f'stage="{stage}"' in line
                key = f"{stage} {line.split('{')[0]}"
                found[key] = found.get(key, 0) + float(line.rpartition(" ")[2])
    return found


def ask(settings: Settings, request: dict[str, object], *headers: tuple[str, bytes]) -> None:
    """A request as any Kafka client writes it."""
    producer = Producer({"bootstrap.servers": settings.bootstrap})
    topic = f"{settings.prefix}intake"
    producer.produce(topic, json.dumps(request).encode(), b"k", headers=list(headers))
    assert producer.flush(20) == 0


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_traced_message_is_one_tree_at_the_collector(
    folder: Path, settings: Settings, collector: Receiver
):
    """Sent by any Kafka client with a traceparent: every hop of every stage hangs on its span."""
    trace, caller = secrets.token_hex(16), secrets.token_hex(8)
    asked = {"to": {"phone": "+4915112345690"}, "content": {"text": "CANARY"}, "priority": "urgent"}
    ask(settings, asked, ("traceparent", f"00-{trace}-{caller}-01".encode()))

    def whole() -> dict[str, Told]:
        found = collector.trace(trace)
        return found if "message" in {span.name for span in found.values()} else {}

    found = until(whole, 60)
    until(lambda: "POST" in {span.name for span in collector.trace(trace).values()}, 10)
    found = until(lambda: hang_together(collector.trace(trace), caller), 10)
    stages = {span.resource["delivery.stage"] for span in found.values()}
    assert stages >= {"accept", "fallback", "dispatch"}
    (first,) = [span for span in found.values() if span.parent_id == caller]
    assert first.name == "process intake"
    assert "CANARY" not in str(collector.spans)
    assert "15112345690" not in str(collector.spans)
    posts = {span.span_id for span in found.values() if span.name == "POST"}

    def logged() -> set[str]:
        lines = [line for line in attempt_lines(folder) if line["trace_id"] == trace]
        return {tracing.span_of(line["attempt_id"]) for line in lines}

    assert posts
    until(lambda: logged() >= posts, 10)
    until(lambda: {m.name for m in collector.metrics} >= {"delivery.events", "delivery.lag"}, 30)


def attempt_lines(folder: Path) -> list[dict[str, str]]:
    """The wide lines of both dispatchers."""
    texts = [path.read_text() for path in (folder / "data" / "logs").glob("dispatch-*.log")]
    lines = [json.loads(line) for text in texts for line in text.splitlines()]
    return [line for line in lines if line["logger"] == "pipeline.attempt"]


def hang_together(found: dict[str, Told], root: str) -> dict[str, Told]:
    """The spans, when each has its parent among them or hangs on `root`; else none yet."""
    whole = all(span.parent_id == root or span.parent_id in found for span in found.values())
    return found if whole else {}


def test_a_mistake_is_told_with_its_field(folder: Path):
    found = pipeline(folder, "send", "--to", "+4912", "--text", "x", "--wait", "--json")
    assert found.returncode == 1
    told = json.loads(found.stdout)
    assert told["status"] == "rejected"
    assert told["events"][-1]["field"] == "to.phone"


def test_every_request_ends_once_and_the_books_show_one_missing_row(
    folder: Path, settings: Settings
):
    asked = list(requests(5, 250, Mix(malformed=0.1, repeats=0.13, keyless=0.5)))
    answered = play(settings, asked)
    for one in asked:
        (said_of_it,) = answered[one.number]
        topic, value = said_of_it
        if one.kind == "good":
            assert topic == "outcomes", one
        elif one.kind == "repeat":
            assert (topic, value["reason"]) == ("rejected", "duplicate"), one
        else:
            assert (topic, value["field"]) == ("rejected", one.field), one
    audit = pipeline(folder, "audit", "--full", "--json")
    assert audit.returncode == 0, audit.stdout + audit.stderr
    assert json.loads(audit.stdout)["balanced"] is True
    store = Store(settings.clickhouse_url.get_secret_value())
    ((name,),) = store.query("SELECT any(event_id) FROM events WHERE kind = 'outcomes'")
    store.command("DELETE FROM events WHERE event_id = {name:String}", {"name": name})
    store.close()
    audit = pipeline(folder, "audit", "--wait", "1", "--json")
    assert audit.returncode == 1
    assert name in audit.stdout


def play(settings: Settings, asked: list[Asked]) -> dict[int, list[tuple[str, dict[str, str]]]]:
    """Sends with a plain client; returns the final words on each request by its number."""
    cluster, codec = Cluster(settings.bootstrap, settings.prefix), Codec(None, settings.prefix)
    tally = Tally(len(asked))
    words: dict[int, list[tuple[str, dict[str, str]]]] = {one.number: [] for one in asked}
    owners: dict[str, int] = {}
    outcomes: dict[str, dict[str, str]] = {}
    refused: set[int] = set()
    with Follower(cluster, FOLLOWED, ends=True) as follower:
        producer = Producer({"bootstrap.servers": settings.bootstrap})
        for one in asked:
            producer.produce(
                f"{settings.prefix}{one.topic}",
                one.value,
                one.key,
                on_delivery=lambda error, message, one=one: tally.sent.__setitem__(
                    (one.topic, message.partition(), message.offset()), one.number
                ),
            )
        assert producer.flush(30) == 0
        accepted = []

        def settled() -> bool:
            for record in follower.poll(0.1):
                _, value = codec.decode(record.value)
                kind = kind_of(record.topic)
                tally.hear(kind, value)
                if kind == "accepted":
                    accepted.append(value)
                elif kind == "outcomes":
                    outcomes[value["message_id"]] = value
                elif kind == "rejected":
                    number = tally.sent[place_of(value)]
                    refused.add(number)
                    words[number].append(("rejected", value))
            return tally.settled >= len(asked)

        until(settled, 150)
    for value in accepted:
        number = tally.sent[place_of(value)]
        if number not in refused:
            owners[value["message_id"]] = number
    for message, outcome in outcomes.items():
        words[owners[message]].append(("outcomes", outcome))
    return words


def place_of(value: dict[str, dict[str, int]]) -> tuple[str, int, int]:
    source = value["source"]
    return (str(source["topic"]), source["partition"], source["offset"])


def test_a_second_one_on_the_same_data_is_told_who_has_it(folder: Path):
    found = pipeline(folder, "up", *PORTS)
    assert found.returncode == 2
    assert "is in use by another embedded Kafka" in found.stderr
    assert (folder / "data" / "running.env").exists()


def test_a_taken_port_is_named_with_its_holder(folder: Path, tmp_path: Path, settings: Settings):
    port = settings.bootstrap.rpartition(":")[2]
    found = pipeline(tmp_path, "up", *PORTS[2:], "--kafka-port", port)
    assert found.returncode == 2
    assert f"wants port {port}, which process" in found.stderr
