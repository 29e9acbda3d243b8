"""Makes requests to send: people in six countries with valid numbers, four channels, three
priorities, sequences, repeats and mistakes. A function of the seed and the count alone: no clock,
no randomness, so two runs ask for the same. Every request comes with what must become of it.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson
import phonenumbers
from phonenumbers import PhoneNumberFormat, PhoneNumberType

COUNTRIES: Final = ("DE", "BR", "IN", "US", "GB", "FR")

_ROUTES: Final[tuple[tuple[str, ...], ...]] = (
    ("whatsapp", "sms"),
    ("sms", "voice"),
    ("email", "sms"),
    ("voice", "sms"),
    ("whatsapp", "email"),
    ("whatsapp", "sms", "voice"),
)
_TEXTS: Final = (
    "Your parcel is on its way.",
    "Your appointment is tomorrow at ten.",
    "Your table is booked.",
    "Your invoice is ready.",
    "Somebody signed in to your account.",
)
_CAMPAIGNS: Final = ("spring", "loyalty", "newsletter")


@dataclass(frozen=True, slots=True)
class Asked:
    """One record for an intake topic and what must become of it.

    `kind`: `good` (one outcome), `repeat` (one rejection as duplicate of number `repeats`) or
    `malformed` (one rejection that names `field`; a repeat of one is judged anew, and malformed
    again). `key` and `value` are the record's bytes; `request` the value before it was written,
    None where it was never a request.
    """

    number: int
    kind: str
    topic: str
    key: bytes | None
    value: bytes | None
    request: Mapping[str, Any] | None
    field: str | None = None
    mistake: str | None = None
    repeats: int | None = None
    country: str = ""


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares of all records (0 to 1). `people`: different recipients per record; `routed`: with a
    route of their own; `sequenced`: recipients whose messages wait for each other."""

    repeats: float = 0.02
    malformed: float = 0.02
    keyless: float = 0.0
    routed: float = 0.6
    people: float = 0.8
    sequenced: float = 0.05


def requests(seed: int, count: int, mix: Mix | None = None) -> Iterator[Asked]:
    """`count` records in the order in which they are to be produced. Only keyed requests are
    repeated: without a key a repeat is a new message."""
    mix = mix or Mix()
    people = max(1, int(count * mix.people))
    waiting: dict[int, Asked] = {}
    for number in range(count):
        draw = _draws(seed, "record", number)
        if number in waiting:
            yield waiting.pop(number)
            continue
        if draw[0] < mix.malformed:
            asked = _malformed(seed, number, people, mix)
        else:
            asked = _good(seed, number, people, mix, draw)
        again = draw[1] < mix.repeats * (1 + mix.repeats)
        has_key = asked.request is not None and asked.request.get("idempotency_key")
        if again and has_key:
            # Some right behind the first, while it is in flight, some later.
            place = number + 1 + int(draw[2] ** 3 * 200)
            while place in waiting:
                place += 1
            waiting[place] = _again(asked, place)
        yield asked


def expectations(asked: Iterable[Asked]) -> dict[str, int]:
    """How many of each kind, and of each mistake as `malformed.<mistake>`."""
    counts: Counter[str] = Counter()
    for item in asked:
        counts[item.kind] += 1
        if item.mistake:
            counts[f"malformed.{item.mistake}"] += 1
    return dict(counts)


@lru_cache(maxsize=65_536)
def phone(country: str, number: int) -> str:
    """A valid mobile number of `country` in E.164; different for different numbers below a
    hundred thousand."""
    example = phonenumbers.example_number_for_type(country, PhoneNumberType.MOBILE)
    assert example is not None, country
    national = str(example.national_number)
    for shift in range(10):
        tail = f"{(number * 10 + shift) % 10**6:06d}"
        candidate = phonenumbers.PhoneNumber(
            country_code=example.country_code, national_number=int(national[:-6] + tail)
        )
        if (
            phonenumbers.is_valid_number(candidate)
            and phonenumbers.region_code_for_number(candidate) == country
        ):
            return str(phonenumbers.format_number(candidate, PhoneNumberFormat.E164))
    raise ValueError(f"no valid number near {number} in {country}")


def email(country: str, number: int) -> str:
    """A mailbox of a person in `country`, in a domain that belongs to nobody."""
    return f"person{number}@{country.lower()}.example"


