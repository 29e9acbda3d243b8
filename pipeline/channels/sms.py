"""SMS: text in segments of 140 bytes, either in the GSM alphabet or in UTF-16."""

from typing import Final

from pipeline.domain.ports_channel import Channel
from pipeline.domain.records import Content
from pipeline.domain.texts import Rendered, plain, text_only

SEGMENTS: Final = 10
"""More are split or refused by some networks, and each one costs."""

GSM_UNITS: Final = 153  # septets of one of several segments (3GPP TS 23.040)
WIDE_UNITS: Final = 67  # UTF-16 units of one of several segments

GSM_BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    "ÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
GSM_EXTENDED: Final = frozenset("^{}\\[~]|€\f")
"""Take two septets."""

_GSM: Final = GSM_BASIC | GSM_EXTENDED


def render(content: Content) -> Rendered:
    """Text only, at most `SEGMENTS` segments."""
    text = plain(content)
    return text_only(content, text, _fit(text))


def _fit(text: str) -> str:
    # Plain dots: the ellipsis is not in the GSM alphabet and would halve what fits.
    if len(text) <= SEGMENTS * WIDE_UNITS // 2:
        return text
    gsm = _GSM.issuperset(text)
    room = SEGMENTS * (GSM_UNITS if gsm else WIDE_UNITS)
    used = 0
    kept = 0
    for place, character in enumerate(text):
        used += _units(character, gsm)
        if used > room:
            return text[:kept].rstrip() + "..."
        if used <= room - 3:
            kept = place + 1
    return text


def _units(character: str, gsm: bool) -> int:
    if gsm:
        return 2 if character in GSM_EXTENDED else 1
    return 2 if ord(character) > 0xFFFF else 1


CHANNEL: Final = Channel("sms", "phone", render)
