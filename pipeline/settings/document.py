"""YAML with places: every value knows its field path and its line, so that an error names file,
line, field, cause and cure. Nothing is guessed: unknown keys, repeated keys and wrong types are
errors."""

import difflib
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Never, Self, TypeVar

import yaml

from pipeline.domain.errors import BadInput

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
MAX_BYTES: Final = 1_000_000

T = TypeVar("T")


class Misplaced(BadInput):
    """A mistake in the document: `file`, `line` and `path` say where."""

    def __init__(self, file: str, line: int, path: str, cause: str, cure: str) -> None:
        super().__init__(f"{file}:{line}: {path or 'document'}", cause, cure)
        self.file, self.line, self.path = file, line, path


class _Noted(Exception):
    """This cannot be read, and the mistake that is to blame has been collected."""


class Node:
    """One value of the document. The readers check the type and raise Misplaced.

    With `problems`, a list that all parts of a document share, mistakes are collected there where
    reading can go on (`part`, `fields`, `entries`), so that one reading finds them all.
    """

    def __init__(
        self,
        file: str,
        path: str,
        node: yaml.Node | None,
        line: int,
        problems: list[Misplaced] | None = None,
    ) -> None:
        self.file = file
        self.path = path
        self._node = node
        self.line = line
        self._problems = problems

    @classmethod
    def read(cls, file: Path, problems: list[Misplaced] | None = None) -> Self:
        """The whole document.

        Raises:
            BadInput: the file is not there, or nothing that can be read; Misplaced: it is no YAML.
        """
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            cure = "give the path of a file that can be read"
            raise BadInput(str(file), error.strerror or "it cannot be read", cure) from None
        except UnicodeDecodeError:
            raise BadInput(str(file), "it is not UTF-8", "save it as UTF-8") from None
        if len(text) > MAX_BYTES:
            raise BadInput(str(file), f"it has over {MAX_BYTES} characters", "make it shorter")
        try:
            for event in yaml.parse(text):
                if isinstance(event, yaml.AliasEvent):
                    line = event.start_mark.line + 1 if event.start_mark else 1
                    cure = "write the value out"
                    raise Misplaced(str(file), line, "", "it uses an alias (*name)", cure)
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            cause = getattr(error, "problem", None) or "it is not YAML"
            raise Misplaced(str(file), line, "", str(cause), "correct the YAML there") from None
        return cls(str(file), "", node, 1, problems)

    def fail(self, cause: str, cure: str) -> Never:
        """Raises Misplaced for this place."""
        raise self._problem(cause, cure)

    def part(self, read: Callable[["Node"], T], instead: T) -> T:
        """What `read` makes of this value; where mistakes are collected, `instead` after noting
        the one that it met."""
        try:
            return read(self)
        except _Noted:
            return instead
        except Misplaced as error:
            self._note(error)
            return instead

    def fields(self, known: Collection[str], required: Collection[str] = ()) -> dict[str, "Node"]:
        """The entries of a mapping with these keys and no others."""
        entries = dict(self.entries())
        meant: set[str] = set()
        for name in [name for name in entries if name not in known]:
            child = entries.pop(name)
            near = difflib.get_close_matches(name, known, 1)
            meant.update(near)
            cure = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
            self._note(child._problem("there is no such key", cure))
        missing = [name for name in required if name not in entries]
        if missing:
            # A key that is only misspelt has been named; without it the mapping says nothing.
            left = [name for name in missing if name not in meant]
            if not left:
                raise _Noted
            self.fail(
                f"{', '.join(left)} {'is' if len(left) == 1 else 'are'} missing",
                "add it (deploy/pipeline.yaml shows how)",
            )
        return entries

    def _problem(self, cause: str, cure: str) -> Misplaced:
        return Misplaced(self.file, self.line, self.path, cause, cure)

    def _note(self, problem: Misplaced) -> None:
        if self._problems is None:
            raise problem
        self._problems.append(problem)

    def entries(self) -> Iterator[tuple[str, "Node"]]:
        """The entries of a mapping with any keys, in order; empty when nothing is there."""
        if self._empty():
            return
        if not isinstance(self._node, yaml.MappingNode):
            self.fail("this must be a mapping", "write `key: value` lines under it")
        seen: set[str] = set()
        for key, value in self._node.value:
            name = str(key.value)
            child = Node(
                self.file,
                f"{self.path}.{name}" if self.path else name,
                value,
                key.start_mark.line + 1,
                self._problems,
            )
            if name in seen:
                self._note(child._problem("this key is there twice", "keep one of them"))
                continue
            seen.add(name)
            yield name, child

    def items(self) -> list["Node"]:
        """The items of a list; empty when nothing is there."""
        if self._empty():
            return []
        if not isinstance(self._node, yaml.SequenceNode):
            self.fail("this must be a list", "write `- item` lines under it, or [a, b]")
        return [
            Node(
                self.file,
                f"{self.path}[{number}]",
                item,
                item.start_mark.line + 1,
                self._problems,
            )
            for number, item in enumerate(self._node.value)
        ]

    def text(self) -> str:
        """A text that is not empty; a number is taken as it is written."""
        if not isinstance(self._node, yaml.ScalarNode) or self._empty():
            self.fail("this must be a text", "write one value here")
        # YAML reads a bare NO, ON or Y as true or false: Norway is such a victim.
        if self._node.tag.endswith(":bool") and self._node.style is None:
            self.fail(
                f"YAML reads {self._node.value} as true or false",
                f'write it in quotes: "{self._node.value}"',
            )
        value = str(self._node.value)
        if not value.strip():
            self.fail("this is empty", "write a value, or leave the key out")
        return value

    def one_of(self, allowed: Collection[str]) -> str:
        """A text out of `allowed`."""
        value = self.text()
        if value not in allowed:
            near = difflib.get_close_matches(value, allowed, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            self.fail(f"{value} is not known", f"allowed: {', '.join(allowed)}{hint}")
        return value

    def matching(self, pattern: re.Pattern[str], expected: str) -> str:
        """A text of the given form; `expected` says it in words."""
        value = self.text()
        if not pattern.fullmatch(value):
            self.fail("this has the wrong form", f"expected: {expected}")
        return value

    def texts(self) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(item.text() for item in self.items())

    def flag(self) -> bool:
        """true or false."""
        value = self._scalar("bool")
        if not isinstance(value, bool):
            self.fail("this must be true or false", "write true or false")
        return value

    def whole(self, low: int, high: int) -> int:
        """A whole number within the bounds."""
        value = self._scalar("int")
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail("this must be a whole number", f"write one from {low} to {high}")
        if not low <= value <= high:
            self.fail(f"{value} is out of bounds", f"write one from {low} to {high}")
        return value

    def number(self, low: float, high: float) -> float:
        """A number within the bounds."""
        value = self._scalar("number")
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            self.fail("this must be a number", f"write one from {low:g} to {high:g}")
        if not low <= value <= high:
            self.fail(f"{value:g} is out of bounds", f"write one from {low:g} to {high:g}")
        return float(value)

    def duration(self, low_ms: int = 1, high_ms: int = 366 * 86_400_000) -> int:
        """Milliseconds from `500ms`, `30s`, `5m`, `72h` or `30d`, within the bounds."""
        found = _DURATION.fullmatch(self.text())
        if not found:
            self.fail(
                "this is no duration", "write a number and its unit: 500ms, 30s, 5m, 72h, 30d"
            )
        value = round(float(found[1]) * _UNIT_MS[found[2]])
        if not low_ms <= value <= high_ms:
            self.fail(
                f"{found[0]} is out of bounds",
                f"write something from {duration_text(low_ms)} to {duration_text(high_ms)}",
            )
        return value

    def secret(self, environment: Mapping[str, str]) -> str:
        """The value of the environment variable that `env:NAME` names."""
        value = self.text()
        if not value.startswith("env:"):
            self.fail("a secret stands in this file", "write env:NAME and set NAME where it runs")
        name = value.removeprefix("env:")
        found = environment.get(name, "")
        if not found:
            self.fail(f"the environment has no {name}", f"set {name} where the pipeline runs")
        return found

    def filled(self, environment: Mapping[str, str]) -> str:
        """A text in which `${NAME}` stands for an environment variable."""

        def value(found: re.Match[str]) -> str:
            if not environment.get(found[1]):
                self.fail(
                    f"the environment has no {found[1]}",
                    f"set {found[1]} where the pipeline runs, or write the value here",
                )
            return environment[found[1]]

        return re.sub(r"\$\{(\w+)\}", value, self.text())

    def _empty(self) -> bool:
        return self._node is None or (
            isinstance(self._node, yaml.ScalarNode) and self._node.tag.endswith(":null")
        )

    def _scalar(self, wanted: str) -> Any:
        if not isinstance(self._node, yaml.ScalarNode):
            self.fail(f"this must be a {wanted}", "write one value here")
        try:
            return yaml.safe_load(yaml.serialize(self._node))
        except yaml.YAMLError:
            return None


def duration_text(value_ms: int) -> str:
    """A duration as this file writes it."""
    for unit in ("d", "h", "m", "s"):
        if value_ms % _UNIT_MS[unit] == 0 and value_ms:
            return f"{value_ms // _UNIT_MS[unit]}{unit}"
    return f"{value_ms}ms"
