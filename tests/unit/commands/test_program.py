"""The program itself: help, mistakes, and what small commands say."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[3]


def pipeline(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *words],
        env={**os.environ, "PIPELINE_DATA_DIR": "/nowhere/at-all", **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_names_every_command():
    found = pipeline("--help")
    assert found.returncode == 0
    for name in COMMANDS:
        assert name in found.stdout


def test_every_command_has_its_file_and_explains_itself():
    for name in COMMANDS:
        assert (ROOT / "pipeline" / "commands" / f"{name.replace('-', '_')}.py").exists(), name
    found = pipeline("dead-letters", "--help")
    assert found.returncode == 0, found.stderr
    assert "list" in found.stdout


@pytest.mark.parametrize(
    "words", [("no-such",), ("run",), ("run", "no-such"), ("demo", "--messages", "many")]
)
def test_a_command_that_cannot_be_meant_has_status_2(words: tuple[str, ...]):
    found = pipeline(*words)
    assert found.returncode == 2
    assert "Traceback" not in found.stdout + found.stderr


def test_a_worker_without_configuration_says_what_is_missing_in_one_line():
    found = pipeline("run", "accept", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9")
    assert found.returncode == 2
    (line,) = found.stderr.splitlines()
    assert json.loads(line)["message"].startswith("PIPELINE_CONFIG: it is not set; ")


def test_a_worker_with_a_broken_file_names_the_line(tmp_path: Path):
    file = tmp_path / "wrong.yaml"
    file.write_text("priorities: 3\n")
    found = pipeline("run", "accept", "--slot", "1", PIPELINE_CONFIG=str(file))
    assert found.returncode == 2
    assert "wrong.yaml:1" in found.stderr


def test_a_negative_slot_is_refused():
    found = pipeline("run", "accept", "--slot", "-1")
    assert found.returncode == 2
    assert "--slot" in found.stderr


def test_check_says_what_a_file_means_and_what_is_wrong_with_it(tmp_path: Path):
    good = pipeline("check", "deploy/demo.yaml")
    assert good.returncode == 0, good.stderr
    assert "whatsapp-a" in good.stdout
    assert "deploy/demo.yaml is right." in good.stdout
    file = tmp_path / "wrong.yaml"
    text = Path(ROOT / "deploy" / "demo.yaml").read_text()
    file.write_text(text.replace("adapter: generic", "adapter: pigeon", 1))
    wrong = pipeline("check", str(file))
    assert wrong.returncode == 1
    (line,) = wrong.stderr.splitlines()
    assert re.match(rf"{file}:\d+: providers\.\S+\.adapter: pigeon is not known; allowed: ", line)
    as_json = json.loads(pipeline("check", str(file), "--json").stdout)
    assert [problem["cause"] for problem in as_json["problems"]] == ["pigeon is not known"]
    assert pipeline("check").returncode == 2


def test_config_shows_values_with_their_origin_and_no_secret():
    secret = "ab" * 32
    found = pipeline("config", "--json", PIPELINE_PEPPER=secret, PIPELINE_PREFIX="mine.")
    assert found.returncode == 0
    assert secret not in found.stdout
    rows = {row["variable"]: row for row in json.loads(found.stdout)}
    assert rows["PIPELINE_PREFIX"]["value"] == "mine."
    assert rows["PIPELINE_PREFIX"]["origin"] == "environment"
    assert rows["PIPELINE_PEPPER"]["value"] == "(set, not shown)"
    assert rows["PIPELINE_GATEWAY_PORT"] == rows["PIPELINE_GATEWAY_PORT"] | {
        "value": "8080",
        "origin": "default",
    }


def test_config_takes_what_a_running_pipeline_says(tmp_path: Path):
    (tmp_path / "running.env").write_text("KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:5\n")
    found = pipeline(
        "config", "--json", PIPELINE_DATA_DIR=str(tmp_path), KAFKA_BOOTSTRAP_SERVERS=""
    )
    rows = {row["variable"]: row for row in json.loads(found.stdout)}
    assert rows["KAFKA_BOOTSTRAP_SERVERS"]["value"] == "127.0.0.1:5"
    assert rows["KAFKA_BOOTSTRAP_SERVERS"]["origin"] == "running"


def test_send_without_a_pipeline_says_so():
    found = pipeline("send", "--to", "+4915112345678", "--text", "hi", KAFKA_BOOTSTRAP_SERVERS="")
    assert found.returncode == 2
    assert "KAFKA_BOOTSTRAP_SERVERS: it is not set" in found.stderr
