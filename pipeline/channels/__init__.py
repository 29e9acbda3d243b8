"""The channels. This table is the only registration; one file holds one channel."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pipeline.channels import email, sms, voice, whatsapp
from pipeline.domain.ports_channel import Channel
from pipeline.domain.records import Content
from pipeline.domain.texts import Rendered

CHANNELS: Final[Mapping[str, Channel]] = MappingProxyType(
    {
        channel.name: channel
        for channel in (whatsapp.CHANNEL, sms.CHANNEL, email.CHANNEL, voice.CHANNEL)
    }
)


def render(channel: str, content: Content) -> Rendered:
    """Content as `channel` says it. Never raises for a channel of the table.

    Raises:
        KeyError: there is no such channel; accept lets none through.
    """
    return CHANNELS[channel].render(content)
