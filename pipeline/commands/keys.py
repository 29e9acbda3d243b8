"""`pipeline keys new`: a key for the HTTP API, shown once."""

import json
import secrets
import sys
from typing import Annotated, Final

from cyclopts import App, Parameter

from pipeline.domain import api_keys
from pipeline.domain.reference import TENANT

app = App(name="keys", help="Make a key for the HTTP API.")

OK: Final = 0
UNABLE: Final = 2

Json = Annotated[bool, Parameter(name="--json", negative="")]


@app.command
def new(*, tenant: str, as_json: Json = False) -> int:
    """Make a key and print it, once, with the line that the configuration needs.

    Nothing is stored: the key works when the line stands under `api_keys` in the file that
    PIPELINE_CONFIG names and the gateways have been started again. A tenant may have several keys,
    so that a new one is in use before the old one is taken away.

    Exit status 2: there can be no such tenant.

    Args:
        tenant: Whose messages the key may send and see.
        as_json: For programs.
    """
    if not TENANT.fullmatch(tenant):
        print(
            "pipeline keys new: --tenant: it cannot name a tenant; use small letters, digits, dash"
            " and underscore, 24 at most",
            file=sys.stderr,
        )
        return UNABLE
    made = api_keys.make(
        secrets.token_bytes(api_keys.ID_BYTES), secrets.token_bytes(api_keys.SECRET_BYTES)
    )
    line = f"{made.key_id}: {{ tenant: {tenant}, sha256: {made.sha256} }}"
    if as_json:
        told = {
            "key": made.text,
            "key_id": made.key_id,
            "tenant": tenant,
            "sha256": made.sha256,
            "line": line,
        }
        print(json.dumps(told, indent=2))
        return OK
    print("The key, which is shown only now; send it as `Authorization: Bearer KEY`:\n")
    print(f"  {made.text}\n")
    print("Its line under `api_keys:` in the file that PIPELINE_CONFIG names:\n")
    print(f"  {line}\n")
    print("It works once the gateways have been started again.")
    return OK
