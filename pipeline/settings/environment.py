"""Connections, secrets and places: `Settings`, from environment variables only.

Every field names its variable; `pipeline config` prints them with their meaning. Secrets are
`SecretStr`, so that no log line, trace or error shows one.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipeline.domain.errors import BadInput

MIN_SECRET_BYTES: Final = 16
RUNNING: Final = "running.env"
"""In the data directory, while `pipeline up` runs: how to reach it."""

METRICS_PORT: Final = "PIPELINE_METRICS_PORT"

_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]{0,60}")
_KEY: Final = re.compile(r"(?:[0-9]|1[0-5])")


def _named(variable: str, default: Any, meaning: str) -> Any:
    return Field(default=default, validation_alias=AliasChoices(variable), description=f"{meaning}")


class Settings(BaseSettings):
    """Everything that differs between two machines; frozen."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", case_sensitive=True, env_ignore_empty=True
    )

    bootstrap: str = _named(
        "KAFKA_BOOTSTRAP_SERVERS", "", "host:port, with commas between; empty: the embedded Kafka"
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = _named(
        "KAFKA_SECURITY_PROTOCOL", "PLAINTEXT", "how to speak to the brokers"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", ""] = _named(
        "KAFKA_SASL_MECHANISM", "", "how to log in, with a SASL_ protocol"
    )
    sasl_username: str = _named("KAFKA_SASL_USERNAME", "", "who logs in")
    sasl_password: SecretStr = _named("KAFKA_SASL_PASSWORD", SecretStr(""), "its password")
    ssl_ca: Path | None = _named(
        "KAFKA_SSL_CA_LOCATION", None, "file of the authority that signed the brokers"
    )
    ssl_certificate: Path | None = _named(
        "KAFKA_SSL_CERTIFICATE_LOCATION", None, "file of our certificate, where brokers ask for it"
    )
    ssl_key: Path | None = _named("KAFKA_SSL_KEY_LOCATION", None, "file of its key")
    clickhouse_url: SecretStr = _named(
        "CLICKHOUSE_URL",
        SecretStr(""),
        "http(s)://user:password@host:port/database; empty: the embedded engine",
    )
    registry_url: str = _named(
        "SCHEMA_REGISTRY_URL", "", "Confluent-compatible registry; empty: no registry"
    )
    registry_user: str = _named("SCHEMA_REGISTRY_USER", "", "its user")
    registry_password: SecretStr = _named("SCHEMA_REGISTRY_PASSWORD", SecretStr(""), "its password")
    prefix: str = _named(
        "PIPELINE_PREFIX", "delivery.", "in front of every topic, group and transactional id"
    )
    config: Path | None = _named(
        "PIPELINE_CONFIG", None, "the YAML file of providers, routes and policies"
    )
    data_dir: Path = _named(
        "PIPELINE_DATA_DIR", Path(".pipeline"), "state, locks and the embedded servers' data"
    )
    pepper: SecretStr = _named(
        "PIPELINE_PEPPER",
        SecretStr(""),
        "hex or base64, 16 bytes or more; recipients' keys depend on it, so it never changes",
    )
    reference_keys: SecretStr = _named(
        "PIPELINE_REFERENCE_KEYS",
        SecretStr(""),
        "id:hex, with commas between; the first signs, all are understood",
    )
    group_protocol: Literal["classic", "consumer"] = _named(
        "PIPELINE_GROUP_PROTOCOL", "classic", "how groups are run (decision record of tasks)"
    )
    gateway_host: str = _named("PIPELINE_GATEWAY_HOST", "127.0.0.1", "where webhooks come in")
    gateway_port: int = Field(
        default=8080,
        ge=0,
        le=65535,
        validation_alias=AliasChoices("PIPELINE_GATEWAY_PORT"),
        description="its port",
    )
    metrics_host: str = _named(
        "PIPELINE_METRICS_HOST",
        "127.0.0.1",
        "where a worker answers /metrics, /healthz and /readyz",
    )
    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        validation_alias=AliasChoices(METRICS_PORT),
        description="its port, for each worker its own; 0: any free one, named in"
        " <data>/metrics/<stage>-<slot>.json; empty: none",
    )
    log_form: Literal["json", "text", ""] = _named(
        "PIPELINE_LOG", "", "how logs are written; empty: json by workers, else only warnings"
    )
    attempt_log: Literal["on", "off"] = _named(
        "PIPELINE_ATTEMPT_LOG", "off", "on: dispatch logs a line for each attempt"
    )
    otlp_endpoint: str = _named(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "",
        "where traces and metrics go, by OTLP over HTTP with protobuf; empty: nowhere",
    )
    otlp_headers: SecretStr = _named(
        "OTEL_EXPORTER_OTLP_HEADERS", SecretStr(""), "name=value for it, with commas between"
    )
    trace_ratio: float = Field(
        default=0.01,
        ge=0,
        le=1,
        validation_alias=AliasChoices("OTEL_TRACES_SAMPLER_ARG"),
        description="share of the messages without a caller's trace that get one, with an endpoint",
    )
    public_url: str = _named(
        "PIPELINE_PUBLIC_URL", "", "the gateway as providers reach it; empty: host and port"
    )

    @field_validator("prefix")
    @classmethod
    def _is_topic_text(cls, value: str) -> str:
        if not _PREFIX.fullmatch(value):
            raise ValueError("letters, digits, dot, dash and underscore, 60 at most")
        return value

    @field_validator("bootstrap")
    @classmethod
    def _is_address_list(cls, value: str) -> str:
        for address in filter(None, value.split(",")):
            if not re.fullmatch(r"\s*(?:\w+://)?(\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5}\s*", address):
                raise ValueError("host:port, with commas between")
        return value

    @field_validator("registry_url", "public_url", "otlp_endpoint")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if value and not re.match(r"https?://[^/]", value):
            raise ValueError("an address that begins with http:// or https://")
        return value.rstrip("/")

    @field_validator("clickhouse_url")
    @classmethod
    def _is_clickhouse(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if text and not re.match(r"(?:https?|clickhouses?)://[^/]", text):
            raise ValueError("an address that begins with http:// or https://")
        return value

    @field_validator("pepper")
    @classmethod
    def _is_secret(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if text:
            _long_enough(text)
        return value

    @field_validator("reference_keys")
    @classmethod
    def _are_keys(cls, value: SecretStr) -> SecretStr:
        _keys(value.get_secret_value())
        return value

    @property
    def security(self) -> Mapping[str, str]:
        """The Kafka client's own options for TLS and SASL; it holds the password in the clear."""
        options = {
            "security.protocol": self.security_protocol,
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": self.sasl_password.get_secret_value(),
            "ssl.ca.location": str(self.ssl_ca or ""),
            "ssl.certificate.location": str(self.ssl_certificate or ""),
            "ssl.key.location": str(self.ssl_key or ""),
        }
        if self.security_protocol == "PLAINTEXT":
            return MappingProxyType({})
        return MappingProxyType({name: value for name, value in options.items() if value})

    @property
    def pepper_bytes(self) -> bytes:
        """The pepper.

        Raises:
            BadInput: there is none.
        """
        text = self.pepper.get_secret_value()
        if not text:
            raise BadInput(
                "PIPELINE_PEPPER",
                "it is not set",
                "set it once to 32 random bytes (openssl rand -hex 32) and keep it for ever",
            )
        return _long_enough(text)

    @property
    def reference_key_table(self) -> Mapping[int, bytes]:
        """Keys by id, in the given order: the first signs.

        Raises:
            BadInput: there is none.
        """
        keys = _keys(self.reference_keys.get_secret_value())
        if not keys:
            raise BadInput(
                "PIPELINE_REFERENCE_KEYS",
                "it is not set",
                "set it to 0: and 32 random bytes in hex (0:$(openssl rand -hex 32))",
            )
        return MappingProxyType(keys)

    @property
    def gateway_url(self) -> str:
        """The gateway as providers reach it, without a slash at the end."""
        return self.public_url or f"http://{self.gateway_host}:{self.gateway_port}"


def load_settings(*, running: bool = True, **changes: Any) -> Settings:
    """The settings of this process's environment; `changes` (by field name) go first.

    With `running`, what the environment leaves open comes from the pipeline that `pipeline up`
    runs in the same data directory, if there is one.

    Raises:
        BadInput: names the variable, what is wrong and what is allowed; never a secret's value.
    """
    try:
        found = Settings()
        file = changes.get("data_dir", found.data_dir) / RUNNING
        if running and file.is_file():
            found = Settings(_env_file=file)  # type: ignore[call-arg]
    except ValidationError as error:
        raise _bad(error) from None
    if not changes:
        return found
    unknown = changes.keys() - Settings.model_fields.keys()
    if unknown:
        raise TypeError(f"no such settings: {sorted(unknown)}")
    return found.model_copy(update=changes)


def running_values(data_dir: Path) -> dict[str, str]:
    """What the pipeline that `pipeline up` runs in this data directory tells, by variable; nothing
    when there is none."""
    file = data_dir / RUNNING
    told = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return dict(line.split("=", 1) for line in told if "=" in line)


def describe() -> list[tuple[str, str, str, bool]]:
    """(variable, default, meaning, whether it is secret) of every setting, for documents."""
    rows = []
    for field in Settings.model_fields.values():
        assert isinstance(field.validation_alias, AliasChoices)
        secret = isinstance(field.default, SecretStr)
        default = "" if secret or field.default is None else str(field.default)
        rows.append(
            (str(field.validation_alias.choices[0]), default, field.description or "", secret)
        )
    return rows


def _bad(error: ValidationError) -> BadInput:
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    place = str(first["loc"][0]) if first["loc"] else "environment"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "literal_error":
        allowed = message.removeprefix("Input should be ")
        return BadInput(place, "it has a value that is not known", f"allowed: {allowed}")
    if first["type"] == "value_error":
        return BadInput(place, "it cannot be meant so", f"expected: {message}")
    return BadInput(place, message, "correct it in the environment")


def _secret_bytes(text: str) -> bytes | None:
    """Hex, or base64 in either alphabet; None when it is neither."""
    if re.fullmatch(r"(?:[0-9a-fA-F]{2})+", text):
        return bytes.fromhex(text)
    try:
        padded = text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4)
        return base64.b64decode(padded, validate=True)
    except (binascii.Error, ValueError):
        return None


def _long_enough(text: str) -> bytes:
    value = _secret_bytes(text)
    if value is None:
        raise ValueError("hex or base64")
    if len(value) < MIN_SECRET_BYTES:
        raise ValueError(f"{MIN_SECRET_BYTES} bytes or more; it has {len(value)}")
    return value


def _keys(text: str) -> dict[int, bytes]:
    keys: dict[int, bytes] = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        number, colon, secret = part.partition(":")
        if not colon or not _KEY.fullmatch(number):
            raise ValueError("id:hex with an id of 0 to 15, with commas between")
        if int(number) in keys:
            raise ValueError(f"each id once; {number} is there twice")
        keys[int(number)] = _long_enough(secret)
    return keys
