"""A real schema registry (Apicurio, in memory), run by the Java runtime that pip brought."""

import tarfile
from pathlib import Path

import httpx

from pipeline.local.cache import Bundle, bundle
from pipeline.local.kafka import SHORT_LIVED, java_command
from pipeline.local.ports import HOST, free_port
from tests.servers.java_server import JavaServer

APICURIO = Bundle(Path(__file__).with_name("registry.lock"), "apicurio", "Apicurio Registry")
CONFLUENT = "/apis/ccompat/v7"
"""Where it speaks as Confluent's registry does."""

STRICT = {"APICURIO_RULES_GLOBAL_COMPATIBILITY": "FULL_TRANSITIVE"}
"""What deploy/compose.yaml gives it too; without a rule it refuses nothing."""


class EmbeddedRegistry(JavaServer):
    """`address` is what SCHEMA_REGISTRY_URL takes, `native` what Apicurio's own clients take. A
    restart begins empty."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        super().__init__("Apicurio Registry", f"http://{HOST}:{self.port}", folder / "registry.log")
        self.address = self.url + CONFLUENT
        self.native = self.url + "/apis/registry/v3"
        self._folder = folder / "registry"

    def start(self) -> None:
        """Unpacks the archive where that has not been done, and runs it."""
        (archive,) = bundle(APICURIO, print).glob("*.tar.gz")
        if not self._folder.exists():
            self._folder.mkdir(parents=True)
            with tarfile.open(archive) as packed:
                packed.extractall(self._folder, filter="data")
        (program,) = self._folder.glob("*-runner.jar")
        java = java_command([], "-Xmx256m", *SHORT_LIVED)
        java = java[: java.index("-cp")]
        self.run(
            [
                *java, f"-Dquarkus.http.host={HOST}", f"-Dquarkus.http.port={self.port}",
                "-Dquarkus.log.level=WARN", "-jar", str(program),
            ],
            CONFLUENT + "/subjects",
            STRICT,
        )  # fmt: skip

    def versions(self, subject: str) -> list[int]:
        """The versions that a subject has."""
        answer = httpx.get(f"{self.address}/subjects/{subject}/versions").raise_for_status()
        return list(answer.json())
