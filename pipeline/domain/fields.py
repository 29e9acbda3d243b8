"""Single fields of what callers write. A breach names field, cause and cure, and never repeats what
the caller wrote: a rejection is an event, and events carry no content and no address.
"""

import difflib
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from pipeline.domain.errors import BadInput

CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""What no name, key or label may hold."""

_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z_0-9]{0,39}")
_DIGITS: Final = re.compile(r"\d{4}")
_TYPES: Final[Mapping[type, str]] = {
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    type(None): "null",
    bytes: "bytes",
}


def object_of(value: object, field: str, known: frozenset[str]) -> dict[str, Any]:
    """The value as an object with no other fields than the known ones."""
    if type(value) is not dict:
        raise wrong_type(field, "an object", value)
    if value.keys() <= known:
        return value
    name = next(name for name in value if name not in known)
    within = "" if field == "body" else f"{field}."
    near = difflib.get_close_matches(str(name)[:40], known, 1)
    hint = f"did you mean {within}{near[0]}?" if near else f"known are {', '.join(sorted(known))}"
    # A name may hold anything, a number too, and this text goes into an event.
    plain = _PLAIN_NAME.fullmatch(str(name)) and not _DIGITS.search(str(name))
    raise BadInput(
        f"{within}{name}" if plain else field,
        "there is no such field" if plain else "it has a field with a name that is not known",
        hint,
        code="unknown_field",
    )


def name_of(value: object, field: str, limit: int) -> str | None:
    """A short text that names something, or None when there is none."""
    if value is None:
        return None
    if type(value) is not str:
        raise wrong_type(field, "text", value)
    if not value or value.isspace():
        raise BadInput(field, "it is empty", "leave it out, or give it a value", code="empty")
    if len(value) > limit:
        raise too_long(field, len(value), limit)
    if CONTROL.search(value):
        raise control_character(field)
    return value


def one_of(value: object, field: str, known: Collection[str]) -> str | None:
    """One of the known words, or None when there is none: empty is what an Avro client writes for
    "not given"."""
    if value is None or value == "":
        return None
    if type(value) is not str:
        raise wrong_type(field, "text", value)
    if value not in known:
        raise unknown_value(field, value, known, "it is not a value that is known")
    return value


def unknown_value(field: str, value: str, known: Collection[str], cause: str) -> BadInput:
    """A word that is not among the known ones, with the nearest of them."""
    near = difflib.get_close_matches(value.lower()[:40], known, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return BadInput(field, cause, f"write {listed(known)}{hint}", code="unknown_value")


def listed(known: Collection[str]) -> str:
    """`a, b or c`."""
    names = list(known)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def wrong_type(field: str, wanted: str, value: object) -> BadInput:
    """A value of another type than the wanted one, which is given in words."""
    is_now = _TYPES.get(type(value), "something else")
    return BadInput(
        field, f"it must be {wanted} and is {is_now}", f"write {wanted}", code="wrong_type"
    )


def too_long(field: str, length: int, limit: int) -> BadInput:
    """More characters than the limit."""
    return BadInput(field, f"it has {length} characters", f"write at most {limit}", code="too_long")


def too_many(field: str, count: int, limit: int, what: str) -> BadInput:
    """More items than the limit."""
    return BadInput(field, f"it has {count} {what}", f"write at most {limit}", code="too_long")


def control_character(field: str) -> BadInput:
    """A character that names cannot have."""
    return BadInput(
        field, "it has a control character in it", "take it out", code="control_character"
    )
