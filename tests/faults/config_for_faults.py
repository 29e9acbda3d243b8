"""The policy file and the provider's script of a fault run: windows of seconds, every kind of
account, receipts through both gateways."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.faults.history import Rules

TIMEOUT_MS: Final = 1_000
SECRET_NAME: Final = "PIPELINE_SIMULATOR_SECRET"

ACCOUNTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "whatsapp-a": {"channel": "whatsapp", "honours_keys": True},
    "sms-a": {"channel": "sms", "honours_keys": True},
    "sms-b": {"channel": "sms", "honours_keys": False},
    "voice-a": {"channel": "voice", "honours_keys": False},
    "email-a": {"channel": "email", "honours_keys": True, "echoes_reference": False},
    "email-b": {"channel": "email", "honours_keys": False},
}
TRIES: Final = {"urgent": 2, "normal": 3, "bulk": 3}


def _priority(
    name: str, window_s: int, on_doubt: str, deadline: str, ttl: str, hold: str
) -> dict[str, Any]:
    return {
        "window": f"{window_s}s",
        "deadline": deadline,
        "retry": {"tries": TRIES[name], "base": "200ms", "cap": "1s"},
        "on_doubt": on_doubt,
        "command_ttl": ttl,
        "blind_hold": hold,
    }


def policy(provider: str, gateways: tuple[str, str], window_s: int, slots: int = 0) -> str:
    """The YAML of one run. `provider` and `gateways` are base addresses; `slots` 0 leaves
    dispatch's own number."""
    accounts = {}
    for number, (name, facts) in enumerate(ACCOUNTS.items()):
        accounts[name] = {
            "adapter": "generic",
            "base_url": f"{provider}/{name}",
            "callback_url": f"{gateways[number % 2]}/callbacks/{name}",
            "callback_secrets": [f"env:{SECRET_NAME}"],
            "cost": 0.01,
            "timeout": f"{TIMEOUT_MS}ms",
            **facts,
        }
    document: dict[str, Any] = {
        "priorities": {
            "urgent": _priority("urgent", window_s, "resend", "90s", "10s", "5s"),
            "normal": _priority("normal", window_s, "wait", "120s", "20s", "20s"),
            "bulk": _priority("bulk", window_s, "wait", "120s", "30s", "30s"),
        },
        "default_route": [{"channel": "whatsapp"}, {"channel": "sms"}, {"channel": "email"}],
        "limits": {"min_window": "2s"},
        "providers": accounts,
    }
    if slots:
        document["dispatch"] = {"slots": slots, "provider_share": 1.0}
    return yaml.safe_dump(document, sort_keys=False)


def script(window_s: int, answer_delay_s: tuple[float, float] = (0.0, 0.0)) -> str:
    """The simulator's YAML. Every behaviour of its own table stays in the mix."""
    accounts = {
        name: {
            "honours_keys": facts["honours_keys"],
            "echoes_reference": facts.get("echoes_reference", True),
        }
        for name, facts in ACCOUNTS.items()
    }
    return yaml.safe_dump(
        {
            "windows_s": dict.fromkeys(("whatsapp", "sms", "voice", "email"), window_s),
            "answer_delay_s": list(answer_delay_s),
            "accounts": accounts,
        }
    )


def rules(slots: int = 0) -> Rules:
    """What the oracle must know of both."""
    channels = [facts["channel"] for facts in ACCOUNTS.values()]
    return Rules(
        honours_keys={name: facts["honours_keys"] for name, facts in ACCOUNTS.items()},
        echoes={name: facts.get("echoes_reference", True) for name, facts in ACCOUNTS.items()},
        accounts_by_channel={channel: channels.count(channel) for channel in set(channels)},
        max_tries=TRIES,
        timeout_ms=TIMEOUT_MS,
        slots=slots or 128,
    )


def write(
    folder: Path, provider: str, gateways: tuple[str, str], window_s: int, slots: int
) -> tuple[Path, Path]:
    """Writes both files; with few slots the provider answers slowly, so that commands queue."""
    config, behaviour = folder / "faults.yaml", folder / "script.yaml"
    config.write_text(policy(provider, gateways, window_s, slots))
    behaviour.write_text(script(window_s, (0.1, 0.2) if slots else (0.0, 0.0)))
    return config, behaviour
