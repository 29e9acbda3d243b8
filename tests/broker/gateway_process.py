"""One gateway worker as a process of its own, for tests that kill it.

Arguments: bootstrap servers, topic prefix, port, secret. Prints `ready <port>`.
"""

import signal
import sys
import threading
from functools import partial

from pipeline.domain.ports import Account
from pipeline.providers import PROVIDERS
from pipeline.runtime.clock import BrokerClock
from pipeline.runtime.codec import Codec
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.web import WebOptions, run_gateway
from pipeline.stages.gateway import GatewayConfig, receive


def main(bootstrap: str, prefix: str, port: str, secret: str) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    account = Account("sms-one", "generic", "sms", "http://127.0.0.1:1", callback_secrets=(secret,))
    run_gateway(
        Cluster(bootstrap, prefix),
        Codec(),
        partial(receive, config=GatewayConfig({account.name: account}, PROVIDERS)),
        BrokerClock(),
        stop,
        WebOptions(port=int(port)),
        ready=lambda found: print("ready", found, flush=True),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
