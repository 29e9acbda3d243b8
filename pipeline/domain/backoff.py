"""Full-jitter exponential backoff (delay uniform in 0 to the exponential cap), as a function of
its arguments: the jitter is a number that the caller gives."""

import hashlib

from pipeline.domain.policy import RetryPolicy


def full_jitter_ms(policy: RetryPolicy, tries: int, unit: float) -> int:
    """The wait after `tries` tries (1 or more); `unit` is in [0, 1)."""
    ceiling = min(policy.cap_ms, policy.base_ms * 2 ** min(tries - 1, 40))
    return int(ceiling * unit)


def unit_of(*names: str | int) -> float:
    """A number in [0, 1) that the same names always give, so that a replayed decision is the same."""
    digest = hashlib.blake2b("\x1f".join(map(str, names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
