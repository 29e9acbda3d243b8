"""`pipeline send`: one message through the running pipeline, and what becomes of it."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from cyclopts import App, Parameter
from rich.console import Console

from pipeline.commands.connections import UNABLE, Unable, cluster_of, codec_of
from pipeline.domain.errors import BadInput, Undecodable
from pipeline.runtime.follow import Follower
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.reader import Unreachable
from pipeline.settings import load_settings
from pipeline.topology import CATALOGUE

app = App(name="send", help="Send one message through the running pipeline.")

OK: Final = 0
BAD: Final = 1
INTAKE: Final = "intake"
ACKNOWLEDGED_S: Final = 15.0
WAIT_S: Final = 60.0

FOLLOWED: Final = tuple(
    topic.name
    for topic in CATALOGUE
    if {*topic.records.values()} & {"Event", "Outcome", "Message"} and len(topic.records) == 1
)

REPEATED: Final = ("rejected", *(f"accepted.{lane}" for lane in CATALOGUE.lanes))

Json = Annotated[bool, Parameter(name="--json", negative="")]
Wait = Annotated[bool, Parameter(name="--wait", negative="")]
Place = tuple[str, int, int]


@dataclass(slots=True)
class Story:
    """What became of one request, from where it stands in its topic."""

    place: Place
    message_id: str = ""
    status: str = ""  # rejected, delivered or failed
    events: list[dict[str, Any]] = field(default_factory=list)
    _early: list[tuple[str, int, Mapping[str, Any]]] = field(default_factory=list)

    def hear(self, topic: str, at: int, value: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Takes a record that may be about this request; returns the lines to show. Topics are not
        read in the order of events, so what comes before we know our message is kept."""
        if self._names_us(value):
            lines = [self._tell(topic, at, value)]
            if topic.startswith("accepted."):
                self.message_id = value["message_id"]
                early, self._early = self._early, []
                for one in early:
                    lines += self.hear(*one)
            elif topic == "rejected":
                self.status = "rejected"
            return lines
        if not self.message_id:
            self._early.append((topic, at, value))
            return []
        # A rejection that names our message and another place is of somebody who repeats us.
        if value.get("message_id") != self.message_id or topic in REPEATED:
            return []
        if topic == "outcomes":
            self.status = value["status"]
        return [self._tell(topic, at, value)]

    def _names_us(self, value: Mapping[str, Any]) -> bool:
        source = value.get("source")
        return source is not None and self.place == _place(source)

    def _tell(self, topic: str, at: int, value: Mapping[str, Any]) -> dict[str, Any]:
        line = _line(topic, at, value)
        self.events.append(line)
        return line


@app.default
def send(
    *,
    to: str,
    text: str,
    subject: str | None = None,
    channel: Annotated[list[str] | None, Parameter(name="--channel", negative="")] = None,
    key: str | None = None,
    priority: str = "normal",
    category: str | None = None,
    country: str | None = None,
    wait: Wait = False,
    timeout: Annotated[float, Parameter(name="--timeout")] = WAIT_S,
    as_json: Json = False,
) -> int:
    """Write one request to `intake` and, with --wait, follow it to its outcome.

    Exit status 0: Kafka has it, or with --wait it was delivered; 1: it was rejected, failed, or is
    still on its way when the time is over; 2: it could not be sent, and why.

    Args:
        to: A phone number with its country code, or an e-mail address.
        text: What to say.
        subject: Of an e-mail.
        channel: A route of your own, step by step (--channel whatsapp --channel sms).
        key: Idempotency key: a second request with the same is rejected as its duplicate.
        priority: urgent, normal or bulk.
        category: What the message is about; routes and opt-outs may depend on it.
        country: Two letters, where the address does not say.
        wait: Follow it and print what happens.
        timeout: Seconds to wait.
        as_json: For programs.
    """
    request = _request(to, text, subject, channel, key, priority, category, country)
    try:
        settings = load_settings()
        cluster, codec = cluster_of(settings), codec_of(settings)

        def decode(raw: bytes | None) -> Mapping[str, Any]:
            return codec.decode(raw)[1]

        show = _shown(as_json=as_json)
        if not wait:
            place = produce(cluster, request)
            return _report(Story(place), as_json=as_json, followed=False)
        with Follower(cluster, FOLLOWED, ends=True) as follower:
            story = Story(produce(cluster, request))
            follow(story, follower, decode, show, timeout)
    except (BadInput, Unable, Unreachable) as error:
        print(f"pipeline send: {error}", file=sys.stderr)
        return UNABLE
    return _report(story, as_json=as_json, followed=True)


