"""The verdict of a fault run: a run that tested nothing, or recovered late, fails."""

import json
from pathlib import Path

import pytest

from tests.faults.report import Line, figures, percentile, write


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.95, 0.0),
        ([3.0], 0.95, 3.0),
        (list(map(float, range(1, 21))), 0.95, 19.0),
        (list(map(float, range(1, 21))), 1.0, 20.0),
        ([1.0, None], 1.0, float("inf")),
    ],
)
def test_percentile_is_a_value_that_occurred(
    values: list[float | None], share: float, expected: float
) -> None:
    assert percentile(values, share) == expected


def test_faults_that_did_not_happen_fail_the_line() -> None:
    assert not Line("kill", wanted=2, done=1, in_flight=1).happened
    assert not Line("kill", wanted=2, done=2, in_flight=1).happened
    assert Line("kill", wanted=2, done=2, in_flight=2).happened


def test_a_recovery_that_never_ended_fails_the_line_and_is_null_in_json(tmp_path: Path) -> None:
    line = Line("kill", wanted=1, done=1, in_flight=1, recoveries=[None])
    assert not line.recovered
    path = tmp_path / "build" / "faults.json"
    write(path, figures([line]))
    entries = {entry["name"]: entry for entry in json.loads(path.read_text())}
    assert entries["kill: recovery max"]["value"] is None
    assert entries["kill: recovery max"]["ok"] is False
    assert set(entries["kill: faults"]) == {"name", "value", "unit", "target", "ok"}
