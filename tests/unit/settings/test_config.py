"""One YAML file becomes frozen values, or an error that names the place and the cure."""

from pathlib import Path

import pytest

from pipeline.domain.errors import BadInput
from pipeline.settings import Config, check_config, load_config, sample_path

ENVIRONMENT = {
    name: "https://api.example.org" if name.endswith("URL") else f"secret-of-{name}"
    for name in (
        "WHATSAPP_URL", "WHATSAPP_TOKEN", "WHATSAPP_CALLBACK_SECRET", "SMS_URL", "SMS_TOKEN",
        "SMS_CALLBACK_SECRET", "SMS_WORLDWIDE_URL", "SMS_WORLDWIDE_TOKEN",
        "SMS_WORLDWIDE_CALLBACK_SECRET", "EMAIL_URL", "EMAIL_TOKEN", "EMAIL_CALLBACK_SECRET",
        "VOICE_URL", "VOICE_TOKEN", "VOICE_CALLBACK_SECRET", "PIPELINE_SIMULATOR_URL",
        "PIPELINE_SIMULATOR_SECRET",
    )
}  # fmt: skip

SMALL = """\
priorities:
  urgent: {window: 30s, deadline: 10m, retry: {tries: 3, base: 500ms, cap: 5s},
           on_doubt: resend, command_ttl: 30s, blind_hold: 5s}
  normal: {window: 5m, deadline: 24h, retry: {tries: 4, base: 2s, cap: 2m},
           on_doubt: wait, command_ttl: 5m, blind_hold: 1m}
  bulk: {window: 30m, deadline: 72h, retry: {tries: 5, base: 30s, cap: 15m},
         on_doubt: wait, command_ttl: 30m, blind_hold: 15m}
default_route:
  - {channel: sms}
providers:
  sms-a:
    adapter: generic
    channel: sms
    base_url: http://127.0.0.1:9/sms-a/
"""


