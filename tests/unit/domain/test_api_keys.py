"""A key opens what its line says, and nothing else does."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.api_keys import ID_BYTES, SECRET_BYTES, ApiKey, make, tenant_of

ONE = make(b"a" * ID_BYTES, b"b" * SECRET_BYTES)
TWO = make(b"c" * ID_BYTES, b"d" * SECRET_BYTES)
KEYS = {
    ONE.key_id: ApiKey("shop", bytes.fromhex(ONE.sha256)),
    TWO.key_id: ApiKey("bank", bytes.fromhex(TWO.sha256)),
}


def test_a_key_is_found_by_its_text_and_kept_only_as_a_hash():
    assert tenant_of(f"Bearer {ONE.text}", KEYS) == "shop"
    assert tenant_of(f"bearer   {TWO.text} ", KEYS) == "bank"
    assert ONE.sha256 == hashlib.sha256(ONE.text.encode()).hexdigest()
    assert ONE.text.startswith(f"dp_{ONE.key_id}_")
    assert len({ONE.text, TWO.text, ONE.sha256, TWO.sha256}) == 4


@pytest.mark.parametrize(
    "header",
    [
        "",
        ONE.text,
        f"Basic {ONE.text}",
        f"Bearer {ONE.text[:-1]}",
        f"Bearer {ONE.text}x",
        f"Bearer {ONE.text[:-1]}{'A' if ONE.text[-1] != 'A' else 'E'}",
        f"Bearer dp_{TWO.key_id}_{ONE.text.rpartition('_')[2]}",
        f"Bearer dp_aaaaaaaa_{'A' * 43}",
        f"Bearer {ONE.sha256}",
    ],
)
def test_anything_else_opens_nothing(header: str):
    assert tenant_of(header, KEYS) is None


@given(st.text())
def test_any_text_is_safe(text: str):
    assert tenant_of(text, KEYS) is None
    assert tenant_of(f"Bearer {text}", KEYS) is None


def test_without_keys_nobody_gets_in():
    assert tenant_of(f"Bearer {ONE.text}", {}) is None
