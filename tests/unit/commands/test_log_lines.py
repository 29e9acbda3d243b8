"""Log lines are JSON, and quote nothing of a person's message."""

import json
import logging
import subprocess
import sys

from pipeline.commands.log_lines import JsonLines, TextLines
from pipeline.domain.errors import BadInput


def line(error: BaseException | None = None) -> dict[str, object]:
    info = None
    if error is not None:
        try:
            raise error
        except type(error):
            info = sys.exc_info()
    record = logging.LogRecord("a.b", logging.WARNING, __file__, 1, "took %d", (3,), info)
    text = JsonLines().format(record)
    assert "\n" not in text
    found: dict[str, object] = json.loads(text)
    return found


def test_a_line_says_when_how_bad_who_and_what():
    found = line()
    assert set(found) == {"time", "level", "logger", "message"}
    assert (found["level"], found["logger"], found["message"]) == ("warning", "a.b", "took 3")
    assert str(found["time"]).endswith("+00:00")


def test_an_exception_leaves_its_kind_and_place_but_not_its_words():
    found = line(KeyError("+4915112345678"))
    assert found["error"] == "KeyError"
    assert "4915112345678" not in json.dumps(found)
    (place,) = found["trace"]  # type: ignore[misc]
    assert "test_log_lines.py" in place


def test_our_own_errors_keep_their_words():
    found = line(BadInput("PIPELINE_PEPPER", "it is not set", "set it"))
    assert found["error"] == "BadInput: PIPELINE_PEPPER: it is not set; set it"


def raised() -> logging.LogRecord:
    try:
        raise KeyError("+4915112345678")
    except KeyError:
        info = sys.exc_info()
    return logging.LogRecord("a.b", logging.ERROR, __file__, 1, "broke", (), info)


def test_a_wide_line_has_its_fields_beside_the_message():
    record = logging.LogRecord("pipeline.attempt", logging.INFO, __file__, 1, "done", (), None)
    record.fields = {"provider": "one", "latency_ms": 61, "code": None}
    found = json.loads(JsonLines().format(record))
    assert (found["message"], found["provider"], found["latency_ms"]) == ("done", "one", 61)
    assert found["code"] is None
    text = TextLines().format(record)
    assert text.endswith("INFO     pipeline.attempt: done provider=one latency_ms=61")


def test_text_for_people_quotes_nothing_of_a_message_either():
    text = TextLines().format(raised())
    first, place = text.splitlines()
    assert first.endswith("ERROR    a.b: broke error=KeyError")
    assert "test_log_lines.py" in place
    assert "4915112345678" not in text


def test_a_clients_requests_are_not_logged_with_their_addresses():
    """In a process of its own: the logs of this one belong to the test runner."""
    program = (
        "import logging\n"
        "from pipeline.commands.log_lines import to_stderr\n"
        "to_stderr('text')\n"
        "logging.getLogger('httpx').info('GET http://user:secret@127.0.0.1/')\n"
        "logging.getLogger('pipeline.x').info('here')\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stderr
    assert "here" in said
    assert "secret" not in said
