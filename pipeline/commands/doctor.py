"""`pipeline doctor`: whether what the pipeline stands on is as it must be."""

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter
from rich.console import Console

from pipeline.commands import health
from pipeline.commands.check import environment
from pipeline.commands.connections import UNABLE, cluster_of, codec_of, store_of
from pipeline.commands.health import FAIL, OK, WARN, Finding
from pipeline.commands.measure import measure
from pipeline.domain.errors import BadInput, Undecodable
from pipeline.domain.ids import pepper_fingerprint
from pipeline.providers import PROVIDERS
from pipeline.runtime.admin import Admin, ClusterUnusable
from pipeline.runtime.checkup import Checkup
from pipeline.runtime.clickhouse import Refused, Store, Unavailable, WrongTables, read_migrations
from pipeline.runtime.reader import Unreachable
from pipeline.runtime.registry import Registry, RegistryRefused, RegistryUnavailable
from pipeline.settings import Settings, check_config, load_settings
from pipeline.topology import CATALOGUE, resource

app = App(name="doctor", help="Say whether what the pipeline stands on is as it must be.")

GOOD: Final = 0
BAD: Final = 1
CONNECT_S: Final = 2.0

Json = Annotated[bool, Parameter(name="--json", negative="")]
Check = Callable[[Settings], Iterator[Finding]]

_CANNOT: Final = (
    BadInput, ClusterUnusable, RegistryRefused, RegistryUnavailable, Refused, Unavailable,
    Undecodable, Unreachable, WrongTables, OSError,
)  # fmt: skip


@app.default
def doctor(*, as_json: Json = False) -> int:
    """Look at settings, brokers, topics, registry, ClickHouse, clocks, ports, disks and lag: a line
    each, with cause and cure where something is not well.

    It changes nothing but one tombstone in the topic `control`, by which the brokers tell their
    time. Exit status 1: something fails; warnings leave it 0.

    Args:
        as_json: For programs.
    """
    try:
        settings = load_settings()
    except BadInput as error:
        print(f"pipeline doctor: {error}", file=sys.stderr)
        return UNABLE
    console = Console(highlight=False, markup=False, soft_wrap=True)
    found = []
    for finding in examine(settings):
        found.append(finding)
        if not as_json:
            cure = f"; {finding.cure}" if finding.cure else ""
            console.print(f"{finding.state:4}  {finding.name}: {finding.text}{cure}")
    if as_json:
        print(json.dumps([finding.as_dict() for finding in found], indent=2))
    return BAD if any(finding.state == FAIL for finding in found) else GOOD


def examine(settings: Settings) -> Iterator[Finding]:
    """Every finding, as soon as it is known. Where Kafka does not answer, nothing else is asked of
    it: each question would wait for its timeout."""
    yield from _settings(settings)
    answers = True
    for finding in _guarded("Kafka", _kafka, settings):
        answers = answers and (finding.name != "Kafka" or finding.state == OK)
        yield finding
    if answers:
        yield from _guarded("topics", _topics, settings)
        yield from _guarded("brokers' clock", _broker_clock, settings)
        yield from _guarded("stages", _stages, settings)
    yield from _guarded("registry", _registry, settings)
    yield from _guarded("ClickHouse", _clickhouse, settings)
    yield from _machine(settings)


def _guarded(name: str, check: Check, settings: Settings) -> Iterator[Finding]:
    """What cannot be asked is a finding as well."""
    try:
        yield from check(settings)
    except _CANNOT as error:
        if isinstance(error, BadInput):
            yield Finding(name, FAIL, f"{error.field}: {error.cause}", error.cure)
        else:
            cure = "bring it up, or correct its address (pipeline config shows it)"
            yield Finding(name, FAIL, str(error), cure)


def _settings(settings: Settings) -> Iterator[Finding]:
    for read in (lambda: settings.pepper_bytes, lambda: settings.reference_key_table):
        try:
            read()
        except BadInput as error:
            yield Finding("secrets", FAIL, f"{error.field}: {error.cause}", error.cure)
    if settings.config is None:
        text = "PIPELINE_CONFIG is not set"
        yield Finding("policy file", WARN, text, "name one; stages do not start without")
        return
    try:
        _, problems = check_config(settings.config, settings.gateway_url, environment(), PROVIDERS)
    except BadInput as error:
        yield Finding("policy file", FAIL, f"{error.field}: {error.cause}", error.cure)
        return
    if problems:
        cure = f"pipeline check {settings.config} names each"
        yield Finding("policy file", FAIL, f"{len(problems)} mistakes", cure)
    else:
        yield Finding("policy file", OK, f"{settings.config} is right")


