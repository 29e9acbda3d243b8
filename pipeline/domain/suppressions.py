"""Addresses that must not be written to: how their records are keyed, and who they concern."""

from collections.abc import Mapping
from typing import Any, Final

EVERY: Final = "*"
"""Stands for every channel or every category."""


def suppression_key(tenant: str, address_hash: str, channel: str, category: str) -> str:
    """The key of a record in `suppressions`."""
    return f"{tenant}:{address_hash}:{channel}:{category}"


def suppressed(
    rows: Mapping[str, Mapping[str, Any]],
    tenant: str,
    address_hash: str,
    channel: str,
    category: str,
    now: int,
) -> bool:
    """Whether a record of the table `rows` (by record key) concerns this address at `now` (ms)."""
    if not rows:
        return False
    for one_channel in (channel, EVERY):
        for one_category in (category, EVERY):
            row = rows.get(suppression_key(tenant, address_hash, one_channel, one_category))
            if row is not None and (row["expires_at"] is None or row["expires_at"] > now):
                return True
    return False
