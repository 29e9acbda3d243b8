"""References: what we give comes back as it was, and nobody else can make one."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import ids, reference
from pipeline.domain.reference import Named

KEYS = {0: b"the first key", 7: b"the seventh key"}
MESSAGE = ids.message_id("acme", "r", "k")
RECIPIENT = ids.recipient_key(b"sixteen bytes it", "acme", "id", "42")

NAMED = st.builds(
    Named,
    tenant=st.from_regex(reference.TENANT, fullmatch=True),
    message_id=st.uuids().map(str),
    recipient_key=st.binary(min_size=16, max_size=16).map(
        lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    ),
    step=st.integers(0, 255),
)


@given(named=NAMED, key_id=st.sampled_from(sorted(KEYS)))
def test_what_goes_out_comes_back(named: Named, key_id: int):
    text = reference.make(named, key_id, KEYS[key_id])
    assert reference.read(text, KEYS) == named
    assert text == reference.make(named, key_id, KEYS[key_id])
    assert len(text) <= 88
    assert text.isascii()
    assert "=" not in text


@given(named=NAMED, place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_one_changed_bit_makes_it_foreign(named: Named, place: int, bit: int):
    text = reference.make(named, 0, KEYS[0])
    raw = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    raw[place % len(raw)] ^= 1 << bit
    forged = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    assert reference.read(forged, KEYS) is None


@given(text=st.text(max_size=200) | st.binary(max_size=150).map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_safe(text: str):
    assert reference.read(text, KEYS) is None


@given(raw=st.binary(max_size=120))
def test_any_bytes_in_our_alphabet_are_safe(raw: bytes):
    assert reference.read(base64.urlsafe_b64encode(raw).decode().rstrip("="), KEYS) is None


def test_a_key_that_is_not_known_is_not_tried():
    text = reference.make(Named("acme", MESSAGE, RECIPIENT, 0), 7, KEYS[7])
    assert reference.read(text, {0: KEYS[0]}) is None
    assert reference.read(text, {7: b"another key"}) is None
    assert reference.read(text, KEYS) is not None


def test_cut_off_or_longer_references_are_foreign():
    text = reference.make(Named("acme", MESSAGE, RECIPIENT, 0), 0, KEYS[0])
    assert all(reference.read(text[:length], KEYS) is None for length in range(len(text)))
    assert reference.read(text + "AAAA", KEYS) is None


@pytest.mark.parametrize(("key_id", "step"), [(-1, 0), (16, 0), (0, -1), (0, 256)])
def test_what_does_not_fit_is_refused(key_id: int, step: int):
    with pytest.raises(ValueError, match="key id must be 0 to 15 and step 0 to 255"):
        reference.make(Named("acme", MESSAGE, RECIPIENT, step), key_id, b"key")
