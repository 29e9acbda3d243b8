"""Writes pipeline/local/kafka.lock: every jar of the embedded Kafka with its SHA-256."""

import hashlib
import tempfile
from pathlib import Path

import jgo
from jgo.maven import MavenContext

ROOTS = "org.apache.kafka:kafka_2.13:4.3.1+org.slf4j:slf4j-simple:1.7.36"
TARGET = Path(__file__).resolve().parent.parent / "pipeline" / "local" / "kafka.lock"


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        context = MavenContext(repo_cache=Path(cache))
        artifacts = [
            context.project(a.groupId, a.artifactId).at_version(a.version).artifact()
            for a in jgo.resolve(ROOTS)
        ]
        lines = sorted(
            f"{a.groupId}:{a.artifactId}:{a.version}"
            f" sha256:{hashlib.sha256(a.resolve().read_bytes()).hexdigest()}"
            f" {a.resolve().stat().st_size}"
            for a in artifacts
        )
    head = "# The embedded Kafka's jars: coordinate, hash, bytes. Written by `make lock`.\n"
    TARGET.write_text(head + "\n".join(lines) + "\n")
    print(f"{TARGET}: {len(lines)} jars")


if __name__ == "__main__":
    main()
