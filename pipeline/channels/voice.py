"""Voice: a call that reads the text aloud."""

from typing import Final

from pipeline.domain.ports_channel import Channel
from pipeline.domain.records import Content
from pipeline.domain.texts import Rendered, cut, one_line, plain, text_only

LIMIT: Final = 3_000
"""Characters that speech services take in one request."""


def render(content: Content) -> Rendered:
    """One line of text: a voice makes nothing of line breaks."""
    text = one_line(plain(content))
    return text_only(content, text, cut(text, LIMIT))


CHANNEL: Final = Channel("voice", "phone", render)
