"""The bench's arithmetic and the shape of its JSON; what it measures is measured by running it."""

import json
from pathlib import Path

import orjson
import pytest

from bench.figures import Figure, against, quantile, write
from bench.load import commands, dispatched, messages, phone, requests
from bench.provider import Answering
from pipeline.runtime.codec import Codec
from pipeline.stages.accept import read_phone

KEYS = ["name", "value", "unit", "reference", "ratio", "target", "ok"]


def test_a_ratio_is_the_median_of_the_rounds_and_not_the_ratio_of_the_medians():
    figure = against("accept", [(60, 100), (10, 100), (90, 120)], "messages/s", 0.6)
    assert (figure.value, figure.reference, figure.ratio) == (60, 100, 0.6)
    assert figure.ok


@pytest.mark.parametrize(
    ("figure", "ok"),
    [
        (Figure("speed", 499.9, "messages/s", target=500), False),
        (Figure("speed", 500, "messages/s", target=500), True),
        (Figure("latency", 40, "ms", target=40, better="low"), True),
        (Figure("latency", 41, "ms", target=40, better="low"), False),
        (Figure("a ratio counts, not the value", 9_000, "messages/s", 20_000, 0.45, 0.6), False),
        (Figure("only for reading", 1, "us/message"), True),
    ],
)
def test_a_target_is_of_the_ratio_where_there_is_one(figure, ok):
    assert figure.ok is ok


@pytest.mark.parametrize("pairs", [[], [(5.0, 0.0)]])
def test_a_round_without_a_figure_is_an_error_and_no_ratio(pairs):
    with pytest.raises(ValueError, match="accept"):
        against("accept", pairs, "messages/s", 0.6)


def test_a_quantile_is_one_of_the_values():
    assert quantile([3, 1, 2], 0.5) == 2
    assert quantile(list(range(100)), 0.95) == 95
    assert quantile([7], 0.95) == 7
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_the_json_is_a_list_of_the_promised_fields(tmp_path: Path):
    path = tmp_path / "build" / "bench.json"
    figures = [against("sink", [(9, 10)], "rows/s", 0.6), Figure("p50", 12.34567, "ms")]
    write(figures, path)
    found = json.loads(path.read_text())
    assert [list(entry) for entry in found] == [KEYS, KEYS]
    assert found[0] == dict(zip(KEYS, ["sink", 9, "rows/s", 10, 0.9, 0.6, True], strict=True))
    assert found[1] == dict(zip(KEYS, ["p50", 12.346, "ms", None, None, None, True], strict=True))


def test_what_it_sends_is_valid_and_always_new():
    codec = Codec()
    assert all(read_phone(phone(person), None) for person in range(500))
    for make in (commands, dispatched, messages):
        made = make(codec, 20)
        assert len({value for _, value in made}) == 20
        assert codec.decode(made[0][1])[0]
    known = [orjson.loads(value) for _, value in requests(30, new_people=False)]
    assert len({request["idempotency_key"] for request in known}) == 30
    assert {request["priority"] for request in known} == {"urgent", "normal", "bulk"}


def test_the_provider_answers_every_whole_request_once():
    class Wire:
        def __init__(self) -> None:
            self.written: list[bytes] = []

        def write(self, data: bytes) -> None:
            self.written.append(data)

    request = b"POST /x HTTP/1.1\r\nIdempotency-Key: k1\r\nContent-Length: 3\r\n\r\nabc"
    serving, wire = Answering(), Wire()
    serving.connect(wire)
    for part in (request[:20], request[20:] + request, b""):
        serving.data_received(part)
    assert len(wire.written) == 2
    assert all(b" 202 " in answer and b'{"id":"id-k1"}' in answer for answer in wire.written)
