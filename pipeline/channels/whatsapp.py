"""WhatsApp: plain text to a phone number, in a conversation that is open. Templates are another
kind of content."""

from typing import Final

from pipeline.domain.ports_channel import Channel
from pipeline.domain.records import Content
from pipeline.domain.texts import Rendered, cut, plain, text_only

LIMIT: Final = 4_096
"""Characters of a text message, by the Cloud API's documents."""


def render(content: Content) -> Rendered:
    """Text only, at most `LIMIT` characters."""
    text = plain(content)
    return text_only(content, text, cut(text, LIMIT))


CHANNEL: Final = Channel("whatsapp", "phone", render)
