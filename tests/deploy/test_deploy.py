"""What deploy/ says exists in the product: commands, variables, ports, paths, topics, groups. No
engine runs here; deploy/README.md says what that leaves open."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.__main__ import COMMANDS
from pipeline.commands import simulate, topics
from pipeline.runtime import web
from pipeline.settings import load_config
from pipeline.settings.environment import describe
from pipeline.topology import CATALOGUE, STAGES
from tests.servers.registry import STRICT

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
OURS = {name for name, *_ in describe()}
SECRETS = {name for name, _, _, secret in describe() if secret}
GATEWAY_PORT = 8080
GROUPS = {
    group: {topic.name for topic in topics_of if topic.name != CATALOGUE.lead(stage)}
    for stage in STAGES
    for group, topics_of in CATALOGUE.groups(stage).items()
}


@cache
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    return found


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


@cache
def objects() -> list[dict[str, Any]]:
    paths = sorted(KUBERNETES.glob("*.yaml"))
    return [one for path in paths for one in yaml.safe_load_all(path.read_text("utf-8"))]


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in objects() if one["kind"] == kind}


def yaml_files() -> list[Path]:
    return sorted([*DEPLOY.rglob("*.yaml"), *DEPLOY.rglob("*.yml")])


@pytest.mark.parametrize("path", yaml_files(), ids=lambda path: str(path.relative_to(DEPLOY)))
def test_every_file_is_yaml(path: Path):
    assert [one for one in yaml.safe_load_all(path.read_text("utf-8")) if one]


def _is_command(words: list[str]) -> None:
    """Whether `pipeline` understands these words."""
    assert words[0] in COMMANDS
    if words[0] == "run":
        assert words[1] in STAGES
        assert words[2] == "--slot"
    elif words[0] == "topics":
        assert callable(getattr(topics, words[1]))
    elif words[0] == "simulate":
        known = set(simulate.generic.__annotations__)
        assert {word[2:] for word in words if word.startswith("--")} <= known
    else:
        raise AssertionError(words)


# ------------------------------------------------------------------------------------------ compose


def test_compose_runs_every_stage_once_and_what_they_need():
    ours = {n: s for n, s in services().items() if s["image"].startswith("delivery-pipeline")}
    assert {s["command"][1] for s in ours.values() if s["command"][0] == "run"} == set(STAGES)
    for name, service in ours.items():
        _is_command(service["command"])
        if service["command"][0] == "run":
            # A slot's lock and state are on a volume of its own.
            assert f"{name}-0:/data" in service["volumes"]
            assert f"{name}-0" in compose()["volumes"]
    for needed in ("kafka", "clickhouse", "registry", "connect", "prometheus", "grafana"):
        assert needed in services()


def test_compose_names_only_variables_that_exist():
    sample = (DEPLOY / "compose.env.sample").read_text("utf-8")
    policy = (DEPLOY / "demo.yaml").read_text("utf-8")
    connect = "".join(path.read_text("utf-8") for path in (DEPLOY / "connect").glob("*.*"))
    for name, service in services().items():
        for variable in service.get("environment", {}):
            known = variable in OURS or variable in policy
            if name == "connect":
                known = f"${{env:{variable}}}" in connect
            assert known or name in {"kafka", "clickhouse", "registry", "grafana"}, variable
    asked = re.findall(r"\$\{(\w+)[:}]", (DEPLOY / "compose.yaml").read_text("utf-8"))
    for variable in asked:
        assert f"\n{variable}=" in sample or f"# {variable}=" in sample, variable


def test_compose_gives_the_demo_policy_all_it_asks_for():
    environment = services()["dispatch"]["environment"]
    secrets = {"PIPELINE_SIMULATOR_SECRET": "whsec_c2VjcmV0c2VjcmV0c2VjcmV0"}
    config = load_config(
        DEPLOY / "demo.yaml", environment["PIPELINE_PUBLIC_URL"], environment | secrets
    )
    assert {account.base_url.split("/")[2] for account in config.accounts.values()} == {
        "simulator:8090"
    }


def test_compose_depends_on_services_that_are_there_and_can_be_waited_for():
    for service in services().values():
        for name, how in service.get("depends_on", {}).items():
            needed = services()[name]
            if how["condition"] == "service_healthy":
                assert needed["healthcheck"]["test"]
            else:
                assert needed["command"] == ["topics", "apply"]


def test_the_broker_has_what_the_catalogue_asks_for():
    environment = services()["kafka"]["environment"]
    for name, value in CATALOGUE.broker.items():
        assert environment[f"KAFKA_{name.replace('.', '_').upper()}"] == str(value)


def test_the_registry_is_as_strict_as_the_one_of_the_tests():
    assert STRICT.items() <= services()["registry"]["environment"].items()


def test_every_mounted_file_is_there():
    for service in services().values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (DEPLOY / source).exists(), source


def test_images_are_pinned():
    named = [service["image"] for service in services().values()]
    docker = (DEPLOY / "Dockerfile").read_text("utf-8")
    named += re.findall(r"^FROM (\S+)", docker, re.MULTILINE)
    for image in named:
        assert re.search(r":v?\d+\.\d+(\.\d+)*", image), image
    (kustomization,) = of_file("kustomization.yaml")
    assert re.fullmatch(r"\d+\.\d+\.\d+", kustomization["images"][0]["newTag"])
    for plugin in services()["grafana"]["environment"]["GF_PLUGINS_PREINSTALL"].split(","):
        assert re.fullmatch(r"[a-z-]+@\d+\.\d+\.\d+", plugin)


def of_file(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((KUBERNETES / name).read_text("utf-8")))


def test_the_image_has_what_a_checkout_has():
    docker = (DEPLOY / "Dockerfile").read_text("utf-8")
    let_in = re.findall(
        r"^!(\S+)$", (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8"), re.MULTILINE
    )
    for source, _ in re.findall(r"^COPY (\S+) (\S+)$", docker, re.MULTILINE):
        assert (ROOT / source).exists(), source
        assert source in let_in
    for name in re.findall(r"\b((?:PIPELINE|KAFKA)_\w+)=", docker):
        assert name in OURS
    assert f"EXPOSE {GATEWAY_PORT}" in docker


# --------------------------------------------------------------------------------------- Kubernetes


def test_kubernetes_runs_every_stage_in_the_slot_of_its_pod():
    workers = of_kind("StatefulSet")
    assert set(workers) == set(STAGES)
    for stage, worker in workers.items():
        pod = worker["spec"]["template"]
        (container,) = pod["spec"]["containers"]
        shell, flag, line = container["command"]
        assert (shell, flag) == ("sh", "-c")
        words = line.removeprefix("exec python -m pipeline ").split()
        _is_command(words)
        assert words[1] == stage
        assert words[-1] == '"${HOSTNAME##*-}"'
        assert worker["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
        assert pod["spec"]["terminationGracePeriodSeconds"] > 10
        claimed = {
            one["metadata"]["name"] for one in worker["spec"].get("volumeClaimTemplates", ())
        }
        mounted = {one["name"] for one in container["volumeMounts"]}
        assert mounted == claimed | {one["name"] for one in pod["spec"]["volumes"]}
        # State that outlives a pod spares the next one the restore.
        assert ("data" in claimed) == (CATALOGUE.changelog(stage) is not None)


def test_kubernetes_names_only_variables_that_exist_and_no_secret():
    (settings,) = of_kind("ConfigMap").values()
    assert set(settings["data"]) <= OURS - SECRETS
    text = (KUBERNETES / "settings.yaml").read_text("utf-8")
    for name in re.findall(r"--from-literal=(\w+)=", text):
        assert name in SECRETS


def test_probes_ask_paths_that_the_gateway_answers():
    source = Path(web.__file__).read_text("utf-8")
    (container,) = of_kind("StatefulSet")["gateway"]["spec"]["template"]["spec"]["containers"]
    assert container["ports"][0]["containerPort"] == GATEWAY_PORT
    paths = {container[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")}
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text("utf-8"))
    for job in prometheus["scrape_configs"]:
        paths.add(job["metrics_path"])
        for found in job["dns_sd_configs"]:
            assert set(found["names"]) <= set(services())
            assert found["port"] == GATEWAY_PORT
    for path in paths:
        assert f'add_get("{path}"' in source, path
    gateway = services()["gateway"]
    assert "/readyz" in " ".join(gateway["healthcheck"]["test"])
    default = {name: value for name, value, *_ in describe()}["PIPELINE_GATEWAY_PORT"]
    assert default == str(GATEWAY_PORT)


def test_workers_scale_by_the_lag_of_exactly_their_inputs():
    (settings,) = of_kind("ConfigMap").values()
    prefix = settings["data"]["PIPELINE_PREFIX"]
    for name, scaled in of_kind("ScaledObject").items():
        assert scaled["spec"]["scaleTargetRef"]["name"] == name
        assert name in of_kind("StatefulSet")
        assert scaled["spec"]["maxReplicaCount"] <= CATALOGUE.partitions
        measured: dict[str, set[str]] = {}
        for trigger in scaled["spec"]["triggers"]:
            about = trigger["metadata"]
            assert about["bootstrapServers"] == settings["data"]["KAFKA_BOOTSTRAP_SERVERS"]
            group = about["consumerGroup"].removeprefix(prefix)
            measured.setdefault(group, set()).add(about["topic"].removeprefix(prefix))
        expected = set(CATALOGUE.groups(name))
        assert measured == {group: GROUPS[group] for group in expected}


def test_kustomize_lists_every_file():
    (found,) = of_file("kustomization.yaml")
    files = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(found["resources"]) == files


# ------------------------------------------------------------------------------------------ Grafana


def dashboards() -> list[Path]:
    return sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))


def test_dashboards_use_sources_that_are_provisioned():
    folder = DEPLOY / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "delivery.yaml").read_text("utf-8"))
    known = {one["uid"]: one["type"] for one in sources["datasources"]}
    (clickhouse,) = (
        one for one in sources["datasources"] if one["type"] == "grafana-clickhouse-datasource"
    )
    environment = services()["clickhouse"]["environment"]
    assert clickhouse["jsonData"]["username"] == environment["CLICKHOUSE_USER"]
    assert clickhouse["jsonData"]["defaultDatabase"] == environment["CLICKHOUSE_DB"]
    providers = yaml.safe_load((folder / "dashboards" / "delivery.yaml").read_text("utf-8"))
    place = providers["providers"][0]["options"]["path"]
    assert any(volume.split(":")[1] == place for volume in services()["grafana"]["volumes"])
    for path in dashboards():
        panels = json.loads(path.read_text("utf-8"))["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        for panel in panels:
            for part in (panel, *panel["targets"]):
                assert known[part["datasource"]["uid"]] == part["datasource"]["type"]
