"""A client of the delivery pipeline's HTTP API, in one file without dependencies: copy it.

    client = DeliveryClient("http://127.0.0.1:8080", key)
    sent = client.send({"to": {"phone": "+4915112345678"}, "content": {"text": "Hello"}})
    print(client.wait(sent.message_id)["status"])

What may be repeated is repeated: every message has an idempotency key before it leaves (yours, or a
new one), so that an answer that was lost costs nobody a second message.
"""

import json
import random
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Final, NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import HTTPRedirectHandler, Request, build_opener

AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504})
"""Answers that mean: not now."""

PAUSE_S: Final = 0.2  # at most, before the second try; doubled for each further one
PAUSE_MAX_S: Final = 10.0


class Sent(NamedTuple):
    """A message that the pipeline has taken."""

    message_id: str
    idempotency_key: str


class Refused(Exception):
    """The API said no, and would say so again: `mistakes` names index, field, cause and cure of
    each thing to mend."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.code: str = problem.get("code", "")
        self.mistakes: list[dict[str, Any]] = problem.get("mistakes", [])
        found = "; ".join(
            f"message {one['index']}: {one['field']}: {one['cause']}; {one['cure']}"
            for one in self.mistakes[:3]
        )
        super().__init__(f"{status} {self.code}: {found or problem.get('detail', '')}")


class Away(Exception):
    """No answer that helps, however often we asked. Messages may have been taken: send them again
    under the same idempotency keys (`messages`)."""

    def __init__(self, why: str, messages: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(why)
        self.messages = list(messages)


class _NoRedirects(HTTPRedirectHandler):
    """The key goes to the address that it was meant for and to no other."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True)
class DeliveryClient:
    """The API at `url` for the tenant of `key`. Safe to share between threads.

    `timeout_s` bounds one request, `tries` how often one is made.
    """

    url: str
    key: str
    timeout_s: float = 10.0
    tries: int = 5

    def send(self, message: Mapping[str, Any]) -> Sent:
        """Sends one message (docs/http-api.md says what it may hold).

        Raises:
            Refused: it has a mistake, or the key is none.
            Away: the pipeline does not answer.
        """
        return self.send_all([message])[0]

    def send_all(self, messages: Sequence[Mapping[str, Any]]) -> list[Sent]:
        """Sends up to 1,000 messages, all or nothing.

        Raises:
            Refused: one of them has a mistake, or the key is none.
            Away: the pipeline does not answer.
        """
        named = [
            {**one, "idempotency_key": one.get("idempotency_key") or uuid.uuid4().hex}
            for one in messages
        ]
        try:
            answer = self._ask("POST", "/v1/messages", {"messages": named})
        except Away as error:
            raise Away(str(error), named) from error
        return [Sent(one["message_id"], one["idempotency_key"]) for one in answer["messages"]]

    def status(self, message_id: str) -> dict[str, Any] | None:
        """What became of a message, or None when it is not known (yet).

        Raises:
            Refused: the key is none.
            Away: the pipeline, or its store, does not answer.
        """
        return self._find(f"/v1/messages/{quote(message_id, safe='')}")

    def find(
        self, idempotency_key: str, *, to: str | None = None, to_id: str | None = None
    ) -> dict[str, Any] | None:
        """What became of the message that was sent under a key to an address, or to somebody with
        an id of yours. Like `status`."""
        asked = {"idempotency_key": idempotency_key, "to": to, "to_id": to_id}
        given = {name: value for name, value in asked.items() if value is not None}
        return self._find(f"/v1/messages?{urlencode(given)}")

    def wait(
        self, message_id: str, timeout_s: float = 60.0, every_s: float = 1.0
    ) -> dict[str, Any]:
        """The final status of a message.

        Raises:
            TimeoutError: it has none within `timeout_s`.
            Refused, Away: like `status`.
        """
        end = time.monotonic() + timeout_s
        while True:
            found = self.status(message_id)
            if found is not None and found["final"]:
                return found
            if time.monotonic() + every_s > end:
                word = found["status"] if found else "not known"
                raise TimeoutError(f"{message_id} is {word} after {timeout_s:g} s")
            time.sleep(every_s)

    def _find(self, path: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._ask("GET", path)
        except Refused as error:
            if error.status == 404 and error.code == "not_found":
                return None
            raise
        return found

    def _ask(self, method: str, path: str, value: object = None) -> Any:
        body = None if value is None else json.dumps(value).encode()
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        request = Request(self.url.rstrip("/") + path, body, headers, method=method)
        opener = build_opener(_NoRedirects)
        why, wait_s = "", 0.0
        for number in range(self.tries):
            if number:
                # Full jitter: many clients that were cut off together do not come back together.
                time.sleep(max(wait_s, random.uniform(0, _pause(number))))
            wait_s = 0.0
            try:
                with opener.open(request, timeout=self.timeout_s) as reply:
                    return json.load(reply)
            except HTTPError as error:
                with error:
                    if error.code not in AGAIN:
                        raise Refused(error.code, _problem(error)) from None
                    wait_s = _seconds(error.headers.get("Retry-After"))
                    why = f"status {error.code}"
            except (OSError, HTTPException, ValueError) as error:  # cut off, late, or no JSON
                why = f"{type(error).__name__}: {error}"
        raise Away(f"{self.url} after {self.tries} tries: {why}")


def _pause(number: int) -> float:
    return min(PAUSE_MAX_S, PAUSE_S * 2.0 ** (number - 1))


def _seconds(text: str | None) -> float:
    return min(PAUSE_MAX_S, float(text)) if text is not None and text.isdigit() else 0.0


def _problem(error: HTTPError) -> Mapping[str, Any]:
    """What the API says of an error; nothing when somebody else answers."""
    try:
        found = json.load(error)
    except (OSError, HTTPException, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
