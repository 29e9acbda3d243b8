"""Behaviours follow from seed, account, address and attempt alone, and stay away from windows."""

import random
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.errors import BadInput
from pipeline.simulators.behaviour import DOUBTFUL, Answer, Behaviour, behaviour, country_of
from pipeline.simulators.script import Kind, Script, load, only, parse, windows

ADDRESSES = [f"+4915123{number:06d}" for number in range(3_000)]
SCRIPT = Script(windows_s=windows(whatsapp=(2, 4), sms=3, voice=5, email=(4, 5)))


def at(
    address: str,
    *,
    seed: int = 7,
    account: str = "a",
    channel: str = "sms",
    attempt: int = 1,
    script: Script = SCRIPT,
) -> Behaviour:
    return behaviour(seed, account, channel, country_of(address), address, attempt, script)


def test_the_order_of_questions_changes_nothing() -> None:
    first = {address: at(address) for address in ADDRESSES[:300]}
    shuffled = ADDRESSES[:300]
    random.Random(1).shuffle(shuffled)
    assert {address: at(address) for address in shuffled} == first


def test_seed_account_channel_and_attempt_each_count() -> None:
    base = [at(address).kind for address in ADDRESSES[:300]]
    assert [at(a, seed=8).kind for a in ADDRESSES[:300]] != base
    assert [at(a, account="b").kind for a in ADDRESSES[:300]] != base
    assert [at(a, channel="voice").kind for a in ADDRESSES[:300]] != base
    assert [at(a, attempt=2).kind for a in ADDRESSES[:300]] != base


def test_the_default_mix_has_every_behaviour() -> None:
    seen = {
        at(address, channel=channel).kind
        for address in ADDRESSES
        for channel in ("sms", "whatsapp")
    }
    assert seen == set(Kind)
    answers = {at(address).answer for address in ADDRESSES}
    assert answers == set(Answer)


def test_shares_follow_the_weights() -> None:
    script = Script(table={("", ""): {Kind.DELIVERS: 80, Kind.LATE: 10, Kind.SILENT: 10}})
    kinds = [at(address, script=script).kind for address in ADDRESSES]
    assert 0.06 < kinds.count(Kind.LATE) / len(kinds) < 0.14
    assert 0.05 < kinds.count(Kind.SILENT) / len(kinds) < 0.14


def test_the_most_specific_row_counts() -> None:
    script = Script(
        table={
            ("", ""): {Kind.SILENT: 1},
            ("", "DE"): {Kind.BUSY: 1},
            ("sms", ""): {Kind.NEGATIVE: 1},
            ("sms", "DE"): {Kind.READS: 1},
        }
    )
    assert at("+4915123000000", script=script).kind is Kind.READS
    assert at("+5511961000050", script=script).kind is Kind.NEGATIVE
    assert at("+4915123000000", channel="voice", script=script).kind is Kind.BUSY
    assert at("+5511961000050", channel="voice", script=script).kind is Kind.SILENT


@given(
    seed=st.integers(0, 1_000_000),
    address=st.sampled_from(ADDRESSES),
    channel=st.sampled_from(["whatsapp", "sms", "voice"]),
    attempt=st.integers(1, 5),
)
def test_no_receipt_comes_near_the_end_of_a_window(
    seed: int, address: str, channel: str, attempt: int
) -> None:
    does = at(address, seed=seed, channel=channel, attempt=attempt)
    shortest, longest = SCRIPT.windows_s[channel]
    for receipt in does.receipts:
        seconds = receipt.delay_ms / 1000
        assert seconds <= shortest - 1.499 or longest + 1.499 <= seconds <= longest + 2.501
    if does.kind is not Kind.LATE:
        assert all(receipt.delay_ms <= 1_500 for receipt in does.receipts)


@given(seed=st.integers(0, 10_000), address=st.sampled_from(ADDRESSES))
def test_an_address_that_is_late_on_one_channel_is_plain_on_the_others(
    seed: int, address: str
) -> None:
    kinds = {channel: at(address, seed=seed, channel=channel).kind for channel in SCRIPT.windows_s}
    del kinds["email"]
    late = [channel for channel, kind in kinds.items() if kind is Kind.LATE]
    assert len(late) <= 1
    if late:
        others = {kind for channel, kind in kinds.items() if channel not in late}
        assert others <= {Kind.DELIVERS, Kind.REJECTS}
        [channel] = late
        assert at(address, seed=seed, channel=channel, account="b", attempt=3).kind is Kind.LATE


def test_receipts_in_doubt_are_over_before_negative_ones_begin() -> None:
    doubts = [r.delay_ms for a in ADDRESSES if (b := at(a)).answer in DOUBTFUL for r in b.receipts]
    negatives = [
        r.delay_ms for a in ADDRESSES if (b := at(a)).kind is Kind.NEGATIVE for r in b.receipts
    ]
    assert doubts
    assert negatives
    assert max(doubts) + 400 < min(negatives)


