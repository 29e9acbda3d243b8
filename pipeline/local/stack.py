"""The servers of `pipeline up` and of the demo: what the settings do not name is embedded.

`start` gives back settings in which nothing is missing. While it runs, they also stand in
`<data>/running.env`, readable by this user alone, so that a command in another terminal finds the
same pipeline. Secrets that nobody gave are made once and kept in `<data>/secrets.env`.
"""

import contextlib
import os
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pydantic import SecretStr

from pipeline.domain.errors import BadInput
from pipeline.local.cache import Progress
from pipeline.local.clickhouse import EmbeddedClickHouse
from pipeline.local.kafka import EmbeddedKafka
from pipeline.settings import Settings
from pipeline.settings.environment import RUNNING, load_settings

KAFKA_PORT: Final = 9092
CLICKHOUSE_PORT: Final = 8123

_SECRETS: Final = "secrets.env"


class Stack:
    """Embedded servers for what `settings` leave open. Ports: 0 takes any free one."""

    def __init__(
        self,
        settings: Settings,
        kafka_port: int = KAFKA_PORT,
        clickhouse_port: int = CLICKHOUSE_PORT,
        java: Sequence[str] = (),
    ) -> None:
        """Nothing happens yet. `java` are options of the embedded Kafka's Java.

        Raises:
            PortTaken: somebody listens on a port that is needed.
        """
        data = settings.data_dir.absolute()
        self.settings = settings.model_copy(update={"data_dir": data})
        self._told = False
        self.kafka = (
            None if settings.bootstrap else EmbeddedKafka(data / "kafka", kafka_port, java=java)
        )
        named = settings.clickhouse_url.get_secret_value()
        self.clickhouse = (
            None if named else EmbeddedClickHouse(data / "clickhouse", clickhouse_port)
        )

    def start(self, progress: Progress = print) -> Settings:
        """Starts what is embedded, all at the same time; returns the complete settings.

        Raises:
            Unavailable: something must be fetched once and cannot be.
            StartError: a server did not come up.
            BadInput: brokers of your own are named, and no pepper or reference keys.
        """
        self._complete()
        try:
            with ThreadPoolExecutor(2) as pool:
                starts = []
                if self.kafka is not None:
                    starts.append(pool.submit(self.kafka.start, progress))
                if self.clickhouse is not None:
                    starts.append(pool.submit(self.clickhouse.start))
                for start in starts:
                    start.result()
            _write_private(self._file(RUNNING), environment_of(self.settings))
            self._told = True
        except BaseException:
            self.stop()
            raise
        return self.settings

    def stop(self) -> None:
        """Ends the embedded servers, ClickHouse first."""
        if self._told:  # another pipeline's word on the same data stays
            self._told = False
            with contextlib.suppress(FileNotFoundError):
                self._file(RUNNING).unlink()
        if self.clickhouse is not None:
            self.clickhouse.stop()
        if self.kafka is not None:
            self.kafka.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _file(self, name: str) -> Path:
        return self.settings.data_dir / name

    def _complete(self) -> None:
        changes: dict[str, object] = {}
        if self.kafka is not None:
            made = self._own_secrets()
            changes["bootstrap"] = self.kafka.bootstrap
            if not self.settings.pepper.get_secret_value():
                changes["pepper"] = SecretStr(made["PIPELINE_PEPPER"])
            if not self.settings.reference_keys.get_secret_value():
                changes["reference_keys"] = SecretStr(made["PIPELINE_REFERENCE_KEYS"])
        if self.clickhouse is not None:
            changes["clickhouse_url"] = SecretStr(self.clickhouse.url)
        self.settings = self.settings.model_copy(update=changes)
        # Of a cluster that others share, they must be given: these raise when they are not.
        _ = self.settings.pepper_bytes
        _ = self.settings.reference_key_table

    def _own_secrets(self) -> dict[str, str]:
        path = self._file(_SECRETS)
        if not path.exists():
            made = {
                "PIPELINE_PEPPER": secrets.token_hex(32),
                "PIPELINE_REFERENCE_KEYS": f"0:{secrets.token_hex(32)}",
            }
            _write_private(path, made)
        lines = path.read_text().splitlines()
        kept = dict(line.split("=", 1) for line in lines if "=" in line)
        missing = {"PIPELINE_PEPPER", "PIPELINE_REFERENCE_KEYS"} - kept.keys()
        if missing:
            raise BadInput(
                str(path),
                f"{', '.join(sorted(missing))} is not in it",
                f"put it back, or remove {self.settings.data_dir} to begin from nothing",
            )
        return kept


def environment_of(settings: Settings) -> dict[str, str]:
    """The settings as environment variables, secrets in the clear: for a child process of ours."""
    found = {}
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        text = (
            value.get_secret_value()
            if isinstance(value, SecretStr)
            else str("" if value is None else value)
        )
        alias = field.validation_alias
        if text:
            found[str(getattr(alias, "choices", [alias])[0])] = text
    return found


def settings_for_up(**changes: object) -> Settings:
    """Settings of the environment alone: what another pipeline left in running.env is not ours."""
    return load_settings(running=False, **changes)


def _write_private(path: Path, values: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.writelines(f"{name}={value}\n" for name, value in values.items())
    scratch.replace(path)
