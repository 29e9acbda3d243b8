"""JSON from outside, read so that one text has one meaning: no duplicate keys, no NaN or infinity,
bounded in size and depth."""

import json
import math
from typing import Any

MAX_BYTES = 1 << 20
MAX_DEPTH = 32


class NotJson(ValueError):
    """The bytes are not JSON that we take; the text says why."""


def parse(raw: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """The value that `raw` (UTF-8) stands for.

    Raises:
        NotJson: too large, too deep, not UTF-8, not JSON, or with a key twice in one object.
    """
    if len(raw) > max_bytes:
        raise NotJson(f"{len(raw)} bytes are more than the {max_bytes} that are read")
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
        )
    except UnicodeDecodeError as error:
        raise NotJson(f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise NotJson(f"nested deeper than {max_depth}") from None
    except NotJson:
        raise
    except ValueError as error:
        raise NotJson(f"not JSON: {error}") from None
    if _deeper_than(value, max_depth):
        raise NotJson(f"nested deeper than {max_depth}")
    return value


def text(value: object, limit: int) -> str | None:
    """`value` when it is a text that can be written as UTF-8, cut to `limit` characters; else
    None (a lone surrogate is legal in JSON and in nothing else)."""
    if not isinstance(value, str):
        return None
    cut = value[:limit]
    try:
        cut.encode()
    except UnicodeEncodeError:
        return None
    return cut


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise NotJson("a key stands twice in one object")
    return value


def _constant(name: str) -> Any:
    raise NotJson(f"{name} is no JSON number")


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise NotJson("a number is too large")
    return number


def _deeper_than(value: object, limit: int) -> bool:
    level = [value]
    for _ in range(limit + 1):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        if not inner:
            return False
        level = inner
    return True
