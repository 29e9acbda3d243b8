"""E-mail: subject, text and HTML."""

from typing import Final

from pipeline.domain.ports_channel import Channel
from pipeline.domain.records import Content
from pipeline.domain.texts import Rendered, cut, one_line, plain

SUBJECT_LIMIT: Final = 200
"""Characters of a subject; no mail program shows more."""

MADE_SUBJECT: Final = 78
"""Characters of a subject made from the text: one line as RFC 5322 would have it."""


def render(content: Content) -> Rendered:
    """Every part; a missing subject is the text's first line, a missing text is made from the
    HTML. A subject is one line, so that no text of a caller can start a header of its own."""
    text = plain(content)
    given = one_line(content["subject"] or "")
    subject = cut(given, SUBJECT_LIMIT) if given else cut(one_line(text[:400]), MADE_SUBJECT)
    return Rendered(text, subject, content["html"] or "")


CHANNEL: Final = Channel("email", "email", render)
