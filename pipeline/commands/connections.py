"""What the commands that look at a running pipeline are made of."""

from typing import Final

from pipeline.domain.errors import BadInput
from pipeline.runtime.clickhouse import Store
from pipeline.runtime.codec import Codec
from pipeline.runtime.kafka import Cluster
from pipeline.runtime.reader import Reader
from pipeline.runtime.registry import Registry
from pipeline.settings import Settings

UNABLE: Final = 2
"""Exit status: it could not run."""


class Unable(RuntimeError):
    """The command cannot give an answer; the text says why."""


def cluster_of(settings: Settings) -> Cluster:
    """The cluster that the settings name.

    Raises:
        BadInput: they name none.
    """
    if not settings.bootstrap:
        raise BadInput(
            "KAFKA_BOOTSTRAP_SERVERS",
            "it is not set",
            "set it to the host:port that `pipeline up` shows, or to your own brokers",
        )
    return Cluster(settings.bootstrap, settings.prefix, settings.security, settings.group_protocol)


def reader_of(settings: Settings) -> Reader:
    """A look at its topics from outside. Raises BadInput like `cluster_of`."""
    return Reader(cluster_of(settings))


def codec_of(settings: Settings) -> Codec:
    """A codec that reads; nothing is registered.

    Raises:
        BadInput: the registry's address is none.
    """
    if not settings.registry_url:
        return Codec(prefix=settings.prefix)
    password = settings.registry_password.get_secret_value()
    login = (settings.registry_user, password) if settings.registry_user else None
    return Codec(Registry(settings.registry_url, login), settings.prefix)


def store_of(settings: Settings) -> Store:
    """The database that the settings name.

    Raises:
        BadInput: they name none.
    """
    url = settings.clickhouse_url.get_secret_value()
    if not url:
        raise BadInput(
            "CLICKHOUSE_URL",
            "it is not set",
            "set it to the address that `pipeline up` shows, or to your own server",
        )
    return Store(url)
