"""Connections and secrets come from the environment; secrets are never shown."""

from pathlib import Path

import pytest

from pipeline.domain.errors import BadInput
from pipeline.settings import load_settings
from pipeline.settings.environment import describe

SECRET = "00112233445566778899aabbccddeeff"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable, *_ in describe():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)


def test_nothing_set_means_embedded() -> None:
    settings = load_settings()
    assert settings.bootstrap == ""
    assert settings.clickhouse_url.get_secret_value() == ""
    assert settings.prefix == "delivery."
    assert settings.security == {}
    assert settings.gateway_url == "http://127.0.0.1:8080"


def test_tls_and_sasl_become_the_clients_options(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "KAFKA_BOOTSTRAP_SERVERS": "a.example.org:9093,b.example.org:9093",
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "KAFKA_SASL_USERNAME": "delivery",
        "KAFKA_SASL_PASSWORD": "geheim-1",
        "KAFKA_SSL_CA_LOCATION": "/etc/ca.pem",
    }.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert dict(settings.security) == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "delivery",
        "sasl.password": "geheim-1",
        "ssl.ca.location": "/etc/ca.pem",
    }
    assert "geheim-1" not in repr(settings)
    assert "geheim-1" not in str(settings)
    assert "geheim-1" not in settings.model_dump_json()


def test_the_pepper_is_hex_or_base64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_PEPPER", SECRET)
    assert load_settings().pepper_bytes == bytes.fromhex(SECRET)
    monkeypatch.setenv("PIPELINE_PEPPER", "ABEiM0RVZneImaq7zN3u_w")
    assert load_settings().pepper_bytes == bytes.fromhex(SECRET)


def test_the_first_reference_key_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_REFERENCE_KEYS", f"3:{SECRET}, 0:{SECRET[::-1]}")
    keys = load_settings().reference_key_table
    assert list(keys) == [3, 0]
    assert keys[3] == bytes.fromhex(SECRET)


def test_a_missing_secret_is_named_when_it_is_needed() -> None:
    settings = load_settings()
    with pytest.raises(BadInput, match="PIPELINE_PEPPER: it is not set; set it once"):
        _ = settings.pepper_bytes
    with pytest.raises(BadInput, match="PIPELINE_REFERENCE_KEYS: it is not set"):
        _ = settings.reference_key_table


@pytest.mark.parametrize(
    ("variable", "value", "cure"),
    [
        ("PIPELINE_PEPPER", "0011", "16 bytes or more; it has 2"),
        ("PIPELINE_PEPPER", "not a secret!!", "hex or base64"),
        ("PIPELINE_REFERENCE_KEYS", "99:" + SECRET, "id of 0 to 15"),
        ("PIPELINE_REFERENCE_KEYS", SECRET, "id:hex"),
        ("PIPELINE_REFERENCE_KEYS", f"1:{SECRET},1:{SECRET}", "each id once"),
        ("PIPELINE_PREFIX", "a b", "letters, digits"),
        ("KAFKA_SECURITY_PROTOCOL", "TLS", "SASL_SSL"),
        ("KAFKA_BOOTSTRAP_SERVERS", "localhost", "host:port"),
        ("CLICKHOUSE_URL", "localhost:8123", "http"),
        ("PIPELINE_GATEWAY_PORT", "99999", "correct it"),
    ],
)
def test_a_wrong_value_names_the_variable_and_not_the_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, cure: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(BadInput) as caught:
        load_settings()
    assert caught.value.field == variable
    assert cure in caught.value.cure
    if "PEPPER" in variable or "KEYS" in variable:
        assert value not in str(caught.value)


def test_a_running_pipeline_fills_what_is_left_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".pipeline").mkdir()
    file = tmp_path / ".pipeline" / "running.env"
    file.write_text(f"KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9\nPIPELINE_PEPPER={SECRET}\n")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka.example.org:9092")
    assert load_settings().bootstrap == "kafka.example.org:9092"
    assert load_settings().pepper_bytes == bytes.fromhex(SECRET)
    assert load_settings(running=False).pepper.get_secret_value() == ""


def test_every_setting_has_a_meaning() -> None:
    assert all(meaning for _, _, meaning, _ in describe())


def test_changes_go_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_PREFIX", "one.")
    assert load_settings(prefix="two.").prefix == "two."
    with pytest.raises(TypeError, match="no such settings"):
        load_settings(prefx="two.")
