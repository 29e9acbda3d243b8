"""The processes of a pipeline on this machine: workers of every stage and the simulated provider,
started, watched and stopped in order."""

import json
import os
import secrets
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

from pipeline.domain.errors import BadInput
from pipeline.domain.ids import pepper_fingerprint
from pipeline.local.ports import HOST
from pipeline.local.stack import environment_of
from pipeline.local.supervisor import Supervisor, Watcher
from pipeline.runtime.admin import Admin, TopicsMismatch
from pipeline.runtime.clickhouse import Store
from pipeline.runtime.codec import Codec
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.registry import Registry
from pipeline.settings import Settings
from pipeline.settings.environment import METRICS_PORT, RUNNING, describe
from pipeline.topology import CATALOGUE, STAGES

SIMULATOR: Final = "simulator"
SIMULATOR_URL: Final = "PIPELINE_SIMULATOR_URL"
SIMULATOR_SECRET: Final = "PIPELINE_SIMULATOR_SECRET"  # noqa: S105 - a variable's name
READY_S: Final = 60.0

STOP_ORDER: Final = (("accept", "gateway"), ("fallback",), ("dispatch",), ("receipts",), ("sink",))
"""First nothing new comes in, then what is on its way is finished, then the rest is stored."""

_POLL_S: Final = 0.1


def _new_secret() -> str:
    """What callbacks are signed with, as Standard Webhooks writes it."""
    return "whsec_" + b64encode(secrets.token_bytes(24)).decode()


@dataclass(frozen=True, slots=True)
class Simulation:
    """The simulated provider of a fleet."""

    script: Path
    ledger: Path
    port: int
    seed: int = 1
    secret: str = field(default_factory=_new_secret)

    @property
    def url(self) -> str:
        """Its base address."""
        return f"http://{HOST}:{self.port}"

    def environment(self) -> dict[str, str]:
        """What a policy file may name."""
        return {SIMULATOR_URL: self.url, SIMULATOR_SECRET: self.secret}


class NotReady(RuntimeError):
    """Something did not come up; the text says what, and where to look."""


class Fleet:
    """`workers` of every stage, for complete `settings`. Use `start`, then `stop`."""

    def __init__(
        self,
        settings: Settings,
        workers: int,
        simulation: Simulation | None = None,
        on_exit: Watcher | None = None,
    ) -> None:
        self.settings, self.workers, self.simulation = settings, workers, simulation
        self.supervisor = Supervisor(settings.data_dir / "logs", on_exit)
        # Empty where we say nothing, so that no child finds something else in our environment.
        self._environment = {name: "" for name, *_ in describe()} | environment_of(settings)
        if simulation is not None:
            self._environment |= simulation.environment()
        # Several workers on one machine cannot share one.
        self._environment[METRICS_PORT] = "0"

    def start_simulator(self) -> None:
        """Starts the simulated provider, where there is one, and tells other terminals of it."""
        simulation = self.simulation
        if simulation is None:
            return
        with (self.settings.data_dir / RUNNING).open("a", encoding="utf-8") as file:
            file.writelines(f"{k}={v}\n" for k, v in simulation.environment().items())
        self.supervisor.add(
            SIMULATOR,
            [
                *_program("simulate", "generic"),
                "--ledger", str(simulation.ledger),
                "--script", str(simulation.script),
                "--port", str(simulation.port),
                "--seed", str(simulation.seed),
            ],
            simulation.environment(),
        )  # fmt: skip

    def start_workers(self) -> None:
        """Starts every worker."""
        for stage in STAGES:
            for slot in range(self.workers):
                argv = _program("run", stage, "--slot", str(slot))
                self.supervisor.add(f"{stage}-{slot}", argv, self._environment)

    def await_ready(self, said: Callable[[str], None] = lambda _: None) -> None:
        """Returns when every group has all of its members and webhooks are taken. `said` is told
        what is waited for.

        Raises:
            NotReady: not within a minute, or a worker keeps ending.
        """
        admin = Cluster(
            self.settings.bootstrap,
            self.settings.prefix,
            self.settings.security,
            self.settings.group_protocol,
        ).admin()
        prefix = self.settings.prefix
        waiting = {prefix + group for stage in STAGES for group in CATALOGUE.groups(stage)}
        until = time.monotonic() + READY_S
        while True:
            answers = admin.describe_consumer_groups(sorted(waiting)) if waiting else {}
            for name, future in answers.items():
                group = future.result(READY_S)
                if len(group.members) >= self.workers and group.state.name == "STABLE":
                    waiting.discard(name)
            late = sorted(name.removeprefix(prefix) for name in waiting)
            if not _answers(f"{self._gateway}/readyz"):
                late.append("gateway")
            if self.simulation is not None and not _answers(f"{self.simulation.url}/stats"):
                late.append(SIMULATOR)
            if not late:
                return
            said(", ".join(late))
            ending = [row for row in self.supervisor.status() if row.restarts >= 3]
            if ending or time.monotonic() > until:
                names = ", ".join(row.name for row in ending) or ", ".join(late)
                how = "keep ending" if ending else f"not up within {READY_S:.0f} s"
                raise NotReady(f"{names}: {how}. The last words:\n{self.last_words()}")
            time.sleep(_POLL_S)

    @property
    def _gateway(self) -> str:
        return f"http://{self.settings.gateway_host}:{self.settings.gateway_port}"

    def owed_receipts(self) -> int | None:
        """How many receipts the simulated provider has still to send; None when it is away."""
        if self.simulation is None:
            return 0
        try:
            return int(json.loads(_get(f"{self.simulation.url}/stats"))["pending_receipts"])
        except (OSError, ValueError, KeyError):
            return None

    def last_words(self, lines: int = 3) -> str:
        """The ends of the logs of processes that do not run, or were started again."""
        found = []
        for row in self.supervisor.status():
            if row.restarts or row.state != "running":
                try:
                    end = row.log.read_text(errors="replace").splitlines()[-lines:]
                except OSError:
                    end = ["(no log)"]
                found += [f"{row.name} ({row.log}):", *(f"  {line[:400]}" for line in end)]
        return "\n".join(found) or f"(nothing; the logs are in {self.supervisor.logs})"

    def stop(self, patience_s: float = 10.0) -> None:
        """Ends everything in order; nothing is left when it returns."""
        slots = range(self.workers)
        with ThreadPoolExecutor(max(1, 2 * self.workers)) as pool:
            for stages in STOP_ORDER:
                names = [f"{stage}-{slot}" for stage in stages for slot in slots]
                list(pool.map(lambda name: self.supervisor.remove(name, patience_s), names))
        self.supervisor.stop(patience_s)


