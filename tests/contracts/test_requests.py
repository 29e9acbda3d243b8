"""The requests that demo and fault tests make, and what accept makes of them: one judgement."""

from pipeline.domain.outcomes import Emit, Inbound
from pipeline.domain.policy import Policy, PriorityPolicy, RetryPolicy, RouteStep
from pipeline.runtime.codec import Codec
from pipeline.simulators.people import MISTAKES, Mix, requests
from pipeline.stages.accept import AcceptConfig, accept

NOW = 1_800_000_000_000
RULES = PriorityPolicy(30_000, 3_600_000, RetryPolicy(3, 1_000, 10_000), "wait", 10_000, 5_000)
POLICY = Policy(
    priorities=dict.fromkeys(("urgent", "normal", "bulk"), RULES),
    rules=(),
    default_route=(RouteStep("sms"),),
)
CONFIG = AcceptConfig(POLICY, b"0123456789abcdef", "cluster", Codec().decode)


def test_accept_judges_every_request_as_its_maker_says() -> None:
    names: dict[int, str] = {}
    mistakes: set[str] = set()
    for offset, asked in enumerate(
        requests(3, 1_500, Mix(repeats=0.1, malformed=0.2, keyless=0.3))
    ):
        record = Inbound(asked.topic, 0, offset, NOW + offset, asked.key, asked.value)
        first, *rest = accept(record, CONFIG)
        assert isinstance(first, Emit)
        assert first.value is not None
        if asked.kind == "malformed":
            assert asked.mistake is not None
            mistakes.add(asked.mistake)
            assert (first.topic, first.value["field"]) == ("rejected", asked.field), asked.mistake
        else:
            assert first.topic.startswith("accepted."), first.value
            assert not rest
            assert first.value["country"] == asked.country
            names[asked.number] = first.value["message_id"]
        if asked.kind == "repeat":
            assert asked.repeats is not None
            assert names[asked.number] == names[asked.repeats]
    assert mistakes == set(MISTAKES)
    keyed_repeats = sum(
        1 for asked in requests(3, 1_500, Mix(0.1, 0.2, 0.3)) if asked.kind == "repeat"
    )
    assert len(set(names.values())) == len(names) - keyed_repeats > 0
