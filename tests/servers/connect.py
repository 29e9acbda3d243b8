"""A real Kafka Connect worker with Apache's file connectors, configured by deploy/connect."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from pipeline.local.cache import Bundle, bundle, kafka_jars
from pipeline.local.kafka import SHORT_LIVED, java_command
from pipeline.local.ports import HOST, free_port
from pipeline.topology import resource
from tests.servers.java_server import JavaServer
from tests.waiting import until

HERE = Path(__file__).parent
CONNECT = Bundle(HERE / "connect.lock", "connect", "Kafka Connect")
CONVERTER = Bundle(HERE / "converter.lock", "plugins/avro", "Apicurio's Avro converter")
SAMPLES = resource("deploy") / "connect"
PLUGINS = "plugin.path=/opt/kafka/plugins,/opt/kafka/libs/connect-file-4.3.1.jar"
RUN = "org.apache.kafka.connect.cli.ConnectDistributed"


class ConnectWorker(JavaServer):
    """One worker. `env` is what its and the connectors' files name as ${env:...}."""

    def __init__(self, folder: Path, bootstrap: str, env: Mapping[str, str]) -> None:
        port = free_port()
        super().__init__("Kafka Connect", f"http://{HOST}:{port}", folder / "connect.log")
        self._env = {
            **env,
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "CONNECT_LISTENER": f"http://{HOST}:{port}",
            "CONNECT_REPLICATION": "1",
        }

    def start(self) -> None:
        jars = [kafka_jars(print), bundle(CONNECT, print)]
        # The one setting that Connect reads before it knows ${env:...}.
        plugins = f"plugin.path={bundle(CONVERTER, print).parent}"
        text = (SAMPLES / "worker.properties").read_text(encoding="utf-8")
        assert text.count(PLUGINS) == 1
        worker = self.log.with_name("worker.properties")
        worker.write_text(text.replace(PLUGINS, plugins), encoding="utf-8")
        self.run(
            [*java_command(jars, "-Xmx384m", *SHORT_LIVED), RUN, str(worker)],
            "/connectors",
            self._env,
        )

    def put(self, name: str) -> None:
        """Starts the connector of deploy/connect/NAME.json as it stands there, and waits for its
        task."""
        config = json.loads((SAMPLES / f"{name}.json").read_text(encoding="utf-8"))
        httpx.put(f"{self.url}/connectors/{name}/config", json=config).raise_for_status()
        until(lambda: self._runs(name), 60)

    def _runs(self, name: str) -> bool:
        answer = httpx.get(f"{self.url}/connectors/{name}/status")
        if answer.status_code == 404:
            return False
        found: dict[str, Any] = answer.json()
        states = [one["state"] for one in (found["connector"], *found["tasks"])]
        assert "FAILED" not in states, found
        return len(states) > 1 and set(states) == {"RUNNING"}
