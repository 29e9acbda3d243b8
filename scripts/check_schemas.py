"""Says whether every schema can be read together with its released versions, in both directions.

While an upgrade rolls in, a reader of the release before meets records of the next one and the other
way round, and a topic may hold records of any release for as long as it keeps them. So each schema
in schemas/ is compared with every released version of it (schemas/released/VERSION/) by Avro's rules
of resolution, as reader and as writer (a registry calls that FULL_TRANSITIVE).

    scripts/check_schemas.py                   exit status 0, 1 (a change must not be made) or 2
    scripts/check_schemas.py --json            the same for programs
    scripts/check_schemas.py --release 0.2.0   check, then keep this version with the released ones
"""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"
RELEASED = "released"

_READS = {
    "int": {"int"},
    "long": {"int", "long"},
    "float": {"int", "long", "float"},
    "double": {"int", "long", "float", "double"},
    "string": {"string", "bytes"},
    "bytes": {"bytes", "string"},
}
"""What each primitive type reads, by Avro's rules of promotion; any other reads itself."""


@dataclass(frozen=True)
class Problem:
    """A change that must not be made. `field` is its path, or empty for the record itself."""

    file: str
    field: str
    release: str
    cause: str
    cure: str

    def __str__(self) -> str:
        place = f"{self.file}: {self.field}" if self.field else self.file
        return f"{place}: {self.cause}; {self.cure} (compared with release {self.release})"


@dataclass
class Side:
    """A schema and the named types inside it, by bare name."""

    schema: Any
    names: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._collect(self.schema)

    def _collect(self, kind: Any) -> None:
        if isinstance(kind, list):
            for part in kind:
                self._collect(part)
        elif isinstance(kind, dict):
            if "name" in kind and kind.get("type") in ("record", "enum", "fixed"):
                self.names[kind["name"]] = kind
            for part in kind.get("fields", ()):
                self._collect(part["type"])
            for key in ("items", "values"):
                self._collect(kind.get(key))
            if isinstance(kind.get("type"), dict | list):
                self._collect(kind["type"])

    def whole(self, kind: Any) -> Any:
        """A type written out: a name becomes what it stands for, a primitive its word."""
        if isinstance(kind, str):
            return self.names.get(kind.rpartition(".")[2], kind)
        if isinstance(kind, dict) and isinstance(kind["type"], dict | list):
            return self.whole(kind["type"])
        return kind


@dataclass
class Comparison:
    """Whether what `writer` writes can be read by `reader`; `problems` are (path, cause, cure)."""

    reader: Side
    writer: Side
    problems: list[tuple[str, str, str]] = field(default_factory=list)
    _met: set[str] = field(default_factory=set)

    def run(self) -> list[tuple[str, str, str]]:
        self._types(self.reader.schema, self.writer.schema, "")
        return self.problems

    def _types(self, reader: Any, writer: Any, path: str) -> None:
        reader, writer = self.reader.whole(reader), self.writer.whole(writer)
        if isinstance(writer, list):
            for branch in writer:
                self._types(reader, branch, path)
        elif isinstance(reader, list):
            self._one_of(reader, writer, path)
        elif _word(reader) != _word(writer):
            if _word(writer) not in _READS.get(_word(reader), ()):
                self._changed(_word(writer), _word(reader), path)
        else:
            self._same_kind(reader, writer, path)

    def _same_kind(self, reader: Any, writer: Any, path: str) -> None:
        kind = _word(reader)
        if _logical(reader) != _logical(writer):
            self._changed(_logical(writer) or kind, _logical(reader) or kind, path)
        elif kind in ("record", "enum", "fixed") and reader["name"] != writer["name"]:
            self._changed(writer["name"], reader["name"], path)
        elif kind == "record":
            self._fields(reader, writer, path)
        elif kind == "enum":
            lost = set(writer["symbols"]) - set(reader["symbols"])
            if lost and "default" not in reader:
                shown = ", ".join(sorted(lost))
                self._say(path, f"a reader does not know the symbol {shown}", "use a string")
        elif kind == "fixed" and reader["size"] != writer["size"]:
            self._changed(f"{writer['size']} bytes", f"{reader['size']} bytes", path)
        elif kind == "array":
            self._types(reader["items"], writer["items"], f"{path}[]")
        elif kind == "map":
            self._types(reader["values"], writer["values"], f"{path}{{}}")

    def _one_of(self, reader: list[Any], writer: Any, path: str) -> None:
        """Whether one branch of a reader's union takes what is written."""
        for branch in reader:
            trial = Comparison(self.reader, self.writer)
            trial._met = set(self._met)
            trial._types(branch, writer, path)
            if not trial.problems:
                return
            if _name(self.reader.whole(branch)) == _name(writer):
                self.problems += trial.problems  # the branch that is meant says what is wrong
                return
        self._changed(_name(writer), " or ".join(_name(self.reader.whole(b)) for b in reader), path)

    def _fields(self, reader: Any, writer: Any, path: str) -> None:
        if reader["name"] in self._met:
            return  # a record inside itself
        self._met.add(reader["name"])
        written = {one["name"]: one for one in writer["fields"]}
        for one in reader["fields"]:
            place = f"{path}.{one['name']}".lstrip(".")
            names = [one["name"], *one.get("aliases", ())]
            found = next((written[name] for name in names if name in written), None)
            if found is not None:
                self._types(one["type"], found["type"], place)
            elif "default" not in one:
                self._say(
                    place,
                    "it has no default, and records that lack it are read with this schema",
                    "give it a default",
                )
        self._met.discard(reader["name"])

    def _changed(self, was: str, now: str, path: str) -> None:
        self._say(
            path,
            f"{was} is read as {now}, which Avro does not allow",
            "keep the type; add a field with another name and a default beside it",
        )

    def _say(self, path: str, cause: str, cure: str) -> None:
        self.problems.append((path, cause, cure))


