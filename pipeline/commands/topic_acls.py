"""Who may do what on the cluster, by the catalogue: no stage gets a right that it does not use."""

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from pipeline.topology import STAGES, Catalogue, Topic

PRINCIPAL: Final = "User:pipeline-"
"""What stands before a stage's or program's name by default."""

CLIENTS: Final = "clients"
OPERATOR: Final = "cli"
CONTROL: Final = "control"
_OPERATOR_TOPICS: Final = ("Create", "Describe", "DescribeConfigs", "AlterConfigs", "Read")


@dataclass(frozen=True, slots=True)
class Acl:
    """One right, allowed from every host. Words are those of `kafka-acls`: `resource` is topic,
    group or transactional-id, `pattern` literal or prefixed, `name` with the prefix."""

    principal: str
    operation: str
    resource: str
    name: str
    pattern: str = "literal"


def acls(catalogue: Catalogue, prefix: str, principal: str = PRINCIPAL) -> list[Acl]:
    """Every right, by principal: the stages in flow order, then clients and the operator (`cli`).

    A stage reads and writes its topics, sees how they are configured (it starts only on topics that
    are as the catalogue says), joins its groups, and ends the transactions of its own workers.
    Clients write what the catalogue lets them and read the answers, in groups under
    `<prefix>clients`. The operator makes topics, reads all of them, and writes positions and the
    control record; `pipeline send` needs a client's rights.
    """
    found: list[Acl] = []
    for stage in STAGES:
        name = principal + stage
        read, written = catalogue.read_by(stage), catalogue.written_by(stage)
        found += _topics(name, prefix, read, "Read", "DescribeConfigs")
        found += _topics(name, prefix, written, "Write", "DescribeConfigs")
        for group in catalogue.groups(stage):
            found.append(Acl(name, "Read", "group", prefix + group))
        # Readers without a position (tables, state, journal, control record) have group names too,
        # and the client library asks who coordinates them.
        found.append(Acl(name, "Describe", "group", f"{prefix}{stage}-", "prefixed"))
        found.append(Acl(name, "Describe", "group", prefix + CONTROL))
        if written and catalogue.groups(stage):  # positions and outputs in one transaction
            for operation in ("Write", "Describe"):
                found.append(
                    Acl(name, operation, "transactional-id", f"{prefix}{stage}-", "prefixed")
                )
    clients, operator = principal + CLIENTS, principal + OPERATOR
    found += _topics(clients, prefix, catalogue.written_by(CLIENTS), "Write")
    found += _topics(clients, prefix, catalogue.read_by(CLIENTS), "Read")
    found.append(Acl(clients, "Read", "group", prefix + CLIENTS, "prefixed"))
    found += [Acl(operator, word, "topic", prefix, "prefixed") for word in _OPERATOR_TOPICS]
    found += _topics(operator, prefix, catalogue.written_by(OPERATOR), "Write")
    found.append(Acl(operator, "Read", "group", prefix, "prefixed"))
    return list(dict.fromkeys(found))


def _topics(
    principal: str, prefix: str, topics: Iterable[Topic], *operations: str
) -> Iterator[Acl]:
    for topic in topics:
        for operation in operations:
            yield Acl(principal, operation, "topic", prefix + topic.name)


def commands(found: Iterable[Acl]) -> list[str]:
    """The same as `kafka-acls` commands. BOOTSTRAP is the shell's to fill; rights that differ only
    in their name share a command."""
    operations: dict[tuple[str, str, str, str], list[str]] = {}
    for acl in found:
        place = (acl.principal, acl.resource, acl.pattern, acl.name)
        operations.setdefault(place, []).append(acl.operation)
    names: dict[tuple[str, str, str, tuple[str, ...]], list[str]] = {}
    for (principal, resource, pattern, name), words in operations.items():
        names.setdefault((principal, resource, pattern, tuple(words)), []).append(name)
    return [
        " ".join(
            [
                'kafka-acls --bootstrap-server "$BOOTSTRAP" --add --allow-principal',
                shlex.quote(principal),
                *(f"--operation {word}" for word in words),
                *(f"--{resource} {shlex.quote(name)}" for name in shared),
                f"--resource-pattern-type {pattern}",
            ]
        )
        for (principal, resource, pattern, words), shared in names.items()
    ]
