"""What `pipeline up` starts, and how another terminal finds it."""

import stat
from pathlib import Path

import clickhouse_connect
import pytest

from pipeline.domain.errors import BadInput
from pipeline.local.kafka import answers
from pipeline.local.stack import Stack, environment_of, settings_for_up
from pipeline.settings import load_settings


def test_up_is_found_from_another_terminal_and_keeps_its_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "CLICKHOUSE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIPELINE_DATA_DIR", str(tmp_path))
    with Stack(settings_for_up(), kafka_port=0, clickhouse_port=0) as stack:
        mine = stack.settings
        assert answers(mine.bootstrap, 5.0)
        found = load_settings()
        assert found.bootstrap == mine.bootstrap
        assert found.pepper_bytes == mine.pepper_bytes
        assert found.reference_key_table == mine.reference_key_table
        client = clickhouse_connect.get_client(dsn=found.clickhouse_url.get_secret_value())
        assert client.query("SELECT 1").result_rows == [(1,)]
        client.close()
        assert environment_of(mine)["KAFKA_BOOTSTRAP_SERVERS"] == mine.bootstrap
        for name in ("running.env", "secrets.env"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert not (tmp_path / "running.env").exists()
    assert load_settings().bootstrap == ""
    again = Stack(settings_for_up(), kafka_port=0, clickhouse_port=0)
    again._complete()
    assert again.settings.pepper_bytes == mine.pepper_bytes


def test_a_shared_cluster_needs_the_secrets_that_others_have(tmp_path: Path) -> None:
    settings = settings_for_up(data_dir=tmp_path, bootstrap="127.0.0.1:9")
    with pytest.raises(BadInput, match="PIPELINE_PEPPER: it is not set"):
        Stack(settings, clickhouse_port=0).start()
