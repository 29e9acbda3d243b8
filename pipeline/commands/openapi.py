"""`pipeline openapi`: the document of the HTTP API."""

import json

from cyclopts import App

from pipeline.domain.openapi import document

app = App(name="openapi", help="Print the OpenAPI document of the HTTP API.")


@app.default
def openapi() -> int:
    """Print the document that the gateway serves at /v1/openapi.json, which docs/openapi.json holds."""
    print(text(), end="")
    return 0


def text() -> str:
    """The document as docs/openapi.json holds it."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"
