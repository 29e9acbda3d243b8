"""The load: valid people, the same for the same seed, and honest about what to expect."""

import json

import phonenumbers
import pytest

from pipeline.simulators.behaviour import country_of
from pipeline.simulators.people import (
    COUNTRIES,
    MISTAKES,
    Mix,
    email,
    expectations,
    phone,
    requests,
)


def test_one_seed_asks_for_the_same_and_another_does_not() -> None:
    first = list(requests(7, 500))
    assert list(requests(7, 500)) == first
    assert [item.value for item in requests(8, 500)] != [item.value for item in first]


@pytest.mark.parametrize("country", COUNTRIES)
def test_numbers_are_valid_different_and_of_their_country(country: str) -> None:
    numbers = [phone(country, number) for number in range(0, 100_000, 997)]
    assert len(set(numbers)) == len(numbers)
    for text in numbers:
        parsed = phonenumbers.parse(text)
        assert phonenumbers.is_valid_number(parsed)
        assert phonenumbers.region_code_for_number(parsed) == country
        assert country_of(text) == country
    assert country_of(email(country, 5)) == country


def test_a_load_has_every_channel_country_priority_and_mistake() -> None:
    asked = list(requests(3, 4_000, Mix(malformed=0.1, repeats=0.05, keyless=0.1)))
    good = [item.request for item in asked if item.kind == "good" and item.request]
    assert {item.country for item in asked if item.kind == "good"} == set(COUNTRIES)
    assert {request["priority"] for request in good} == {"urgent", "normal", "bulk"}
    channels = {step["channel"] for request in good for step in request["route"] or ()}
    assert channels == {"whatsapp", "sms", "voice", "email"}
    assert any(request["sequence"] for request in good)
    counts = expectations(asked)
    assert all(counts[f"malformed.{mistake}"] for mistake in MISTAKES)
    assert counts["good"] + counts["repeat"] + counts["malformed"] == 4_000
    assert 0.07 < sum(request["idempotency_key"] is None for request in good) / len(good) < 0.13


def test_a_repeat_is_the_same_bytes_after_the_first_and_has_a_key() -> None:
    asked = list(requests(3, 3_000, Mix(repeats=0.1, malformed=0.1)))
    repeats = [item for item in asked if item.repeats is not None]
    assert {item.kind for item in repeats} == {"repeat", "malformed"}
    for item in repeats:
        assert item.repeats is not None
        first = asked[item.repeats]
        assert (item.value, item.key, item.topic) == (first.value, first.key, first.topic)
        assert item.repeats < item.number
        assert item.request
        assert item.request["idempotency_key"]


def test_keys_name_one_request_each_and_values_are_json() -> None:
    asked = [item for item in requests(3, 1_000) if item.kind == "good"]
    keys = [item.request["idempotency_key"] for item in asked if item.request]
    assert len(set(keys)) == len(keys) == len(asked)
    assert all(json.loads(item.value or b"") == item.request for item in asked)
