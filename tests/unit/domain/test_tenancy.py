"""A sealed header is believed for its own record, and a copied or invented one is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.errors import BadInput
from pipeline.domain.tenancy import HEADER, VALID_MS, seal, unseal

PEPPER = b"0123456789abcdef"
NOW = 1_800_000_000_000
VALUE = b'{"to": {"phone": "+4915112345678"}}'
NAME, SEALED = seal(PEPPER, "shop", "intake", NOW, VALUE)


def test_the_tenant_comes_back():
    assert NAME == HEADER
    assert unseal(PEPPER, SEALED, "intake", NOW, VALUE) == "shop"
    assert unseal(PEPPER, SEALED, "intake", NOW + VALID_MS, VALUE) == "shop"
    assert unseal(PEPPER, SEALED, "intake", NOW - VALID_MS, VALUE) == "shop"


@pytest.mark.parametrize(
    ("pepper", "sealed", "topic", "at", "value"),
    [
        (b"another pepper!!", SEALED, "intake", NOW, VALUE),
        (PEPPER, SEALED.replace(b"shop", b"bank"), "intake", NOW, VALUE),
        (PEPPER, SEALED.replace(b"1800000000000", b"1800000000001"), "intake", NOW, VALUE),
        (PEPPER, SEALED, "intake.bulk", NOW, VALUE),
        (PEPPER, SEALED, "intake", NOW, VALUE + b" "),
        (PEPPER, SEALED, "intake", NOW + VALID_MS + 1, VALUE),
        (PEPPER, SEALED, "intake", NOW - VALID_MS - 1, VALUE),
        (PEPPER, b"shop", "intake", NOW, VALUE),
        (PEPPER, b"", "intake", NOW, VALUE),
        (PEPPER, SEALED + b"\n", "intake", NOW, VALUE),
    ],
)
def test_what_was_changed_copied_or_invented_is_refused(
    pepper: bytes, sealed: bytes, topic: str, at: int, value: bytes
):
    with pytest.raises(BadInput) as refused:
        unseal(pepper, sealed, topic, at, value)
    assert refused.value.code == "wrong_tenant"
    assert "shop" not in str(refused.value)


@given(st.binary(max_size=200))
def test_any_header_is_safe(sealed: bytes):
    with pytest.raises(BadInput):
        unseal(PEPPER, sealed, "intake", NOW, VALUE)
