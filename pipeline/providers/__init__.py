"""Providers: each file translates between our words and one outside API. This table is the only
registration."""

from collections.abc import Mapping
from typing import Final

from pipeline.domain.ports import Adapter
from pipeline.providers.generic import Generic

PROVIDERS: Final[Mapping[str, Adapter]] = {
    "generic": Generic(),
}
