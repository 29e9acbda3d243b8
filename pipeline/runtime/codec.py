"""Records to bytes and back.

Without a registry every record carries its schema's fingerprint (Avro single-object encoding:
C3 01, the CRC-64-AVRO of the schema's canonical form in little endian, then the body). With one it
carries the registry's id (00, the id in big endian, then the body). A reader takes both, whichever
is configured, by the first byte. Older fingerprints stay readable through `schemas/released/`.

Logical types are left out on both sides: times stay integers, in milliseconds, which is what the
records say and costs nothing on the message path.
"""

import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.schema import (
    SchemaParseException,
    UnknownType,
    fingerprint,
    to_parsing_canonical_form,
)

from pipeline.domain.errors import Undecodable
from pipeline.runtime.registry import Registry, UnknownSchema
from pipeline.topology import CATALOGUE, RECORDS, resource

NAMESPACE: Final = "delivery"
_SINGLE: Final = b"\xc3\x01"
_FINGERPRINT_END: Final = 10
_ID_END: Final = 5


@dataclass(frozen=True, slots=True)
class Schema:
    """One record's schema. `text` is the file's JSON, `fingerprint` the eight bytes on the wire."""

    name: str
    text: str
    parsed: Any
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class _Way:
    """How to read one writer's bytes; `reader` is None when writer and reader agree."""

    name: str
    writer: Any
    reader: Any


def file_name(record: str) -> str:
    """SendRequest is described in send_request.avsc."""
    return re.sub(r"(?<!^)([A-Z])", r"_\1", record).lower() + ".avsc"


