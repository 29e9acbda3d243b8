"""What is fetched once and used offline ever after: the embedded Kafka's jars, and those of other
Java servers that somebody names.

They are locked by hash (kafka.lock). A file counts as present only under its final name, which it
gets after its hash was right; so an interrupted download is repeated and a damaged one never used.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_AT_ONCE: Final = 6  # downloads; more does not help on a home connection
_TRIES: Final = 3
_TIMEOUT_S: Final = 30  # of silence, not of the whole download

Progress = Callable[[str], None]


class Unavailable(RuntimeError):
    """What is needed is neither in the cache nor can be fetched; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """Files that are locked and kept together.

    `folder` is theirs in the cache, `title` what they are, and `otherwise` what a person can do
    who has no network; it follows "connect to the internet and start again".
    """

    lock_file: Path
    folder: str
    title: str
    otherwise: str = ""


KAFKA: Final = Bundle(
    Path(__file__).with_name("kafka.lock"),
    "kafka",
    "Apache Kafka",
    ", or name a cluster in KAFKA_BOOTSTRAP_SERVERS",
)


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of a lock file."""

    group: str
    artifact: str
    version: str
    sha256: str
    size: int
    packaging: str = "jar"
    classifier: str = ""

    @property
    def name(self) -> str:
        """Its file name in the cache."""
        middle = f"-{self.classifier}" if self.classifier else ""
        return f"{self.artifact}-{self.version}{middle}.{self.packaging}"


def cache_directory() -> Path:
    """`PIPELINE_CACHE_DIR`, or a folder of ours in the user's cache directory."""
    named = os.environ.get("PIPELINE_CACHE_DIR")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "delivery-pipeline"


def locked_jars(lock_file: Path = KAFKA.lock_file) -> list[Jar]:
    """The files that a lock file names: `group:artifact:version[:packaging[:classifier]]`, hash and
    bytes on each line."""
    jars = []
    for line in lock_file.read_text().splitlines():
        if line and not line.startswith("#"):
            coordinate, digest, size = line.split()
            group, artifact, version, *kind = coordinate.split(":")
            hashed = digest.removeprefix("sha256:")
            jars.append(Jar(group, artifact, version, hashed, int(size), *kind))
    return jars


def kafka_jars(progress: Progress, directory: Path | None = None) -> Path:
    """The folder with every jar of the embedded Kafka; fetches what is missing, like `bundle`."""
    return bundle(KAFKA, progress, directory)


def bundle(wanted: Bundle, progress: Progress, directory: Path | None = None) -> Path:
    """The folder with every file of `wanted`; fetches what is missing.

    Needs no network when nothing is missing. Two processes may call it at once: one fetches.

    Raises:
        Unavailable: a file is missing and cannot be fetched.
    """
    jars = locked_jars(wanted.lock_file)
    folder = (directory or cache_directory()) / wanted.folder
    folder.mkdir(parents=True, exist_ok=True)
    if not _missing(folder, jars):
        return folder
    with _only_one(folder):
        missing = _missing(folder, jars)
        if missing:
            _fetch_all(wanted, folder, missing, progress)
    return folder


def _missing(folder: Path, jars: list[Jar]) -> list[Jar]:
    return [jar for jar in jars if not _present(folder / jar.name, jar.size)]


def _present(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch_all(wanted: Bundle, folder: Path, jars: list[Jar], progress: Progress) -> None:
    for left in folder.glob(".fetch-*"):  # by one who was killed; we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    total = sum(jar.size for jar in jars)
    progress(f"Fetching {wanted.title}: {len(jars)} files, {total / 1e6:.0f} MB, this once")
    done = 0
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        fetches = {pool.submit(_fetch, wanted, folder, jar): jar for jar in jars}
        try:
            for number, fetch in enumerate(as_completed(fetches), 1):
                fetch.result()
                done += fetches[fetch].size
                progress(
                    f"  {number:3d}/{len(jars)} {done * 100 // total:3d} % {fetches[fetch].name}"
                )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _fetch(wanted: Bundle, folder: Path, jar: Jar) -> None:
    """Puts `jar` into `folder` under its final name, or raises Unavailable."""
    from jgo.maven import MavenContext

    reason = ""
    for _ in range(_TRIES):
        # A folder for each try: what an interrupted one left behind is never looked at.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
            context = MavenContext(repo_cache=Path(scratch), timeout=_TIMEOUT_S)
            component = context.project(jar.group, jar.artifact).at_version(jar.version)
            part = component.artifact(classifier=jar.classifier, packaging=jar.packaging)
            try:
                path = Path(part.resolve())
            except Exception as error:  # noqa: BLE001 - whatever it is, the answer is another try
                reason = f"{type(error).__name__}: {error}"
                continue
            found = hashlib.sha256(path.read_bytes()).hexdigest()
            if found == jar.sha256:
                path.replace(folder / jar.name)
                return
            reason = f"its SHA-256 is {found}, {wanted.lock_file.name} says {jar.sha256}"
    raise Unavailable(
        f"{jar.name} could not be fetched: {reason}. {wanted.title} needs it once; connect to the"
        f" internet and start again{wanted.otherwise} (what is already in {folder} is kept)."
    )
