"""Full jitter: anywhere between nothing and the exponential cap, and the same on a replay."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.backoff import full_jitter_ms, unit_of
from pipeline.domain.policy import RetryPolicy

POLICIES = st.builds(
    RetryPolicy,
    max_tries=st.integers(1, 50),
    base_ms=st.integers(1, 60_000),
    cap_ms=st.integers(1, 24 * 3_600_000),
)
UNITS = st.floats(0, 1, exclude_max=True)


@given(policy=POLICIES, tries=st.integers(1, 10_000), unit=UNITS)
def test_never_negative_and_never_above_the_cap(policy: RetryPolicy, tries: int, unit: float):
    assert 0 <= full_jitter_ms(policy, tries, unit) <= policy.cap_ms


@given(policy=POLICIES, tries=st.integers(1, 100), unit=UNITS)
def test_patience_grows_with_the_tries(policy: RetryPolicy, tries: int, unit: float):
    assert full_jitter_ms(policy, tries, unit) <= full_jitter_ms(policy, tries + 1, unit)


def test_the_ceiling_doubles_until_the_cap():
    policy = RetryPolicy(max_tries=9, base_ms=100, cap_ms=1_000)
    nearly = 1 - 2**-53
    waits = [full_jitter_ms(policy, tries, nearly) for tries in range(1, 7)]
    assert waits == [99, 199, 399, 799, 999, 999]
    assert full_jitter_ms(policy, 5, 0.0) == 0


@given(names=st.lists(st.text(max_size=20) | st.integers(), max_size=4))
def test_a_unit_is_a_fraction_and_repeats(names: list[str | int]):
    assert 0 <= unit_of(*names) < 1
    assert unit_of(*names) == unit_of(*names)


def test_units_spread_over_the_whole_range():
    units = [unit_of("message", number) for number in range(2_000)]
    tenths = [sum(part / 10 <= unit < (part + 1) / 10 for unit in units) for part in range(10)]
    assert len(set(units)) == len(units)
    assert min(tenths) > 140
