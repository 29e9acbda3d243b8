"""The bound holds, nobody takes all of it, and what is given back is there again."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.shares import Shares


def held(shares: Shares, tenant: str) -> int:
    count = 0
    while shares.take(tenant):
        count += 1
    return count


def test_one_gets_half_the_next_half_of_the_rest_and_so_on():
    shares = Shares(64)
    assert [held(shares, name) for name in "abc"] == [32, 16, 8]


def test_two_that_come_and_go_settle_at_the_same_share():
    shares = Shares(90)
    have = {"a": held(shares, "a"), "b": held(shares, "b")}
    for _ in range(200):  # both want all they can get, and give back one at a time
        for name in have:
            shares.give_back(name)
            have[name] -= 1
        for name in reversed(have):
            have[name] += held(shares, name)
    assert abs(have["a"] - have["b"]) <= 2
    assert sum(have.values()) >= 58


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=200))
def test_the_bound_holds_whoever_comes_and_goes(moves: list[tuple[str, bool]]):
    shares = Shares(10)
    have = dict.fromkeys("abcd", 0)
    for tenant, takes in moves:
        if takes:
            free = 10 - sum(have.values())
            taken = shares.take(tenant)
            assert taken == (have[tenant] < free)
            have[tenant] += taken
        elif have[tenant]:
            shares.give_back(tenant)
            have[tenant] -= 1
        assert sum(have.values()) <= 10
