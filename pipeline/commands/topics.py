"""`pipeline topics`: what the cluster lacks of the catalogue, and bringing it there."""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Final

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from pipeline.commands import topic_acls
from pipeline.domain.errors import BadInput
from pipeline.domain.ids import pepper_fingerprint
from pipeline.runtime.admin import Admin, ClusterUnusable, Plan
from pipeline.runtime.codec import Codec, file_name
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.registry import Registry, RegistryRefused, RegistryUnavailable
from pipeline.settings import Settings, load_settings
from pipeline.topology import CATALOGUE, STAGES, Catalogue, Topic, resource

app = App(name="topics", help="Compare the cluster with topics.yaml, and create what it lacks.")

OK: Final = 0
BAD: Final = 1
UNABLE: Final = 2

Json = Annotated[bool, Parameter(name="--json", negative="")]
Count = Annotated[int | None, Parameter(name="--partitions")]


@app.command
def plan(*, partitions: Count = None, replication: int | None = None, as_json: Json = False) -> int:
    """Show what `apply` would do. Exit status 1 when there is something that it cannot do.

    Args:
        partitions: Of the topics about recipients, where nothing was applied yet.
        replication: Copies of each new topic.
        as_json: For programs.
    """
    return _run(False, partitions, replication, as_json)


@app.command
def apply(
    *, partitions: Count = None, replication: int | None = None, as_json: Json = False
) -> int:
    """Create topics, set their configuration and write first positions. Nothing is deleted.

    Exit status 1 when something differs that only a person can change.

    Args:
        partitions: Of the topics about recipients, where nothing was applied yet.
        replication: Copies of each new topic.
        as_json: For programs.
    """
    return _run(True, partitions, replication, as_json)


@app.command(name="list")
def list_(*, as_json: Json = False) -> int:
    """Print the catalogue: as a Markdown table, or as JSON with every topic spread out."""
    if as_json:
        print(json.dumps([_as_dict(topic) for topic in CATALOGUE], indent=2))
    else:
        print(markdown(CATALOGUE), end="")
    return OK


@app.command
def asyncapi(*, as_json: Json = False) -> int:
    """Print the catalogue and its schemas as an AsyncAPI 3.0 document, with the configured prefix.

    Args:
        as_json: As JSON instead of YAML.
    """
    from pipeline.commands import topic_asyncapi

    try:
        prefix = load_settings().prefix
    except BadInput as error:
        print(f"pipeline topics: {error}", file=sys.stderr)
        return UNABLE
    found = topic_asyncapi.document(CATALOGUE, prefix, resource("schemas"))
    print(json.dumps(found, indent=2) + "\n" if as_json else topic_asyncapi.to_yaml(found), end="")
    return OK


@app.command
def acls(*, principal: str = topic_acls.PRINCIPAL, as_json: Json = False) -> int:
    """Print the rights that each stage, clients and the operator need, as `kafka-acls` commands.

    Args:
        principal: What stands before a stage's name: `User:pipeline-` gives User:pipeline-accept.
        as_json: Every right as an object, for programs.
    """
    try:
        if not re.fullmatch(r"[A-Za-z]+:\S*", principal):
            cure = "give a type and the beginning of a name, as in User:pipeline-"
            raise BadInput("--principal", f"{principal!r} is no principal", cure)
        found = topic_acls.acls(CATALOGUE, load_settings().prefix, principal)
    except BadInput as error:
        print(f"pipeline topics: {error}", file=sys.stderr)
        return UNABLE
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=2))
    else:
        print("\n".join(topic_acls.commands(found)))
    return OK


def _run(change: bool, partitions: int | None, replication: int | None, as_json: bool) -> int:
    try:
        settings = load_settings()
        admin = Admin(
            _cluster(settings),
            _codec(settings),
            pepper_fingerprint(settings.pepper_bytes),
            partitions=_positive("--partitions", partitions),
            replication=_positive("--replication", replication),
        )
        found = admin.plan()
        if change:
            admin.apply(found)
    except (BadInput, ClusterUnusable, RegistryRefused, RegistryUnavailable) as error:
        print(f"pipeline topics: {error}", file=sys.stderr)
        return UNABLE
    if as_json:
        print(json.dumps(summary(found, applied=change), indent=2))
    else:
        _show(found, settings.prefix, applied=change)
    return BAD if found.problems else OK


