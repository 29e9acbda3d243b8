"""A bounded number of things in hand, shared fairly by tenants who come and go."""

from typing import Final


class Shares:
    """Each tenant may hold as many as are still free: one alone gets half of the limit, two get a
    third each, and a newcomer always finds room."""

    def __init__(self, limit: int) -> None:
        self._limit: Final = limit
        self._held: dict[str, int] = {}
        self._total = 0

    def take(self, tenant: str) -> bool:
        """Whether the tenant may have one more now; if so, it is counted until `give_back`."""
        held = self._held.get(tenant, 0)
        if held >= self._limit - self._total:
            return False
        self._held[tenant] = held + 1
        self._total += 1
        return True

    def give_back(self, tenant: str) -> None:
        """One that was taken is done."""
        self._total -= 1
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]  # tenants may be many, and most are silent
