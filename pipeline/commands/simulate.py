"""`pipeline simulate generic`: a provider that misbehaves by a script, as its own process."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from pipeline.domain.errors import BadInput
from pipeline.domain.standard_webhooks import decode_secret
from pipeline.simulators.script import Script, load
from pipeline.simulators.server import Options, run

app = App(name="simulate", help="Simulated providers over real HTTP, with scripted faults.")


@app.command
def generic(
    *,
    ledger: Path,
    secret: Annotated[str, Parameter(env_var="PIPELINE_SIMULATOR_SECRET")],
    port: int = 8090,
    host: str = "127.0.0.1",
    seed: int = 1,
    script: Path | None = None,
) -> int:
    """Serve the generic API until SIGTERM.

    Args:
        ledger: The file of everything that happens here; an existing one is continued.
        secret: What callbacks are signed with, `whsec_` and base64.
        port: Where to listen; 0 takes a free port, which is printed.
        host: The address to listen on.
        seed: Decides every behaviour, together with address and attempt.
        script: Accounts, windows and weights (YAML); without it a mix of everything.
    """
    try:
        if decode_secret(secret) is None:
            raise BadInput("secret", "not base64", "give `whsec_` and the base64 of 24 bytes")
        options = Options(
            ledger=ledger,
            secret=secret,
            seed=seed,
            host=host,
            port=port,
            script=load(script) if script else Script(),
        )
        run(options, lambda address: print(f"provider listens on {address}", flush=True))
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"port {port} on {host}: {error.strerror}; free it or give another", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    app()
