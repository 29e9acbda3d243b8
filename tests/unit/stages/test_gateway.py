"""Gateway: which webhooks become records, and what is left out of those."""

import base64
import hashlib
import hmac
from typing import Any

import pytest

from pipeline.domain.outcomes import Emit
from pipeline.domain.ports import Account
from pipeline.domain.webhooks import BODY_LIMIT, Refusal, WebRequest
from pipeline.providers import PROVIDERS
from pipeline.runtime.codec import Codec
from pipeline.stages.gateway import GatewayConfig, harmless, receive, without_secrets

NOW = 1_800_000_000_000
SECRET = base64.b64encode(b"k" * 32).decode()
ACCOUNT = Account(
    "sms-one", "generic", "sms", "http://127.0.0.1:1", callback_secrets=(f"whsec_{SECRET}",)
)
CONFIG = GatewayConfig({ACCOUNT.name: ACCOUNT}, PROVIDERS)
BODY = b'{"type":"delivered"}'


def signature(body: bytes, name: str = "w-1", at: int = NOW // 1000, secret: str = SECRET) -> str:
    signed = f"{name}.{at}.".encode() + body
    digest = hmac.digest(base64.b64decode(secret), signed, hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode()


def request(body: bytes = BODY, **headers: str) -> WebRequest:
    given = {
        "webhook-id": "w-1",
        "webhook-timestamp": str(NOW // 1000),
        "webhook-signature": signature(body),
        "content-type": "application/json",
    }
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    return WebRequest("POST", "/callbacks/sms-one", "a=1&token=hunter2", given, body)


def taken(found: Emit | Refusal) -> dict[str, Any]:
    assert isinstance(found, Emit), found
    assert found.value is not None
    Codec().encode("Callback", found.value)
    return dict(found.value)


def test_a_signed_webhook_becomes_a_record_with_its_bytes() -> None:
    found = receive("sms-one", request(authorization="Bearer x"), NOW, CONFIG)
    assert isinstance(found, Emit)
    assert (found.topic, found.key) == ("callbacks", None)
    assert taken(found) == {
        "record_version": 1,
        "tenant": "",
        "callback_id": taken(found)["callback_id"],
        "provider": "sms-one",
        "received_at": NOW,
        "method": "POST",
        "path": "/callbacks/sms-one",
        "query": "a=1&token=redacted",
        "headers": {
            "webhook-id": "w-1",
            "webhook-timestamp": str(NOW // 1000),
            "content-type": "application/json",
        },
        "body": BODY,
    }


@pytest.mark.parametrize(
    "changed",
    [
        {"webhook_signature": ""},
        {"webhook_signature": signature(BODY, secret=base64.b64encode(b"o" * 32).decode())},
        {"webhook_signature": signature(BODY + b" ")},
        {"webhook_id": "w-2"},
        {"webhook_timestamp": str(NOW // 1000 - 1)},
        {"webhook_timestamp": "soon"},
    ],
)
def test_a_wrong_signature_is_refused(changed: dict[str, str]) -> None:
    found = receive("sms-one", request(**changed), NOW, CONFIG)
    assert found == Refusal(401, "wrong_signature")


def test_an_old_webhook_is_refused() -> None:
    assert receive("sms-one", request(), NOW + 6 * 60_000, CONFIG) == Refusal(
        401, "wrong_signature"
    )


def test_an_account_without_a_secret_takes_nothing() -> None:
    bare = Account("bare", "generic", "sms", "http://127.0.0.1:1")
    config = GatewayConfig({"bare": bare}, PROVIDERS)
    assert receive("bare", request(), NOW, config) == Refusal(401, "wrong_signature")


def test_an_unknown_provider_is_refused() -> None:
    assert receive("nobody", request(), NOW, CONFIG) == Refusal(404, "unknown_provider")


def test_what_could_grow_is_refused() -> None:
    assert receive("sms-one", request(content_encoding="gzip"), NOW, CONFIG) == Refusal(
        415, "content_encoding"
    )
    large = request(b"x" * (BODY_LIMIT + 1))
    assert receive("sms-one", large, NOW, CONFIG) == Refusal(413, "body_too_large")
    many = request(**{f"x{n}": "" for n in range(100)})
    assert receive("sms-one", many, NOW, CONFIG) == Refusal(431, "headers_too_large")
    wide = request(x="y" * 17_000)
    assert receive("sms-one", wide, NOW, CONFIG) == Refusal(431, "headers_too_large")


def test_a_body_that_nobody_understands_is_kept_all_the_same() -> None:
    body = b"\xff\x00<html>"
    assert taken(receive("sms-one", request(body), NOW, CONFIG))["body"] == body


def test_a_repeat_has_the_same_name_and_another_webhook_has_not() -> None:
    def name(found: WebRequest, now: int = NOW) -> str:
        return str(taken(receive("sms-one", found, now, CONFIG))["callback_id"])

    other = request(webhook_id="w-2", webhook_signature=signature(BODY, "w-2"))
    assert name(request()) == name(request(), NOW + 1_000)
    assert name(request()) != name(other)


def test_without_an_id_the_body_names_the_webhook() -> None:
    class Trusting:
        def verify(self, *_: object) -> bool:
            return True

    config = GatewayConfig({"sms-one": ACCOUNT}, {"generic": Trusting()})  # type: ignore[dict-item]

    def name(body: bytes, query: str = "") -> str:
        found = WebRequest("POST", "/callbacks/sms-one", query, {}, body)
        return str(taken(receive("sms-one", found, NOW, config))["callback_id"])

    assert name(b"a") == name(b"a")
    assert len({name(b"a"), name(b"b"), name(b"a", "mid=1")}) == 3


def test_credentials_are_left_out_by_their_names() -> None:
    secret = (
        "authorization",
        "proxy-authorization",
        "cookie",
        "x-api-key",
        "x-hub-signature-256",
        "webhook-signature",
        "x-telegram-bot-api-secret-token",
        "messagebird-signature-jwt",
        "x-hmac",
    )
    kept = {"content-type": "a", "webhook-id": "b", "user-agent": "c", "x-amz-sns-topic-arn": "d"}
    assert harmless({**dict.fromkeys(secret, "hunter2"), **kept}) == kept
    assert without_secrets("") == ""
    assert (
        without_secrets("mid=1&API_KEY=x&sig=y&flag") == "mid=1&API_KEY=redacted&sig=redacted&flag"
    )