def _positive(name: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise BadInput(name, f"{value} is no count", "give 1 or more")
    return value


def _cluster(settings: Settings) -> Cluster:
    if not settings.bootstrap:
        raise BadInput(
            "KAFKA_BOOTSTRAP_SERVERS",
            "it is not set",
            "set it to host:port; `pipeline up` brings its embedded Kafka to the catalogue itself",
        )
    return Cluster(settings.bootstrap, settings.prefix, settings.security, settings.group_protocol)


def _codec(settings: Settings) -> Codec:
    if not settings.registry_url:
        return Codec(prefix=settings.prefix)
    password = settings.registry_password.get_secret_value()
    auth = (settings.registry_user, password) if settings.registry_user else None
    codec = Codec(Registry(settings.registry_url, auth), settings.prefix)
    codec.start()
    return codec


def summary(found: Plan, *, applied: bool) -> dict[str, Any]:
    """A plan for programs."""
    return {
        "empty": found.empty,
        "applied": applied,
        "partitions": found.partitions,
        "changes": [asdict(change) for change in found.changes()],
        "problems": list(found.problems),
    }


def _show(found: Plan, prefix: str, *, applied: bool) -> None:
    console = Console(highlight=False)
    changes = found.changes()
    if changes:
        table = Table("action", "of", "what", box=None, pad_edge=False)
        for change in changes:
            table.add_row(change.action, change.subject, change.detail)
        console.print(table)
    for problem in found.problems:
        console.print(f"cannot be applied: {problem}", markup=False, soft_wrap=True)
    done = "done" if applied else "to do; `pipeline topics apply` does them"
    console.print(
        f"{len(CATALOGUE.topics)} topics under {prefix}: "
        + (f"{len(changes)} changes {done}" if changes else "nothing to do")
        + (f"; {len(found.problems)} problems" if found.problems else ""),
        markup=False,
        soft_wrap=True,
    )


def markdown(catalogue: Catalogue) -> str:
    """The table of docs/topics.md."""
    lanes, channels = _names(catalogue.lanes), _names(catalogue.channels)
    lines = [
        "# Topics",
        "",
        "Made from `topics.yaml` by `pipeline topics list`; change that file, not this one. Names",
        "get the configured prefix in front. `{lane}` and `{channel}` stand for one topic each:",
        f"the lanes are {lanes}, the channels {channels}.",
        "Topics whose partitions are *shared* all have the same number of them,",
        f"{catalogue.partitions} by default.",
        "",
        "| topic | key | record | partitions | kept | content | written by | read by | purpose |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    shown: set[str] = set()
    for topic in catalogue:
        if topic.template not in shown:
            shown.add(topic.template)
            lines.append("| " + " | ".join(_cells(topic)) + " |")
    lines += ["", "## Groups", "", "| group | positions in |", "|---|---|"]
    for stage in STAGES:
        for group, topics in catalogue.groups(stage).items():
            templates = dict.fromkeys(topic.template for topic in topics)
            lines.append(f"| {group} | {', '.join(f'`{name}`' for name in templates)} |")
    return "\n".join(lines) + "\n"


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def _cells(topic: Topic) -> tuple[str, ...]:
    return (
        f"`{topic.template}`",
        topic.key,
        _records(topic.records),
        "shared" if topic.shared else str(topic.partitions),
        "last of each key" if topic.retention_ms is None else _kept(topic.retention_ms),
        "yes" if topic.content else "",
        _names(topic.writers),
        _names(topic.readers),
        topic.purpose,
    )


def _records(records: Mapping[str, str]) -> str:
    def link(record: str) -> str:
        return f"[{record}](../schemas/{file_name(record)})"

    return ", ".join(
        f"`{letters}`: {link(record)}" if letters else link(record)
        for letters, record in records.items()
    )


def _kept(retention_ms: int) -> str:
    days, rest = divmod(retention_ms, 86_400_000)
    return f"{days} d" if not rest else f"{retention_ms // 3_600_000} h"


def _as_dict(topic: Topic) -> dict[str, Any]:
    return {
        "name": topic.name,
        "key": topic.key,
        "records": dict(topic.records),
        "partitions": topic.partitions,
        "shared": topic.shared,
        "compact": topic.compact,
        "retention_ms": topic.retention_ms,
        "content": topic.content,
        "writers": list(topic.writers),
        "readers": list(topic.readers),
        "purpose": topic.purpose,
        "config": dict(topic.config),
    }
