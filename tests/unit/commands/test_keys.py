"""A new key works with the line that is printed with it, and is never the same twice."""

import json
from pathlib import Path

import pytest

from pipeline.commands.keys import new
from pipeline.domain.api_keys import tenant_of
from pipeline.settings import load_config, sample_path


def test_the_printed_line_makes_the_printed_key_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert new(tenant="shop", as_json=True) == 0
    made = json.loads(capsys.readouterr().out)
    file = tmp_path / "pipeline.yaml"
    sample = sample_path("demo.yaml").read_text(encoding="utf-8")
    file.write_text(f"{sample}\napi_keys:\n  {made['line']}\n", encoding="utf-8")
    environment = {"PIPELINE_SIMULATOR_URL": "http://127.0.0.1:9", "PIPELINE_SIMULATOR_SECRET": "x"}
    config = load_config(file, environment=environment)
    assert tenant_of(f"Bearer {made['key']}", config.api_keys) == "shop"
    assert made["key"] not in file.read_text(encoding="utf-8")


def test_for_people_key_and_line_stand_alone(capsys: pytest.CaptureFixture[str]):
    assert new(tenant="shop") == 0
    lines = capsys.readouterr().out.splitlines()
    (key,) = [line.strip() for line in lines if line.startswith("  dp_")]
    (line,) = [line.strip() for line in lines if "sha256" in line]
    assert line.startswith(f"{key[3:11]}: {{ tenant: shop, sha256: ")
    assert new(tenant="shop") == 0
    assert key not in capsys.readouterr().out


def test_a_tenant_that_cannot_be_is_refused(capsys: pytest.CaptureFixture[str]):
    assert new(tenant="My Shop") == 2
    assert "--tenant" in capsys.readouterr().err