def _word(kind: Any) -> str:
    return kind if isinstance(kind, str) else str(kind["type"])


def _logical(kind: Any) -> str:
    return "" if isinstance(kind, str) else str(kind.get("logicalType", ""))


def _name(kind: Any) -> str:
    return kind["name"] if isinstance(kind, dict) and "name" in kind else _word(kind)


def compare(file: str, now: Any, release: str, then: Any) -> Iterator[Problem]:
    """What keeps two versions of a schema from reading each other's records."""
    for reader, writer, who in (
        (now, then, f"records of {release}"),
        (then, now, f"a reader of {release}"),
    ):
        for path, cause, cure in Comparison(Side(reader), Side(writer)).run():
            yield Problem(file, path, release, f"{who}: {cause}", cure)


def check(folder: Path = SCHEMAS) -> list[Problem]:
    """Every problem of the schemas in `folder` with their released versions.

    Raises:
        ValueError: a file is no JSON.
        OSError: a file cannot be read.
    """
    now = {path.name: json.loads(path.read_text("utf-8")) for path in folder.glob("*.avsc")}
    problems = []
    for path in sorted((folder / RELEASED).glob("*/*.avsc")):
        release, then = path.parent.name, json.loads(path.read_text("utf-8"))
        if path.name in now:
            problems += compare(path.name, now[path.name], release, then)
        else:
            problems.append(
                Problem(path.name, "", release, "it is gone, and topics may hold such records",
                        "keep the schema")
            )  # fmt: skip
    return problems


def keep(release: str, folder: Path = SCHEMAS) -> Path:
    """Copies the schemas in `folder` to the released ones.

    Raises:
        ValueError: `release` is no version, or is there already with other schemas.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", release):
        raise ValueError(f"--release: {release!r} is no version; give one like 0.2.0")
    place = folder / RELEASED / release
    if place.exists():
        raise ValueError(f"{place} is there already; a released schema is never changed")
    place.mkdir(parents=True)
    for path in folder.glob("*.avsc"):
        shutil.copy(path, place)
    return place


def main(words: list[str] | None = None, folder: Path = SCHEMAS) -> int:
    """Exit status 0, 1 (there are problems) or 2 (it could not run, and why)."""
    parser = argparse.ArgumentParser(description="Compares schemas with their released versions.")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--release", help="keep this version with the released ones")
    options = parser.parse_args(words)
    try:
        problems = check(folder)
        kept = keep(options.release, folder) if options.release and not problems else None
    except (ValueError, OSError) as error:
        print(f"check_schemas: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps([asdict(one) for one in problems], indent=2))
    else:
        print(*problems, sep="\n", end="\n" if problems else "")
        count = len(list((folder / RELEASED).glob("*")))
        print(f"schemas: {len(problems)} problems with {count} released versions")
        if kept:
            print(f"kept in {kept}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
