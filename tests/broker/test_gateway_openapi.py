"""The gateway held to its OpenAPI document by schemathesis: no 5xx, no undocumented answer, and what
the document forbids is refused."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import load_all_checks
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from pipeline.commands.openapi import text
from pipeline.domain.openapi import document
from pipeline.runtime.kafka import Cluster
from tests.broker.api_world import GOOD, Caller, serving, store_of, topics

EXAMPLES = 30

POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE

load_all_checks()


@pytest.fixture(scope="module")
def shop(kafka: str, clickhouse_url: str) -> Iterator[Caller]:
    cluster = Cluster(kafka, "openapi.")
    with topics(cluster), store_of(clickhouse_url) as url, serving(cluster, url) as caller:
        yield caller


def test_what_is_served_is_the_document(shop: Caller):
    answer = shop.ask("GET", "/v1/openapi.json", headers={"Authorization": ""})
    assert answer.status == 200
    assert answer.json == document() == json.loads(text())


@pytest.mark.parametrize(
    ("operation", "mode", "expected"),
    [
        ("sendMessages", POSITIVE, {202, 400}),
        ("sendMessages", NEGATIVE, {400}),
        ("getMessage", POSITIVE, {404}),
        ("findMessage", POSITIVE, {400}),
        ("findMessage", NEGATIVE, {400}),
        ("getOpenApi", POSITIVE, {200}),
    ],
)
def test_every_answer_is_documented(
    shop: Caller, operation: str, mode: GenerationMode, expected: set[int]
):
    schema = schemathesis.openapi.from_dict(document())
    (found,) = [
        one.ok()
        for one in schema.get_all_operations()
        if one.ok().definition.raw["operationId"] == operation
    ]
    statuses: set[int] = set()
    with requests.Session() as session:

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(found.as_strategy(generation_mode=mode))
        def judged(case: schemathesis.Case) -> None:
            if mode is POSITIVE:
                _reachable(case.body)
            response = case.call_and_validate(
                base_url=f"http://127.0.0.1:{shop.port}",
                session=session,
                headers={"Authorization": f"Bearer {shop.key}"},
                # Whether a number exists is no matter of form: such a 400 is documented.
                excluded_checks=[positive_data_acceptance],
            )
            statuses.add(response.status_code)

        judged()
    assert statuses >= expected


def _reachable(body: Any) -> None:
    """Gives generated messages to somebody who exists, or nearly all would end at that rule."""
    for message in body.get("messages", [body]) if isinstance(body, dict) else ():
        if "to" in message:
            message["to"] = GOOD["to"]
