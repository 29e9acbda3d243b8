"""The catalogue and its schemas as an AsyncAPI 3.0 document, for tools and for people of other
teams."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from pipeline.domain.records import RECORD_VERSION
from pipeline.runtime.codec import file_name
from pipeline.topology import STAGES, Catalogue, Topic

AVRO: Final = "application/vnd.apache.avro+json;version=1.9.0"
BINDING: Final = "0.5.0"
_NUMBERS: Final = ("retention.ms", "delete.retention.ms", "max.message.bytes")


def document(catalogue: Catalogue, prefix: str, schemas: Path) -> dict[str, Any]:
    """The document: the pipeline is the application, so it *receives* what clients send.

    A channel stands for the topics of one template (its parameters are lanes and channels), an
    operation for what one stage does with it. `schemas` is the folder of the Avro files.
    """
    templates: dict[str, Topic] = {topic.template: topic for topic in catalogue}
    records = {name for topic in catalogue for name in topic.records.values()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Delivery pipeline",
            "version": f"{RECORD_VERSION}.0.0",
            "description": "Messages to people over several channels: requests in, events and one"
            " outcome a message out. Made from topics.yaml and schemas/ by"
            " `pipeline topics asyncapi`. Records are Avro: with a schema registry in its wire"
            " format, without one in single-object encoding. Requests may be plain JSON.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "avro/binary",
        "channels": {
            channel_id(topic): _channel(topic, catalogue, prefix) for topic in templates.values()
        },
        "operations": _operations(catalogue, templates, prefix),
        "components": {
            "schemas": {name: _schema(schemas / file_name(name)) for name in sorted(records)}
        },
    }


def to_yaml(found: Mapping[str, Any]) -> str:
    """The document as the file that is kept in docs/."""
    head = "# Made by `pipeline topics asyncapi`; change topics.yaml or schemas/, not this file.\n"
    return head + yaml.safe_dump(dict(found), sort_keys=False, allow_unicode=True, width=100)


def channel_id(topic: Topic) -> str:
    """`send.{channel}.{lane}` is the channel `send.channel.lane`: ids hold no braces."""
    return topic.template.replace("{", "").replace("}", "")


def _channel(topic: Topic, catalogue: Catalogue, prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "address": prefix + topic.template,
        "description": f"{topic.purpose} Written by {', '.join(topic.writers)}; read by"
        f" {', '.join(topic.readers)}."
        + (" Texts and addresses may stand here." if topic.content else ""),
        "messages": {name: _message(topic, name) for name in sorted(set(topic.records.values()))},
    }
    parameters: dict[str, Any] = {}
    if topic.channel is not None:
        parameters["channel"] = {
            "description": "How a person is reached.", "enum": list(catalogue.channels)
        }  # fmt: skip
    if topic.lane is not None:
        parameters["lane"] = {"description": "The priority.", "enum": list(catalogue.lanes)}
    if parameters:
        found["parameters"] = parameters
    found["bindings"] = {
        "kafka": {
            "partitions": topic.partitions,
            "replicas": catalogue.replication,
            "topicConfiguration": _configuration(topic.config),
            "bindingVersion": BINDING,
        }
    }
    return found


def _configuration(config: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in config.items():
        if name == "cleanup.policy":
            found[name] = value.split(",")
        else:
            found[name] = int(value) if name in _NUMBERS else value
    return found


def _message(topic: Topic, record: str) -> dict[str, Any]:
    letters = [start for start, name in topic.records.items() if name == record and start]
    key = f"{topic.key}; begins with {letters[0]}:" if letters else topic.key
    return {
        "name": record,
        "contentType": "avro/binary",
        "payload": {"$ref": f"#/components/schemas/{record}"},
        "bindings": {
            "kafka": {"key": {"type": "string", "description": key}, "bindingVersion": BINDING}
        },
    }


def _operations(
    catalogue: Catalogue, templates: Mapping[str, Topic], prefix: str
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for stage in STAGES:
        groups = {
            topic.template: group
            for group, topics in catalogue.groups(stage).items()
            for topic in topics
        }
        for template, topic in templates.items():
            place = {"$ref": f"#/channels/{channel_id(topic)}"}
            if stage in topic.readers:
                one: dict[str, Any] = {"action": "receive", "channel": place}
                if template in groups:
                    group = {"type": "string", "enum": [prefix + groups[template]]}
                    one["bindings"] = {"kafka": {"groupId": group, "bindingVersion": BINDING}}
                found[f"{stage}.receives.{channel_id(topic)}"] = one
            if stage in topic.writers:
                found[f"{stage}.sends.{channel_id(topic)}"] = {"action": "send", "channel": place}
    return found


def _schema(path: Path) -> dict[str, Any]:
    return {"schemaFormat": AVRO, "schema": json.loads(path.read_text(encoding="utf-8"))}
