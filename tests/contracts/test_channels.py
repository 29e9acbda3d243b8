"""What every row of the channel table keeps."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.channels import CHANNELS, render
from pipeline.domain.policy import CHANNEL_ADDRESS
from pipeline.domain.records import Content
from pipeline.topology import CATALOGUE

TEXT = st.none() | st.text(max_size=300) | st.sampled_from(["<p>a</p>", "x" * 6_000, "ж" * 2_000])
CONTENTS = st.builds(
    lambda text, subject, html: Content(text=text, subject=subject, html=html), TEXT, TEXT, TEXT
)


def test_the_table_the_catalogue_and_the_addresses_name_the_same_channels() -> None:
    assert list(CHANNELS) == list(CATALOGUE.channels)
    assert {name: channel.address for name, channel in CHANNELS.items()} == dict(CHANNEL_ADDRESS)
    assert all(name == channel.name for name, channel in CHANNELS.items())


@pytest.mark.parametrize("channel", list(CHANNELS))
@given(content=CONTENTS)
@settings(deadline=None, max_examples=60)
def test_any_content_is_rendered_the_same_way_each_time_within_bounds(
    channel: str, content: Content
) -> None:
    before = dict(content)
    found = render(channel, content)
    assert found == render(channel, content)
    assert dict(content) == before
    assert "\n" not in found.subject
    assert "\r" not in found.text
    assert set(found.dropped) <= {"subject", "html", "text_end"}
    if channel != "email":
        assert not found.html
        assert not found.subject
        assert len(found.text) <= 4_096
    if not found.dropped and content["text"] and content["text"].isprintable():
        assert found.text.split() == content["text"].split()
    assert found.text == found.text.strip()


def test_a_channel_that_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(KeyError):
        render("pigeon", {"text": "a", "subject": None, "html": None})
