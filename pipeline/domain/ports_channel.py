"""The shape of a channel (`channels/<name>.py`): plain data that says how content is said there."""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.domain.records import Content
from pipeline.domain.texts import Rendered


@dataclass(frozen=True, slots=True)
class Channel:
    """One way to reach a person.

    `address` names the field of a recipient that it goes to (phone or email). `render` takes any
    content that accept lets through and never raises: what the channel cannot carry is left out
    and named in the answer.
    """

    name: str
    address: str
    render: Callable[[Content], Rendered]