def load(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "pipeline.yaml"
    file.write_text(text)
    return load_config(file, "http://gateway.example.org", ENVIRONMENT)


def test_the_sample_is_right() -> None:
    config = load_config(sample_path(), "https://hooks.example.org", ENVIRONMENT)
    assert list(config.accounts) == [
        "whatsapp-main", "sms-cheap", "sms-worldwide", "email-main", "voice-main",
    ]  # fmt: skip
    urgent = config.policy.priorities["urgent"]
    assert (urgent.window_ms, urgent.deadline_ms, urgent.on_doubt) == (30_000, 600_000, "resend")
    assert urgent.retry.max_tries == 3
    sms = config.accounts["sms-worldwide"]
    assert sms.credential == "secret-of-SMS_WORLDWIDE_TOKEN"
    assert sms.callback_url == "https://hooks.example.org/callbacks/sms-worldwide"
    assert not sms.capabilities.echoes_reference
    assert [step.channel for step in config.policy.rules[0].steps] == ["sms", "voice"]
    assert config.tenants == {"intake": "default", "intake.bulk": "default"}


def test_the_demo_has_every_kind_of_account_and_short_windows() -> None:
    config = load_config(sample_path("demo.yaml"), "http://127.0.0.1:8080", ENVIRONMENT)
    capabilities = [account.capabilities for account in config.accounts.values()]
    assert {one.honours_keys for one in capabilities} == {True, False}
    assert {one.echoes_reference for one in capabilities} == {True, False}
    assert {account.channel for account in config.accounts.values()} == {
        "whatsapp", "sms", "voice", "email",
    }  # fmt: skip
    for priority in config.policy.priorities.values():
        assert 2_000 <= priority.window_ms <= 5_000
    assert all(account.timeout_ms == 1_000 for account in config.accounts.values())


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    config = load(tmp_path, SMALL)
    assert config.policy.min_window_ms == 10_000
    assert config.policy.default_route[0].window_ms is None
    assert config.policy.receiptless_channels == ()
    assert config.dispatch.slots == 128
    account = config.accounts["sms-a"]
    assert account.base_url == "http://127.0.0.1:9/sms-a"
    assert not account.capabilities.honours_keys
    assert account.timeout_ms == 4_000


def test_a_channel_without_receipts_can_only_be_accepted(tmp_path: Path) -> None:
    config = load(tmp_path, SMALL + "    receipts: false\n")
    assert config.policy.receiptless_channels == ("sms",)


def test_values_cannot_be_changed(tmp_path: Path) -> None:
    config = load(tmp_path, SMALL)
    with pytest.raises(TypeError):
        config.accounts["other"] = config.accounts["sms-a"]  # type: ignore[index]
    with pytest.raises(AttributeError):
        config.policy.min_window_ms = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "line", "field", "cause", "cure"),
    [
        (("window: 30s", "windw: 30s"), 2, "priorities.urgent.windw", "no such key", "window"),
        (("window: 30s", "window: 3s"), 2, "priorities.urgent.window", "out of bounds", "10s"),
        (("window: 30s", "window: 30"), 2, "priorities.urgent.window", "no duration", "5m"),
        (("deadline: 10m", "deadline: 31d"), 2, "priorities.urgent.deadline", "bounds", "30d"),
        (("tries: 3", "tries: 0"), 2, "priorities.urgent.retry.tries", "out of bounds", "1 to 20"),
        (("tries: 3", "tries: many"), 2, "retry.tries", "whole number", "1 to 20"),
        (("cap: 5s", "cap: 100ms"), 2, "priorities.urgent.retry.cap", "out of bounds", "500ms"),
        (("on_doubt: resend", "on_doubt: send"), 3, "on_doubt", "send is not known", "resend"),
        (("command_ttl: 30s, ", ""), 2, "priorities.urgent", "command_ttl is missing", "add it"),
        (("  normal:", "  nomal:"), 4, "priorities.nomal", "no such key", "normal"),
        (("- {channel: sms}", "- {channel: pigeon}"), 9, "channel", "pigeon is not known", "sms"),
        (("- {channel: sms}", "- {channel: voice}"), 9, "channel", "no provider", "add one"),
        (("  - {channel: sms}\n", "  []\n"), 8, "default_route", "0 steps", "1 to 10"),
        (("adapter: generic", "adapter: generic\n    adapter: x"), 13, "adapter", "twice", "one"),
        (("http://127.0.0.1:9/sms-a/", "ftp://x"), 14, "base_url", "no address", "https"),
        (("http://127.0.0.1:9/sms-a/", "${NOWHERE}/x"), 14, "base_url", "no NOWHERE", "set"),
        (("channel: sms\n", "channel: sms\n    countries: [NO]\n"), 14, "[0]", "true or", '"NO"'),
        (("channel: sms\n", "channel: sms\n    countries: [Germany]\n"), 14, "[0]", "form", "two"),
        (("channel: sms\n", "channel: sms\n    credential: s3cret\n"), 14, "credential", "a secret", "env:"),
        (("channel: sms\n", "channel: sms\n    credential: env:NIX\n"), 14, "credential", "no NIX", "set"),
        (("channel: sms\n", "channel: sms\n    cost: .inf\n"), 14, "cost", "number", "1000"),
        (("channel: sms\n", "channel: sms\n    honours_keys: maybe\n"), 14, "honours_keys", "true or", "false"),
        (("  sms-a:", "  SMS A:"), 11, "providers.SMS A", "cannot name", "small letters"),
        (("providers:", "provider:"), 10, "provider", "no such key", "providers"),
        (("default_route:\n", "default_route: {"), 8, "", "expected", "YAML"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place_and_cure(
    tmp_path: Path, change: tuple[str, str], line: int, field: str, cause: str, cure: str
) -> None:
    assert change[0] in SMALL
    with pytest.raises(BadInput) as caught:
        load(tmp_path, SMALL.replace(change[0], change[1], 1))
    assert f"pipeline.yaml:{line}" in caught.value.field
    assert field in caught.value.field
    assert cause in caught.value.cause
    assert cure in caught.value.cure
    assert "s3cret" not in str(caught.value)


FOUR = """
routes:
  - countries: [DE]
    steps: [{channel: whatsap}]
  - steps: []
providers:
  sms-a:
    adapter: generik
    channel: sms
    base_url: http://127.0.0.1:9/sms-a/
    credential: env:NIX
"""


def found(tmp_path: Path, text: str) -> list[tuple[int, str, str, str]]:
    file = tmp_path / "pipeline.yaml"
    file.write_text(text)
    config, problems = check_config(file, "", ENVIRONMENT, ["generic"])
    assert (config is None) == bool(problems)
    assert all(one.file == str(file) for one in problems)
    return [(one.line, one.path, one.cause, one.cure) for one in problems]


def test_every_mistake_is_found_at_once_and_nothing_that_follows_from_one(tmp_path: Path) -> None:
    text = SMALL.partition("providers:")[0] + FOUR
    assert found(tmp_path, text) == [
        (
            13,
            "routes[0].steps[0].channel",
            "whatsap is not known",
            "allowed: whatsapp, sms, voice, email; did you mean whatsapp?",
        ),
        (14, "routes[1].steps", "a route of 0 steps", "give it 1 to 10 steps"),
        (
            17,
            "providers.sms-a.adapter",
            "generik is not known",
            "allowed: generic; did you mean generic?",
        ),
        (
            20,
            "providers.sms-a.credential",
            "the environment has no NIX",
            "set NIX where the pipeline runs",
        ),
    ]


@pytest.mark.parametrize(
    ("change", "paths"),
    [
        (("channel: sms\n    base", "channel: smss\n    base"), ["providers.sms-a.channel"]),
        (("channel: sms\n    base", "chanel: sms\n    base"), ["providers.sms-a.chanel"]),
        (("    adapter: generic\n    channel: sms\n", ""), ["providers.sms-a"]),
        (("providers:\n  sms-a:", "providers: {}\nother:\n  sms-a:"), ["providers", "other"]),
        (
            ("window: 30s, deadline: 10m", "window: 3s, deadline: 10"),
            ["priorities.urgent.window", "priorities.urgent.deadline"],
        ),
        (("tries: 3, base: 500ms", "tries: 0, base: x"), [*["priorities.urgent.retry"] * 2]),
        (("  - {channel: sms}\n", "  - {channel: sms\n"), [""]),
    ],
)
def test_mistakes_that_hide_others_are_named_alone(
    tmp_path: Path, change: tuple[str, str], paths: list[str]
) -> None:
    assert change[0] in SMALL
    named = [one[1] for one in found(tmp_path, SMALL.replace(change[0], change[1], 1))]
    assert len(named) == len(paths)
    assert all(one.startswith(path) for one, path in zip(named, paths, strict=True))


def test_what_has_no_mistake_is_given(tmp_path: Path) -> None:
    assert found(tmp_path, SMALL) == []
    with pytest.raises(BadInput, match="No such file"):
        check_config(tmp_path / "nowhere.yaml", "", ENVIRONMENT, [])


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere.yaml: No such file"):
        load_config(tmp_path / "nowhere.yaml")


def test_aliases_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="alias"):
        load(tmp_path, "a: &a [x]\nb: *a\n")


def test_api_keys_are_read_by_their_ids(tmp_path: Path) -> None:
    config = load(
        tmp_path, f"{SMALL}api_keys:\n  k4fv2mzq: {{tenant: shop, sha256: {'0a' * 32}}}\n"
    )
    assert config.api_keys["k4fv2mzq"].tenant == "shop"
    assert config.api_keys["k4fv2mzq"].sha256 == b"\n" * 32
    assert load(tmp_path, SMALL).api_keys == {}


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("K1: {tenant: shop, sha256: aa}", "api_keys.K1"),
        (f"k4fv2mzq: {{tenant: Shop, sha256: {'0a' * 32}}}", "api_keys.k4fv2mzq.tenant"),
        ("k4fv2mzq: {tenant: shop, sha256: 0a0a}", "api_keys.k4fv2mzq.sha256"),
        ("k4fv2mzq: {tenant: shop}", "api_keys.k4fv2mzq"),
        (f"k4fv2mzq: {{tenant: shop, sha256: {'0a' * 32}, key: x}}", "api_keys.k4fv2mzq.key"),
    ],
)
def test_an_api_key_that_cannot_be_meant_is_named(tmp_path: Path, line: str, place: str) -> None:
    with pytest.raises(BadInput) as found:
        load(tmp_path, f"{SMALL}api_keys:\n  {line}\n")
    assert found.value.field.endswith(f": {place}")