def _kafka(settings: Settings) -> Iterator[Finding]:
    checkup = Checkup(cluster_of(settings))
    brokers, parts = checkup.partitions()
    yield Finding("Kafka", OK, f"{len(brokers)} brokers at {settings.bootstrap}")
    try:
        told = checkup.broker_settings(brokers, [*CATALOGUE.broker, *health.ASKED])
    except Unreachable:
        told = {}
    yield from health.broker_settings(CATALOGUE.broker, told)
    yield from health.replication(len(brokers), [health.Part(*part) for part in parts])


def _topics(settings: Settings) -> Iterator[Finding]:
    fingerprint = pepper_fingerprint(settings.pepper_bytes)
    plan = Admin(cluster_of(settings), codec_of(settings), fingerprint).plan()
    changes = [f"{one.action} {one.subject}" for one in plan.changes()]
    yield from health.topics(plan.problems, changes)


def _broker_clock(settings: Settings) -> Iterator[Finding]:
    cluster = cluster_of(settings)
    _, parts = Checkup(cluster).partitions()
    if any(name == cluster.real("control") for name, *_ in parts):
        yield health.clock("brokers' clock", Checkup(cluster).clock_ahead_ms(_now))


def _stages(settings: Settings) -> Iterator[Finding]:
    found = measure(settings)
    yield from health.stages(found.troubles)
    yield from health.lag(found.rows)


def _registry(settings: Settings) -> Iterator[Finding]:
    if not settings.registry_url:
        yield Finding("registry", OK, "none is configured")
        return
    password = settings.registry_password.get_secret_value()
    login = (settings.registry_user, password) if settings.registry_user else None
    registry = Registry(settings.registry_url, login)
    try:
        registry.ping()
    finally:
        registry.close()
    yield Finding("registry", OK, f"{settings.registry_url} answers")


def _clickhouse(settings: Settings) -> Iterator[Finding]:
    store = store_of(settings)
    try:
        before = _now()
        ((version, at),) = store.query("SELECT version(), toUnixTimestamp64Milli(now64(3))")
        after = _now()
        yield health.clickhouse_version(str(version))
        yield health.clock("ClickHouse's clock", max(at - after, 0) or min(at - before, 0))
        yield _migrations(store)
        for name, free, total in store.query(
            "SELECT name, free_space, total_space FROM system.disks ORDER BY name"
        ):
            yield health.disk(f"ClickHouse disk {name}", int(free), int(total))
    finally:
        store.close()


def _now() -> int:
    return int(time.time() * 1000)


def _migrations(store: Store) -> Finding:
    files = read_migrations(resource("deploy") / "clickhouse")
    known = {one.version: (one.name, one.checksum) for one in files}
    ((there,),) = store.query(
        "SELECT count() FROM system.tables"
        " WHERE database = currentDatabase() AND name = 'schema_migrations'"
    )
    if not there:
        return health.migrations(known, None)
    rows = store.query("SELECT version, name, checksum FROM schema_migrations FINAL")
    return health.migrations(known, {int(number): (name, text) for number, name, text in rows})


def _machine(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir.absolute()
    while not folder.exists():
        folder = folder.parent
    room = shutil.disk_usage(folder)
    yield health.disk(f"disk of {settings.data_dir}", room.free, room.total)
    yield _writable(folder, settings)
    yield _port(settings)


def _writable(folder: Path, settings: Settings) -> Finding:
    if os.access(folder, os.W_OK):
        return Finding("data directory", OK, f"{settings.data_dir} can be written")
    text = f"{folder} cannot be written by this user"
    return Finding("data directory", FAIL, text, "set PIPELINE_DATA_DIR, or its owner")


def _port(settings: Settings) -> Finding:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.gateway_host, settings.gateway_host)  # noqa: S104
    place = f"{settings.gateway_host}:{settings.gateway_port}"
    try:
        socket.create_connection((host, settings.gateway_port), CONNECT_S).close()
    except OSError as error:
        text = f"nobody answers at {place} ({error.strerror or error})"
        cure = "start the gateway here, unless it runs on another machine"
        return Finding("gateway", WARN, text, cure)
    return Finding("gateway", OK, f"somebody answers at {place}")