def prepare(settings: Settings) -> None:
    """Brings topics and tables to what this version needs.

    Raises:
        ClusterUnusable, RegistryUnavailable, RegistryRefused, Unavailable, WrongTables
        TopicsMismatch: something differs that only a person can change.
    """
    cluster = Cluster(
        settings.bootstrap, settings.prefix, settings.security, settings.group_protocol
    )
    admin = Admin(cluster, codec_of(settings), pepper_fingerprint(settings.pepper_bytes))
    plan = admin.plan()
    if plan.problems:
        raise TopicsMismatch("; ".join(plan.problems))
    with ThreadPoolExecutor(1) as pool:
        tables = pool.submit(_migrate, settings)
        admin.apply(plan)
        tables.result()


def _migrate(settings: Settings) -> None:
    store = Store(settings.clickhouse_url.get_secret_value())
    store.migrate()
    store.close()


def codec_of(settings: Settings) -> Codec:
    """A codec that may register what it writes. Raises RegistryUnavailable, RegistryRefused."""
    registry = None
    if settings.registry_url:
        password = settings.registry_password.get_secret_value()
        login = (settings.registry_user, password) if settings.registry_user else None
        registry = Registry(settings.registry_url, login)
    codec = Codec(registry, settings.prefix)
    codec.start()
    return codec


def needs_simulator(config: Path) -> bool:
    """Whether a policy file speaks of the simulated provider, and nobody said where it is.

    Raises:
        BadInput: the file cannot be read.
    """
    try:
        text = config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            "PIPELINE_CONFIG", f"{config}: {error}", "name a file that can be read"
        ) from None
    return SIMULATOR_URL in text and not os.environ.get(SIMULATOR_URL)


class Interrupted(BaseException):
    """SIGTERM or SIGHUP came while something else was going on; ends a command like Ctrl-C."""


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP raise Interrupted in the main thread, so that `finally` runs."""
    import signal

    def raise_it(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    watched = (signal.SIGTERM, signal.SIGHUP)
    former = {number: signal.signal(number, raise_it) for number in watched}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Signals wait while things are stopped: whoever has no patience has kill -9, and then nothing
    is left either."""
    import signal

    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    former = {number: signal.signal(number, signal.SIG_IGN) for number in watched}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _program(*words: str) -> list[str]:
    return [sys.executable, "-m", "pipeline", *words]


def _answers(url: str) -> bool:
    try:
        _get(url)
    except OSError:
        return False
    return True


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=3) as reply:  # noqa: S310 - our own processes
        body: bytes = reply.read()
        return body
