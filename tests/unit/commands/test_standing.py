"""How the stages stand, over made measurements."""

import pytest

from pipeline.commands import standing
from pipeline.runtime.lag import Members, Standing
from pipeline.topology import CATALOGUE

NOW = 1_767_225_600_000
DAY = 86_400_000
AT_WORK = {"fallback": Members("stable", ("a at h", "b at h")), "sink": Members("stable", ("c",))}


def one(topic: str, partition: int = 0, group: str = "fallback", **changes: object) -> Standing:
    found: dict[str, object] = {"position": 10, "low": 0, "stable": 10, "high": 10}
    return Standing(group, topic, partition, **(found | changes))  # type: ignore[arg-type]


def test_a_row_sums_a_lane_and_names_its_oldest_record() -> None:
    measured = [
        one("accepted.urgent"),
        one("accepted.bulk", 0, stable=15, oldest_at=NOW - 5_000),
        one("accepted.bulk", 1, stable=40, position=30, oldest_at=NOW - DAY),
        one("delivered", 2, position=None, low=4),
        one("intake.bulk", group="accept-bulk", stable=12, oldest_at=NOW),
    ]
    rows = {(row.stage, row.lane): row for row in standing.rows(measured, AT_WORK, NOW)}
    assert list(rows) == [
        ("fallback", "urgent"), ("fallback", "bulk"), ("fallback", ""), ("accept-bulk", "bulk"),
    ]  # fmt: skip
    bulk = rows["fallback", "bulk"]
    assert (bulk.workers, bulk.lag, bulk.oldest_ms) == (2, 15, DAY)
    assert bulk.oldest == "accepted.bulk[1]@30"
    assert bulk.share == pytest.approx(1 / 3)  # of three days
    assert (rows["fallback", "urgent"].lag, rows["fallback", "urgent"].oldest) == (0, "")
    assert rows["fallback", ""].lag == 6  # from the first record that is kept
    assert rows["accept-bulk", "bulk"].workers == 0
    assert standing.as_dict(bulk)["share_of_retention"] == 0.3333


def test_what_is_never_dropped_uses_none_of_its_retention() -> None:
    assert CATALOGUE.topic("profiles").retention_ms is None
    assert standing.share_of(one("profiles", oldest_at=NOW - DAY), NOW) == 0


def test_a_pipeline_that_moves_has_no_trouble() -> None:
    measured = [one("accepted.urgent", stable=15, oldest_at=NOW - 5_000)]
    assert standing.troubles(measured, AT_WORK, {0: NOW - 200, 1: NOW - 900}, 2, NOW) == []


def test_each_trouble_has_its_cause_and_cure() -> None:
    measured = [
        one("accepted.urgent", 3, position=None),
        one("intake.bulk", group="accept-bulk", stable=12),
        one("delivered", 1, high=20, undecided_at=NOW - 45_000),
        one("delivered", 1, group="sink", high=20, undecided_at=NOW - 45_000),
        one("read", 1, high=20, undecided_at=NOW - 5_000),
    ]
    found = standing.troubles(measured, AT_WORK, {0: NOW, 2: NOW - 60_000}, 3, NOW)
    said = {trouble.subject: (trouble.cause, trouble.cure) for trouble in found}
    assert len(found) == len(said) == 4
    assert said["fallback"][0] == "it has no position in accepted.urgent[3]"
    assert said["accept-bulk"] == (
        "nobody works, and 2 offsets wait",
        "start it: pipeline run accept",
    )
    assert said["delivered[1]"][0].startswith("a transaction is open for 45.0 s")
    cause = "it has not listened for a minute or more, so windows that end wait for it"
    assert said["receipts[1,2]"][0] == cause


def test_groups_have_every_partition_of_what_they_work_through_and_no_lead() -> None:
    counts = {topic.name: 2 for topic in CATALOGUE if topic.name != "read"}
    groups = standing.groups_of(counts)
    assert groups["accept"] == [
        ("intake", 0), ("intake", 1), ("recipients", 0), ("recipients", 1),
    ]  # fmt: skip
    assert groups["accept-bulk"] == [("intake.bulk", 0), ("intake.bulk", 1)]
    assert ("delivered", 1) in groups["fallback"]
    assert not any(topic == "read" for topic, _ in groups["fallback"])
    assert not any(topic.endswith("journal") for topic, _ in groups["dispatch"])
    assert standing.groups_of({}) == {}
