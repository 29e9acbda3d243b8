"""Text as channels need it: plain, clean and of a bounded size."""

import re
from dataclasses import dataclass
from html import unescape
from typing import Final

from pipeline.domain.records import Content

ELLIPSIS: Final = "\u2026"

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SPACES: Final = re.compile(r"[ \t\u00a0]+")
_TAG: Final = re.compile(r"<(?:/?([a-zA-Z][a-zA-Z0-9]*)|[!?])[^<>]*>")
_HIDDEN: Final = re.compile(r"<(!--|(?:script|style|template|title)\b)", re.IGNORECASE)
_BLOCK: Final = re.compile(
    "address|article|blockquote|br|dd|div|dl|dt|footer|form|h[1-6]|header|hr|li|main|ol|p|pre"
    "|section|table|tr|ul"
)


@dataclass(frozen=True, slots=True)
class Rendered:
    """Content as one channel says it. `dropped` names the parts of the content that the channel
    cannot carry: `subject`, `html` or `text_end` (the text was cut)."""

    text: str
    subject: str = ""
    html: str = ""
    dropped: tuple[str, ...] = ()

    @property
    def blank(self) -> bool:
        """Nothing is left to say, for example HTML that only shows a picture."""
        return not (self.text or self.html)


def clean(text: str) -> str:
    """Lines end in a line feed, control characters are gone, nothing blank at either end."""
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def one_line(text: str) -> str:
    """For headers and voices: a line break could start a header of its own."""
    return " ".join(clean(text).split())


def from_html(html: str) -> str:
    """What a reader would see, in lines. Any input is safe, and its time grows with its length
    alone: the library's parser needs minutes for 400 kB of unfinished tags."""
    text = " ".join(_shown(html).split())
    text = unescape(_TAG.sub(_break, text))
    lines = (_SPACES.sub(" ", line).strip() for line in text.split("\n"))
    return clean("\n".join(line for line in lines if line))


def _break(tag: re.Match[str]) -> str:
    return "\n" if _BLOCK.fullmatch((tag[1] or "").lower()) else ""


def _shown(html: str) -> str:
    """Without comments, scripts, styles and titles; what is opened and not closed hides the rest."""
    parts = []
    at = 0
    while found := _HIDDEN.search(html, at):
        parts.append(html[at : found.start()])
        close = "-->" if found[1] == "!--" else f"</{found[1]}"
        end = re.compile(re.escape(close) + ("" if close == "-->" else "[^<>]*>"), re.IGNORECASE)
        closed = end.search(html, found.end())
        if closed is None:
            return "".join(parts)
        at = closed.end()
    return "".join(parts) + html[at:]


def plain(content: Content) -> str:
    """The text of a content; from its HTML, then its subject, where it has none."""
    text = clean(content["text"] or "")
    if not text and content["html"]:
        text = from_html(content["html"])
    return text or one_line(content["subject"] or "")


def cut(text: str, limit: int) -> str:
    """At most `limit` characters, with an ellipsis where something is missing."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + ELLIPSIS


def text_only(content: Content, text: str, limited: str) -> Rendered:
    """`text` cut to `limited`, by a channel that says nothing but text."""
    dropped = [
        part
        for part, lost in (
            ("subject", bool(content["subject"]) and text != one_line(content["subject"] or "")),
            ("html", bool(content["html"]) and bool(content["text"])),
            ("text_end", limited != text),
        )
        if lost
    ]
    return Rendered(limited, dropped=tuple(dropped))
