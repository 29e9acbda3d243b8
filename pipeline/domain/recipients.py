"""Recipients as callers write them, and as the pipeline knows them: E.164 and lower case."""

import re
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from pipeline.domain.errors import BadInput
from pipeline.domain.fields import name_of, object_of, wrong_type
from pipeline.domain.records import Recipient

MAX_ID: Final = 200  # to.id
NOWHERE: Final = "ZZ"
"""The country of whom nothing places."""

_RECIPIENT: Final = frozenset(Recipient.__annotations__)
_PHONE: Final = re.compile(r"\+?[0-9 ().\-/\u00a0]{4,30}")
_LOCAL: Final = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_DOMAIN: Final = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]"
)


class Phone(NamedTuple):
    """A valid number: E.164, and the country that it belongs to (empty when to none)."""

    e164: str
    country: str


PhoneReader = Callable[[str, str | None], Phone | None]
"""Reads a number in international form, or in national form of the given country; None when no
country has such a number."""


def read_recipient(
    value: object, read_phone: PhoneReader, countries: Collection[str]
) -> tuple[Recipient, str]:
    """A recipient with normalised addresses, and its country (`ZZ` when nothing tells it).

    Raises:
        BadInput: an address that is none, or no address at all.
    """
    if value is None:
        raise _no_address("to")
    found = object_of(value, "to", _RECIPIENT)
    country = _country(found.get("country"), countries)
    name = name_of(found.get("id"), "to.id", MAX_ID)
    phone = _phone(found.get("phone"), country, read_phone)
    email = _email(found.get("email"))
    if name is None and phone is None and email is None:
        raise _no_address("to")
    to: Recipient = {
        "id": name,
        "phone": phone.e164 if phone else None,
        "email": email,
        "country": country,
    }
    return to, (phone.country if phone else "") or country or NOWHERE


def _country(value: object, countries: Collection[str]) -> str | None:
    if value is None:
        return None
    if type(value) is not str:
        raise wrong_type("to.country", "two letters such as DE", value)
    country = value.upper()
    if country not in countries:
        hint = " (the United Kingdom is GB)" if country == "UK" else ""
        raise BadInput(
            "to.country",
            "it is not a country code",
            f"write two letters of ISO 3166-1, such as DE{hint}",
            code="unknown_value",
        )
    return country


def _phone(value: object, country: str | None, read: PhoneReader) -> Phone | None:
    if value is None:
        return None
    if type(value) is not str:
        raise wrong_type("to.phone", "text such as +4915112345678", value)
    text = value.strip()
    if not _PHONE.fullmatch(text):
        raise BadInput(
            "to.phone",
            "it is not written like a phone number",
            "write + and digits, such as +4915112345678",
            code="not_a_phone_number",
        )
    if country is None and not text.startswith("+"):
        raise BadInput(
            "to.phone",
            "it is not in international form and no country is given",
            "start with + and the country's code, or give to.country",
            code="not_a_phone_number",
        )
    phone = read(text, country)
    if phone is None:
        raise BadInput(
            "to.phone",
            "no country has such a number",
            "check the digits, and write + and the country's code first",
            code="not_a_phone_number",
        )
    return phone


def _email(value: object) -> str | None:
    """Lower case throughout: mailboxes that differ by case alone do not exist in practice, and
    one person must have one key."""
    if value is None:
        return None
    if type(value) is not str:
        raise wrong_type("to.email", "text such as name@example.com", value)
    local, _, domain = value.strip().lower().rpartition("@")
    if domain and not domain.isascii():
        try:
            domain = domain.encode("idna").decode()
        except UnicodeError:
            domain = ""
    if (
        not _LOCAL.fullmatch(local)
        or not _DOMAIN.fullmatch(domain)
        or len(local) > 64
        or len(local) + 1 + len(domain) > 254
    ):
        raise BadInput(
            "to.email",
            "it is not an e-mail address",
            "write one address without a name, such as name@example.com",
            code="not_an_email",
        )
    return f"{local}@{domain}"


def _no_address(field: str) -> BadInput:
    return BadInput(
        field,
        "it names nobody",
        "give at least one of to.id, to.phone and to.email",
        code="missing",
    )
