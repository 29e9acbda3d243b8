"""The short form of `make faults`: each fault once, judged by the whole oracle. It does not judge
recovery times, which mean little beside other tests."""

from pathlib import Path

import pytest

from tests.faults.bench_run import perform
from tests.faults.mutants import SHORT


@pytest.mark.alone
def test_a_pipeline_under_every_fault_loses_and_doubles_nothing(scratch: Path) -> None:
    said: list[str] = []
    result = perform(SHORT, scratch / "faults", said.append)
    assert [str(finding) for finding in result.broken] == [], "\n".join(result.stories)
    assert result.errors == []
    struck = {line.test: (line.done, line.in_flight) for line in result.lines}
    assert all(line.happened for line in result.lines), struck
    assert all(value is not None for line in result.lines for value in line.recoveries), [
        note for line in result.lines for note in line.notes
    ]
