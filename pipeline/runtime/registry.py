"""The schema registry, spoken to rarely: at start, and when a record brings an unknown schema id.

Any registry with Confluent's HTTP interface fits.
"""

import json
import ssl
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:  # imported when a registry is configured: it doubles a worker's start
    import httpx

_MEDIA: Final = "application/vnd.schemaregistry.v1+json"
_TIMEOUT_S: Final = 5.0


class RegistryUnavailable(Exception):
    """The registry did not answer, or cannot at the moment. Nothing is wrong with the record: stop
    its partition and try again."""


class RegistryRefused(Exception):
    """The registry will not take a schema of ours; somebody has to look."""


class UnknownSchema(Exception):
    """The registry says that there is no schema of this id."""


class Registry:
    """A client for one registry. `auth` is user and password, when it asks for them."""

    def __init__(
        self,
        url: str,
        auth: tuple[str, str] | None = None,
        timeout_s: float = _TIMEOUT_S,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        import httpx

        self._url = url.rstrip("/")
        self._client = httpx.Client(
            auth=auth,
            timeout=timeout_s,
            verify=verify,
            headers={"Content-Type": _MEDIA, "Accept": f"{_MEDIA}, application/json"},
        )

    def close(self) -> None:
        """Lets the connections go."""
        self._client.close()

    def ping(self) -> None:
        """Returns when it answers like a registry.

        Raises:
            RegistryUnavailable, RegistryRefused
        """
        try:
            self._call("GET", "/config")
        except UnknownSchema as error:
            raise RegistryRefused(
                f"{self._url} is no registry's interface; is the path of the address right?"
            ) from error

    def register(self, subject: str, schema: str) -> int:
        """The id of `schema` (JSON text) under `subject`, which gets it when it has it not.

        Raises:
            RegistryUnavailable: try again later.
            RegistryRefused: the schema is incompatible with the subject's, or not allowed.
        """
        body = self._call("POST", f"/subjects/{subject}/versions", json={"schema": schema})
        found = body.get("id")
        if not isinstance(found, int):
            raise RegistryUnavailable(f"{self._url} answered without an id for {subject}")
        return found

    def schema(self, schema_id: int) -> dict[str, Any]:
        """The schema of an id.

        Raises:
            UnknownSchema: there is none, or it is no Avro record.
            RegistryUnavailable: try again later.
        """
        try:
            body = self._call("GET", f"/schemas/ids/{schema_id}")
        except RegistryRefused as error:
            raise RegistryUnavailable(str(error)) from error
        if body.get("schemaType", "AVRO") != "AVRO":
            raise UnknownSchema(f"schema id {schema_id} is {body['schemaType']}, not Avro")
        try:
            found = json.loads(body["schema"])
        except (KeyError, TypeError, ValueError) as error:
            raise RegistryUnavailable(
                f"{self._url} answered without a schema for id {schema_id}"
            ) from error
        if not isinstance(found, dict) or found.get("type") != "record":
            raise UnknownSchema(f"schema id {schema_id} is no record")
        return found

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        import httpx

        try:
            answer = self._client.request(method, self._url + path, **options)
        except httpx.HTTPError as error:
            raise RegistryUnavailable(f"{self._url} did not answer: {error!r}") from error
        if answer.status_code == httpx.codes.NOT_FOUND and method == "GET":
            raise UnknownSchema(f"{self._url} knows no schema at {path}")
        if answer.status_code in (401, 403, 404, 409, 422):
            raise RegistryRefused(
                f"{self._url}{path} answered {answer.status_code}: {_reason(answer)}"
            )
        if not answer.is_success:
            raise RegistryUnavailable(f"{self._url} answered {answer.status_code}")
        try:
            body = answer.json()
        except ValueError as error:
            raise RegistryUnavailable(f"{self._url} answered no JSON") from error
        if not isinstance(body, dict):
            raise RegistryUnavailable(f"{self._url} answered {type(body).__name__}, no object")
        return body


def _reason(answer: "httpx.Response") -> str:
    try:
        return str(answer.json()["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return "no reason given"