def test_refusals_are_never_handed_over_and_doubt_goes_both_ways() -> None:
    found = [at(address) for address in ADDRESSES]
    assert not any(
        does.handed_over or does.receipts for does in found if does.answer is Answer.REFUSED
    )
    for kind in (Kind.ERROR, Kind.RESET_AFTER, Kind.WEIRD):
        assert {does.handed_over for does in found if does.kind is kind} == {True, False}
        assert {does.settles for does in found if does.kind is kind} == {True, False}
    assert {does.handed_over for does in found if does.kind is Kind.RESET_BEFORE} == {False}
    assert {does.handed_over for does in found if does.kind is Kind.NO_ANSWER} == {True}


def test_a_repeating_provider_repeats_and_reorders() -> None:
    does = at("+4915123000000", channel="whatsapp", script=only("repeats"))
    kinds = [receipt.kind for receipt in sorted(does.receipts, key=lambda r: r.delay_ms)]
    assert kinds.index("read") < kinds.index("delivered")
    assert kinds.count("delivered") == 2


@pytest.mark.parametrize(
    ("address", "country"),
    [
        ("+4915123456789", "DE"),
        ("+12015550123", "US"),
        ("+5511961234567", "BR"),
        ("+447400123456", "GB"),
        ("person7@fr.example", "FR"),
        ("person7@example.com", ""),
        ("nothing", ""),
        ("", ""),
    ],
)
def test_an_address_tells_its_country(address: str, country: str) -> None:
    assert country_of(address) == country


def test_a_script_is_read_from_yaml_values() -> None:
    script = parse(
        {
            "windows_s": {"sms": 4, "voice": [3, 5]},
            "retry_after_s": 2,
            "receipt_s": [0.1, 0.5],
            "accounts": {"sms-b": {"honours_keys": False, "callback_batch": 5}},
            "other_accounts": {"echoes_reference": False},
            "weights": [
                {"weights": {"delivers": 1}},
                {"channel": "sms", "country": "IN", "weights": {"rejects": 1}},
            ],
            "reject_codes": {"sms": ["opted_out"]},
        }
    )
    assert script.windows_s == {"sms": (4.0, 4.0), "voice": (3.0, 5.0)}
    assert not script.account("sms-b").honours_keys
    assert script.account("sms-b").callback_batch == 5
    assert not script.account("another").echoes_reference
    assert script.weights("sms", "IN") == {Kind.REJECTS: 1.0}
    assert script.weights("voice", "IN") == {Kind.DELIVERS: 1.0}
    assert at("+918123000050", script=script).code == "opted_out"


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({"window": 4}, "window"),
        ({"windows_s": {"sms": 1.5}}, "windows_s.sms"),
        ({"windows_s": {"sms": [5, 3]}}, "windows_s.sms"),
        ({"windows_s": {"sms": "4s"}}, "windows_s.sms"),
        ({"late_s": [1, 2]}, "late_s"),
        ({"receipt_s": [1]}, "receipt_s"),
        ({"accounts": {"a": {"keys": True}}}, "accounts.a.keys"),
        ({"accounts": {"a": {"honours_keys": "yes"}}}, "accounts.a.honours_keys"),
        ({"accounts": {"a": {"callback_batch": True}}}, "accounts.a.callback_batch"),
        ({"weights": {}}, "weights"),
        ({"weights": [{"weights": {"explodes": 1}}]}, "weights[0].weights.explodes"),
        ({"weights": [{"weights": {"delivers": 0}}]}, "weights of any channel, any country"),
        ({"weights": [{"weights": {}}]}, "weights[0].weights"),
        ({"reject_codes": {"sms": ["nope"]}}, "reject_codes.sms"),
        ([], "script"),
    ],
)
def test_a_wrong_script_names_the_field(raw: object, field: str) -> None:
    with pytest.raises(BadInput) as raised:
        parse(raw)
    assert raised.value.field == field
    assert raised.value.cure


def test_the_sample_script_and_the_demo_agree() -> None:
    """Accounts behave as the demo's configuration says, in the windows that it has."""
    deploy = Path(__file__).parents[3] / "deploy"
    script = load(deploy / "simulator.yaml")
    demo = yaml.safe_load((deploy / "demo.yaml").read_text())
    assert set(script.accounts) == set(demo["providers"])
    for name, account in demo["providers"].items():
        rules = script.account(name)
        assert rules.honours_keys == account.get("honours_keys", False), name
        assert rules.echoes_reference == account.get("echoes_reference", True), name
    given = {rule["window"] for rule in demo["priorities"].values()}
    assert given == {f"{window:g}s" for pair in script.windows_s.values() for window in pair}