def produce(cluster: Cluster, request: Mapping[str, Any]) -> Place:
    """Writes one request and returns its place.

    Raises:
        Unable: Kafka did not take it.
    """
    said: list[Any] = []
    producer = cluster.producer(message_timeout_ms=int(ACKNOWLEDGED_S * 1000))
    producer.produce(
        cluster.real(INTAKE),
        json.dumps(request).encode(),
        on_delivery=lambda error, message: said.append((error, message)),
    )
    producer.flush(ACKNOWLEDGED_S + 1)
    if not said:
        raise Unable(f"Kafka at {cluster.bootstrap} did not answer within {ACKNOWLEDGED_S:.0f} s")
    error, message = said[0]
    if error is not None:
        raise Unable(f"Kafka at {cluster.bootstrap} did not take it: {error.str()}")
    return (INTAKE, int(message.partition()), int(message.offset()))


def follow(
    story: Story,
    follower: Follower,
    decode: Callable[[bytes | None], Mapping[str, Any]],
    show: Callable[[Mapping[str, Any]], None],
    timeout_s: float,
) -> None:
    """Reads until the story has its end, or the time is over. Raises Unreachable."""
    until = time.monotonic() + timeout_s
    while not story.status and time.monotonic() < until:
        for record in follower.poll(0.2):
            try:
                value = decode(record.value)
            except Undecodable:
                continue
            for line in story.hear(record.topic, record.timestamp, value):
                show(line)


def _request(
    to: str,
    text: str,
    subject: str | None,
    channels: list[str] | None,
    key: str | None,
    priority: str,
    category: str | None,
    country: str | None,
) -> dict[str, Any]:
    address = {"email": to} if "@" in to else {"phone": to}
    request: dict[str, Any] = {
        "to": {**address, **({"country": country} if country else {})},
        "content": {"text": text, **({"subject": subject} if subject else {})},
        "priority": priority,
    }
    if key:
        request["idempotency_key"] = key
    if category:
        request["category"] = category
    if channels:
        request["route"] = [{"channel": name} for name in channels]
    return request


def _place(source: Mapping[str, Any]) -> Place:
    return (source["topic"], source["partition"], source["offset"])


def _line(topic: str, at: int, value: Mapping[str, Any]) -> dict[str, Any]:
    wanted = ("channel", "provider", "status", "result", "error_class", "code", "reason", "field")
    line = {"at": at, "event": topic.partition(".")[0]}
    return line | {name: value[name] for name in wanted if value.get(name)}


def _shown(*, as_json: bool) -> Callable[[Mapping[str, Any]], None]:
    if as_json:
        return lambda _line: None
    console = Console(highlight=False)
    began: list[int] = []

    def show(line: Mapping[str, Any]) -> None:
        began.append(line["at"])
        rest = " ".join(f"{k}={v}" for k, v in line.items() if k not in {"at", "event"})
        seconds = (line["at"] - began[0]) / 1000
        console.print(f"{seconds:7.2f} s  {line['event']:14} {rest}", markup=False)

    return show


def _report(story: Story, *, as_json: bool, followed: bool) -> int:
    topic, partition, offset = story.place
    if as_json:
        told = {
            "topic": topic,
            "partition": partition,
            "offset": offset,
            "message_id": story.message_id or None,
            "status": story.status or None,
            "events": story.events,
        }
        print(json.dumps(told, indent=2))
    elif not followed:
        print(f"Kafka has it: {topic}[{partition}] offset {offset}")
    else:
        name = f"message {story.message_id}" if story.message_id else "the request"
        print(f"{name}: {story.status or 'still on its way'}")
    if not followed:
        return OK
    return OK if story.status == "delivered" else BAD
