"""What a check says."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's answer: how many things it looked at, and what was wrong with which.

    A check that looked at nothing has proved nothing; `looked` lets the bench insist on work.
    """

    check: str
    guarantee: str
    looked: int
    count: int
    examples: tuple[str, ...]
    allowed: int = 0

    @property
    def ok(self) -> bool:
        return self.count <= self.allowed

    def __str__(self) -> str:
        head = f"{self.check} ({self.guarantee}): {self.count} of {self.looked}"
        return head if self.ok else "\n  ".join((head, *self.examples))


def finding(
    check: str, guarantee: str, looked: int, wrong: Iterable[str], allowed: int = 0
) -> Finding:
    """A finding over texts that each name the offending ids."""
    listed = list(wrong)
    return Finding(check, guarantee, looked, len(listed), tuple(listed[:SHOWN]), allowed)
