"""What each channel makes of content."""

import time

import pytest

from pipeline.channels import render
from pipeline.channels.sms import GSM_BASIC, GSM_EXTENDED
from pipeline.domain.records import Content
from pipeline.domain.texts import Rendered, from_html


def content(
    text: str | None = None, subject: str | None = None, html: str | None = None
) -> Content:
    return {"text": text, "subject": subject, "html": html}


@pytest.mark.parametrize("channel", ["whatsapp", "sms", "voice"])
def test_text_channels_say_the_text_and_name_what_they_drop(channel: str) -> None:
    found = render(channel, content("Hello", "A subject", "<b>Hello</b>"))
    assert found == Rendered("Hello", dropped=("subject", "html"))


@pytest.mark.parametrize("channel", ["whatsapp", "sms", "voice"])
def test_html_or_a_subject_alone_becomes_text(channel: str) -> None:
    """Nothing is dropped where its words are said."""
    assert render(channel, content(html="<p>Hello <b>you</b></p>")) == Rendered("Hello you")
    assert render(channel, content(subject="Only this")) == Rendered("Only this")


def test_whatsapp_cuts_at_its_limit_and_says_so() -> None:
    found = render("whatsapp", content("x" * 5_000))
    assert len(found.text) == 4_096
    assert found.text.endswith("\u2026")
    assert found.dropped == ("text_end",)
    assert render("whatsapp", content("x" * 4_096)).dropped == ()


@pytest.mark.parametrize(("character", "fits"), [("x", 1_530), ("€", 765), ("ж", 670), ("😀", 335)])
def test_sms_takes_ten_segments_of_its_alphabet(character: str, fits: int) -> None:
    assert render("sms", content(character * fits)) == Rendered(character * fits)
    found = render("sms", content(character * (fits + 1)))
    assert found.dropped == ("text_end",)
    assert found.text.endswith(character + "...")
    kept = found.text.removesuffix("...")
    width = {"x": 1, "€": 2, "ж": 1, "😀": 2}[character]
    assert fits * width - 3 - width < len(kept) * width <= fits * width - 3


def test_the_gsm_alphabet_is_whole() -> None:
    """127 characters besides the escape, and ten extensions of which one is a page break."""
    assert len(GSM_BASIC) == 127
    assert len(GSM_EXTENDED) == 10
    assert not GSM_BASIC & GSM_EXTENDED


def test_a_voice_reads_one_line() -> None:
    assert render("voice", content("One\r\ntwo\n\n three")).text == "One two three"


def test_an_email_has_every_part() -> None:
    found = render("email", content("Hello", "Subject", "<p>Hello</p>"))
    assert found == Rendered("Hello", "Subject", "<p>Hello</p>")


def test_an_email_without_a_subject_gets_one_from_its_text() -> None:
    assert render("email", content("Hello there\nmore")).subject == "Hello there more"
    assert len(render("email", content("x" * 500)).subject) == 78


def test_a_subject_cannot_start_another_header() -> None:
    found = render("email", content("a", "Hi\r\nBcc: other@example.com"))
    assert found.subject == "Hi Bcc: other@example.com"


def test_control_characters_are_not_sent() -> None:
    assert render("sms", content("a\x00b\x07c\r\nd")).text == "abc\nd"


def test_content_that_only_shows_a_picture_is_blank() -> None:
    assert render("sms", content(html="<img src='a.png'>")).blank
    assert not render("email", content(html="<img src='a.png'>")).blank


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One</p><p>Two</p>", "One\nTwo"),
        ("One<br/>Two<BR>Three", "One\nTwo\nThree"),
        ("a  b\n\n c", "a b c"),
        ("1 &lt; 2 &amp;&nbsp;so", "1 < 2 & so"),
        ("<style>p{}</style>a<script>x<y</script >b<!-- c -->d", "abd"),
        ("<title>T</title><body class='x'>B", "B"),
        ("a<script>never closed", "a"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("<!DOCTYPE html><ul><li>x<li>y</ul>", "x\ny"),
        ("", ""),
    ],
)
def test_html_is_read_as_a_person_would(html: str, text: str) -> None:
    assert from_html(html) == text


@pytest.mark.parametrize("piece", ["<a ", "<!--", "<", "</", '<a b="', "<script", "&#", "<style>"])
def test_unfinished_html_costs_no_more_than_its_length(piece: str) -> None:
    """The library's parser takes minutes for these; seconds would stall every message behind."""
    started = time.process_time()
    from_html(piece * (400_000 // len(piece)))
    assert time.process_time() - started < 2.0