def _plain(schema: Any) -> Any:
    """The schema without logical types."""
    if isinstance(schema, list):
        return [_plain(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value if key == "default" else _plain(value)
        for key, value in schema.items()
        if key != "logicalType"
    }


def _bytes_defaults(schema: Any) -> None:
    """JSON spells bytes as text; fastavro writes a default as it stands, so it has to be bytes."""
    if isinstance(schema, list):
        for part in schema:
            _bytes_defaults(part)
    elif isinstance(schema, dict):
        if schema.get("type") == "bytes" and isinstance(schema.get("default"), str):
            schema["default"] = schema["default"].encode("latin-1")
        for key in ("type", "fields", "items", "values"):
            _bytes_defaults(schema.get(key))


def read_schema(text: str) -> Schema:
    """A schema from its JSON.

    Raises:
        ValueError: it is no Avro record.
    """
    raw = json.loads(text)
    parsed = parse_schema(_plain(raw), named_schemas={})
    _bytes_defaults(parsed)
    digest = fingerprint(to_parsing_canonical_form(raw), "CRC-64-AVRO")
    return Schema(raw["name"], text, parsed, bytes.fromhex(digest))


def load_schemas(folder: Path | None = None) -> dict[str, Schema]:
    """The schema of every record, by its name."""
    folder = folder or resource("schemas")
    return {
        record: read_schema((folder / file_name(record)).read_text(encoding="utf-8"))
        for record in RECORDS
    }


def load_history(folder: Path | None = None) -> list[Schema]:
    """Schemas of earlier releases, a folder each."""
    folder = folder or resource("schemas") / "released"
    return [
        read_schema(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.avsc"))
    ]


def from_json(schema: Schema, value: Mapping[str, Any]) -> dict[str, Any]:
    """A record from the form that examples and tools use: plain JSON, bytes as text of one
    character a byte. What is left out gets its default.

    Raises:
        ValueError, TypeError, KeyError: it does not fit the schema.
    """
    body = io.BytesIO()
    named = schema.parsed["__named_schemas"]
    schemaless_writer(body, schema.parsed, _binary(schema.parsed, value, named))
    body.seek(0)
    return schemaless_reader(body, schema.parsed, None)  # type: ignore[return-value]


def _binary(kind: Any, value: Any, named: Mapping[str, Any]) -> Any:
    """`value` with text turned to bytes where `kind` wants bytes."""
    if isinstance(kind, list):
        (kind,) = [part for part in kind if part != "null"]
    if isinstance(kind, str):
        kind = named.get(kind, kind)
    if kind == "bytes":
        return value.encode("latin-1") if isinstance(value, str) else value
    if value is None or not isinstance(kind, dict):
        return value
    match kind["type"]:
        case "record":
            kinds = {field["name"]: field["type"] for field in kind["fields"]}
            return {
                name: _binary(kinds[name], part, named) if name in kinds else part
                for name, part in value.items()
            }
        case "array":
            return [_binary(kind["items"], part, named) for part in value]
        case inner:
            return value if inner == "map" else _binary(inner, value, named)


class Codec:
    """Encodes and decodes every record of the catalogue; threads may share it.

    With a registry, `start` has to have succeeded before the first `encode`. `schemas` and
    `history` are for tests.
    """

    def __init__(
        self,
        registry: Registry | None = None,
        prefix: str = "delivery.",
        schemas: Mapping[str, Schema] | None = None,
        history: Iterable[Schema] | None = None,
    ) -> None:
        self._registry = registry
        self._prefix = prefix
        self._schemas = dict(schemas or load_schemas())
        self._heads = {name: _SINGLE + schema.fingerprint for name, schema in self._schemas.items()}
        if registry is not None:
            self._heads.clear()
        self._ways: dict[bytes, _Way] = {}
        for older in load_history() if history is None else history:
            if older.name in self._schemas:
                self._ways[_SINGLE + older.fingerprint] = self._way(older)
        for schema in self._schemas.values():
            self._ways[_SINGLE + schema.fingerprint] = self._way(schema)

    def start(self) -> None:
        """Registers every schema, under `<topic>-value`, or `<topic>-<record>` where a topic has
        several records. Without a registry nothing has to be done.

        Raises:
            RegistryUnavailable: try again later.
            RegistryRefused: a schema does not fit what the registry holds.
        """
        if self._registry is None:
            return
        for record, schema in self._schemas.items():
            ids = [
                self._registry.register(subject, schema.text) for subject in self.subjects(record)
            ]
            head = b"\x00" + ids[0].to_bytes(4, "big")
            self._heads[record] = head
            for found in ids:
                self._ways[b"\x00" + found.to_bytes(4, "big")] = self._way(schema)

    def subjects(self, record: str) -> list[str]:
        """What the registry calls a record: one name per topic in which it stands."""
        return [
            f"{self._prefix}{topic.name}-"
            + ("value" if len(topic.records) == 1 else f"{NAMESPACE}.{record}")
            for topic in CATALOGUE.records[record]
        ]

    def encode(self, record: str, value: Mapping[str, Any]) -> bytes:
        """The bytes of a record. What is left out gets its default.

        Raises:
            ValueError, TypeError: `value` does not fit the schema, which is a fault of ours.
            KeyError: there is no such record, or a registry is used and `start` was not called.
        """
        into = io.BytesIO()
        into.write(self._heads[record])
        schemaless_writer(into, self._schemas[record].parsed, value)
        return into.getvalue()

    def decode(self, raw: bytes | None) -> tuple[str, dict[str, Any]]:
        """The record's name and value, in the shape of `domain/records.py`.

        Raises:
            Undecodable: null, empty, another framing, an unknown schema, a body that is cut off,
                too long or not what its schema says. Codes: null_value, empty_value,
                unknown_framing, unknown_schema, no_registry, unknown_record, invalid_body.
            RegistryUnavailable: the schema's id is new and the registry does not answer.
        """
        if not raw:
            if raw is None:
                raise Undecodable("null_value", "the record has no value")
            raise Undecodable("empty_value", "the record's value has no bytes")
        end = _FINGERPRINT_END if raw[0] == _SINGLE[0] else _ID_END
        way = self._ways.get(raw[:end]) or self._find(raw)
        body = io.BytesIO(raw)
        body.seek(end)
        try:
            value = schemaless_reader(body, way.writer, way.reader)
        except Exception as error:  # noqa: BLE001 - fastavro raises many kinds; any bytes may come
            raise Undecodable(
                "invalid_body",
                f"the body does not fit the schema of {way.name} ({type(error).__name__})",
            ) from None
        if body.tell() != len(raw):
            raise Undecodable("invalid_body", f"bytes are left over after the {way.name}")
        return way.name, value  # type: ignore[return-value]

    def decode_as(self, record: str, raw: bytes | None) -> dict[str, Any]:
        """The value of a topic that holds one record.

        Raises:
            Undecodable: as `decode`, and unknown_record for a record of another kind.
            RegistryUnavailable: as `decode`.
        """
        name, value = self.decode(raw)
        if name != record:
            raise Undecodable("unknown_record", f"the record is a {name}, not a {record}")
        return value

    def _way(self, writer: Schema) -> _Way:
        reader = self._schemas[writer.name]
        same = writer.fingerprint == reader.fingerprint
        return _Way(writer.name, writer.parsed, None if same else reader.parsed)

    def _find(self, raw: bytes) -> _Way:
        """The way of a record that has not been met yet."""
        if raw[0] == 0 and len(raw) >= _ID_END:
            return self._fetch(raw[:_ID_END])
        if raw.startswith(_SINGLE) and len(raw) >= _FINGERPRINT_END:
            shown = raw[2:_FINGERPRINT_END].hex()
            raise Undecodable("unknown_schema", f"no schema has the fingerprint {shown}")
        raise Undecodable(
            "unknown_framing", f"neither Avro framing begins with {raw[:2].hex()} or is so short"
        )

    def _fetch(self, head: bytes) -> _Way:
        schema_id = int.from_bytes(head[1:], "big")
        if self._registry is None:
            raise Undecodable(
                "no_registry", f"schema id {schema_id} needs a registry, and none is configured"
            )
        try:
            found = self._registry.schema(schema_id)
            writer = read_schema(json.dumps(found))
        except UnknownSchema as error:
            raise Undecodable("unknown_schema", str(error)) from None
        except (SchemaParseException, UnknownType, ValueError, KeyError, TypeError) as error:
            raise Undecodable(
                "unknown_schema", f"schema id {schema_id} is not valid ({type(error).__name__})"
            ) from None
        if writer.name not in self._schemas:
            raise Undecodable(
                "unknown_record", f"schema id {schema_id} is {writer.name}, no record of ours"
            )
        way = self._way(writer)
        self._ways[head] = way
        return way