def _draws(*names: str | int) -> tuple[float, ...]:
    digest = hashlib.blake2b("\x1f".join(map(str, names)).encode(), digest_size=64).digest()
    return tuple(int.from_bytes(digest[i : i + 8], "big") / 2**64 for i in range(0, 64, 8))


def _good(seed: int, number: int, people: int, mix: Mix, draw: tuple[float, ...]) -> Asked:
    person = int(draw[3] * people)
    traits = _draws(seed, "person", person)
    country = COUNTRIES[int(traits[0] * len(COUNTRIES))]
    priority = "urgent" if draw[4] < 0.2 else "normal" if draw[4] < 0.7 else "bulk"
    route = None
    if draw[5] < mix.routed:
        names = _ROUTES[int(draw[5] / mix.routed * len(_ROUTES))]
        route = [{"channel": name, "window_s": None, "success": None} for name in names]
    keyless = draw[6] < mix.keyless
    bulk = priority == "bulk"
    request: dict[str, Any] = {
        "record_version": 1,
        "tenant": None,
        "idempotency_key": None if keyless else f"{seed}-{number}",
        "to": {
            "id": None,
            "phone": phone(country, person),
            "email": email(country, person),
            "country": None,
        },
        "content": {
            "text": f"{_TEXTS[number % len(_TEXTS)]} ({number})",
            "subject": "News for you",
            "html": None,
        },
        "route": route,
        "priority": priority,
        "category": "marketing" if bulk else "transactional",
        "campaign": _CAMPAIGNS[number % len(_CAMPAIGNS)] if bulk else None,
        "labels": {"batch": str(number // 1000)},
        "deadline": None,
        "sequence": f"order-{person}" if traits[1] < mix.sequenced else None,
        "on_doubt": None,
    }
    return Asked(
        number=number,
        kind="good",
        topic="intake.bulk" if bulk else "intake",
        key=f"caller-{person}".encode(),
        value=orjson.dumps(request),
        request=request,
        country=country,
    )


def _again(asked: Asked, number: int) -> Asked:
    return Asked(
        number=number,
        kind="repeat" if asked.kind == "good" else asked.kind,
        topic=asked.topic,
        key=asked.key,
        value=asked.value,
        request=asked.request,
        field=asked.field,
        mistake=asked.mistake,
        repeats=asked.number,
        country=asked.country,
    )


# Mistake, the field that its rejection names, and what is changed in a good request.
_SPOILT: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    ("no_phone_number", "to.phone", {"to": {"phone": "+4912"}}),
    ("unknown_channel", "route[0].channel", {"route": [{"channel": "pigeon"}]}),
    ("empty_route", "route", {"route": []}),
    ("past_deadline", "deadline", {"deadline": 1_600_000_000_000}),
    ("wrong_type", "to", {"to": "somebody"}),
    ("unknown_priority", "priority", {"priority": "yesterday"}),
    ("no_content", "content", {"content": {"text": "", "subject": None, "html": None}}),
    ("too_large", "body", {"labels": {"filler": "x" * 900_000}}),
)
# Bytes that are no request at all.
_NO_REQUEST: Final[tuple[tuple[str, bytes | None], ...]] = (
    ("random_bytes", b"\x8f\x12\xfe\x00\x99random"),
    ("truncated_avro", b"\xc3\x01\x10\x20\x30"),
    ("unknown_schema", b"\x00\x7f\xff\xff\xf0abc"),
    ("null_value", None),
    ("half_json", b'{"to": {"phone": "+49'),
)
MISTAKES: Final = tuple(name for name, *_ in _SPOILT) + tuple(name for name, _ in _NO_REQUEST)


def _malformed(seed: int, number: int, people: int, mix: Mix) -> Asked:
    good = _good(seed, number, people, mix, _draws(seed, "malformed", number))
    assert good.request is not None
    which = int(_draws(seed, "mistake", number)[0] * len(MISTAKES))
    if which < len(_SPOILT):
        mistake, field, changes = _SPOILT[which]
        request = {**good.request, **changes}
        value: bytes | None = orjson.dumps(request)
        return Asked(
            number, "malformed", good.topic, good.key, value, request, field=field, mistake=mistake
        )
    mistake, value = _NO_REQUEST[which - len(_SPOILT)]
    return Asked(
        number, "malformed", good.topic, good.key, value, None, field="body", mistake=mistake
    )
