"""The OpenAPI 3.1 document of the HTTP API, made from the typed dictionaries of `domain/api.py`."""

import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NotRequired, get_args, get_origin

from pipeline.domain.api import (
    MessageStatus,
    NewMessage,
    NewMessages,
    Problem,
    Taken,
    TakenBatch,
)

Schema = dict[str, Any]

PROBLEM: Final = "application/problem+json"

_PLAIN: Final[Mapping[type, str]] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    types.NoneType: "null",
}
_PROBLEMS: Final[Mapping[int, str]] = {
    400: "It cannot be taken; nothing was written. `mistakes` names each field.",
    401: "There is no such API key.",
    404: "This tenant has no such message, or it was taken only a moment ago.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    415: "The body is not JSON, or it is compressed.",
    429: "This tenant holds its share of the requests that the gateway has in hand.",
    503: "Not now; what is behind the gateway does not answer.",
}
_HEADERS: Final[Mapping[int, Schema]] = {
    401: {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}},
    429: {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}},
    503: {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}},
}


def document() -> Schema:
    """The whole document; the same on every call."""
    schemas: dict[str, Schema] = {}
    paths = {
        "/v1/messages": {"post": _send(schemas), "get": _find(schemas)},
        "/v1/messages/{message_id}": {"get": _status(schemas)},
        "/v1/openapi.json": {"get": _this()},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Delivery pipeline",
            "version": "1",
            "description": "Messages in, by HTTP. docs/http-api.md says it in words.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key that `pipeline keys new` made; it says the tenant.",
                }
            },
        },
    }


def _send(schemas: dict[str, Schema]) -> Schema:
    return {
        "operationId": "sendMessages",
        "summary": "Send one message, or up to 1,000.",
        "parameters": [
            {
                "name": "traceparent",
                "in": "header",
                "description": "W3C trace context; it is carried to every event and the provider.",
                "schema": {"type": "string"},
            }
        ],
        "requestBody": {
            "required": True,
            "content": _json({"anyOf": [_of(NewMessage, schemas), _of(NewMessages, schemas)]}),
        },
        "responses": {
            "202": {
                "description": "Kafka has it: it will end in exactly one outcome.",
                "content": _json({"anyOf": [_of(Taken, schemas), _of(TakenBatch, schemas)]}),
            },
            **_problems(schemas, 400, 401, 408, 413, 415, 429, 503),
        },
    }


def _status(schemas: dict[str, Schema]) -> Schema:
    return {
        "operationId": "getMessage",
        "summary": "What became of a message.",
        "parameters": [
            {
                "name": "message_id",
                "in": "path",
                "required": True,
                "schema": {"type": "string", "minLength": 1},
            }
        ],
        "responses": {**_told(schemas), **_problems(schemas, 401, 404, 429, 503)},
    }


def _find(schemas: dict[str, Schema]) -> Schema:
    def query(name: str, meaning: str, **more: Any) -> Schema:
        return {
            "name": name,
            "in": "query",
            "description": meaning,
            "schema": {"type": "string"},
            **more,
        }

    return {
        "operationId": "findMessage",
        "summary": "What became of the message that was sent under a key of yours.",
        "parameters": [
            query("idempotency_key", "The key that it was sent under.", required=True),
            query(
                "to",
                "The phone number or e-mail address in its `to`, unless `to` has an id.",
                examples={"phone": {"value": "+4915112345678"}},
            ),
            query("to_id", "The id in its `to`. Give one of the two."),
        ],
        "responses": {**_told(schemas), **_problems(schemas, 400, 401, 404, 429, 503)},
    }


def _told(schemas: dict[str, Schema]) -> dict[str, Schema]:
    return {
        "200": {
            "description": "Its status and its story.",
            "content": _json(_of(MessageStatus, schemas)),
        }
    }


def _this() -> Schema:
    return {
        "operationId": "getOpenApi",
        "summary": "This document.",
        "security": [],
        "responses": {"200": {"description": "OpenAPI 3.1.", "content": _json({"type": "object"})}},
    }


def _problems(schemas: dict[str, Schema], *statuses: int) -> dict[str, Schema]:
    found: dict[str, Schema] = {}
    for status in statuses:
        found[str(status)] = {
            "description": _PROBLEMS[status],
            "content": {PROBLEM: {"schema": _of(Problem, schemas)}},
        }
        if status in _HEADERS:
            found[str(status)]["headers"] = _HEADERS[status]
    return found


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _of(kind: Any, schemas: dict[str, Schema]) -> Schema:
    """The schema of a type; typed dictionaries go to `schemas` and are referred to."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is NotRequired:
        return _of(inside[0], schemas)
    if origin is Annotated:
        said: Schema = kind.__metadata__[0]
        return _of(inside[0], schemas) | said
    if origin is Literal:
        return {"type": "string", "enum": list(inside)}
    if origin in (types.UnionType, typing.Union):
        return _any(inside, schemas)
    if origin is list:
        return {"type": "array", "items": _of(inside[0], schemas)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of(inside[1], schemas)}
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    return _record(kind, schemas)


def _any(kinds: tuple[Any, ...], schemas: dict[str, Schema]) -> Schema:
    """One schema with several types, as far as their other words do not meet."""
    found: Schema = {}
    names: list[str] = []
    for kind in kinds:
        schema = _of(kind, schemas)
        names.append(schema.pop("type"))
        if kind is types.NoneType and "enum" in found:
            found["enum"].append(None)
        found |= schema
    return {"type": names, **found}


def _record(kind: Any, schemas: dict[str, Schema]) -> Schema:
    name = kind.__name__
    if name not in schemas:
        hints = typing.get_type_hints(kind, include_extras=True)
        schemas[name] = {
            "type": "object",
            "description": " ".join(kind.__doc__.split()),
            "properties": {field: _of(hint, schemas) for field, hint in hints.items()},
            "required": [field for field in hints if field in kind.__required_keys__],
            "additionalProperties": False,
        }
    return {"$ref": f"#/components/schemas/{name}"}
