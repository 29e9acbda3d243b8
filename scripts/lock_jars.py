"""Writes the lock files of what Java servers need: each file with its SHA-256 and its size.

The embedded Kafka's is part of the product; the servers that only tests start have theirs beside
those tests.
"""

import hashlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import jgo
from jgo.maven import MavenContext

ROOT = Path(__file__).resolve().parent.parent
KAFKA = "4.3.1"
REGISTRY = "3.0.9"


@dataclass(frozen=True)
class Lock:
    """One lock file. `roots` are taken with all that they need, but for what another lock file has
    (`beside`) or nobody needs (`useless`, groups); `alone` are taken as they are."""

    path: str
    title: str
    roots: str = ""
    alone: list[str] = field(default_factory=list)
    beside: str = ""
    useless: tuple[str, ...] = ()


LOCKS = [
    Lock(
        "pipeline/local/kafka.lock",
        "The embedded Kafka's jars",
        f"org.apache.kafka:kafka_2.13:{KAFKA}+org.slf4j:slf4j-simple:1.7.36",
    ),
    Lock(
        "tests/servers/connect.lock",
        "What Kafka Connect and its file connectors need besides the embedded Kafka's jars",
        f"org.apache.kafka:connect-runtime:{KAFKA}+org.apache.kafka:connect-file:{KAFKA}",
        beside="pipeline/local/kafka.lock",
    ),
    Lock(
        "tests/servers/registry.lock",
        "Apicurio Registry",
        alone=[f"io.apicurio:apicurio-registry-app:{REGISTRY}:tar.gz:all"],
    ),
    Lock(
        "tests/servers/converter.lock",
        "Apicurio's Avro converter for Kafka Connect",
        # Not by `roots`: the parent of this version's project files is not in the repository.
        "io.apicurio:apicurio-registry-java-sdk:3.0.7+org.apache.avro:avro:1.12.0",
        alone=[
            f"io.apicurio:apicurio-registry-{part}:{REGISTRY}"
            for part in (
                "avro-serde-kafka", "common", "schema-resolver", "serde-common",
                "serde-common-avro", "serde-kafka-common", "utils-converter",
            )
        ],
        useless=("org.mockito", "net.bytebuddy", "org.objenesis", "org.slf4j"),
    ),
]  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        context = MavenContext(repo_cache=Path(cache))
        for lock in LOCKS:
            lines = sorted(line_of(context, one) for one in coordinates(lock))
            head = f"# {lock.title}: coordinate, hash, bytes. Written by `make lock`.\n"
            (ROOT / lock.path).write_text(head + "\n".join(lines) + "\n")
            print(f"{lock.path}: {len(lines)} files")


def coordinates(lock: Lock) -> list[str]:
    """`group:artifact:version[:packaging[:classifier]]` of every file of `lock`."""
    needed = jgo.resolve(lock.roots) if lock.roots else []
    found = {f"{one.groupId}:{one.artifactId}:{one.version}" for one in needed}
    there = set()
    if lock.beside:
        there = {line.split()[0] for line in (ROOT / lock.beside).read_text().splitlines()}
    useful = {one for one in found if one.partition(":")[0] not in lock.useless}
    return [*(useful - there), *lock.alone]


def line_of(context: MavenContext, coordinate: str) -> str:
    group, artifact, version, *kind = coordinate.split(":")
    packaging, classifier = [*kind, *["jar", ""][len(kind) :]]
    component = context.project(group, artifact).at_version(version)
    path = component.artifact(classifier=classifier, packaging=packaging).resolve()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{coordinate} sha256:{digest} {path.stat().st_size}"


if __name__ == "__main__":
    main()
