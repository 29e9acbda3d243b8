"""ClickHouse: tables by numbered files, one INSERT that is one part, positions, read-only queries.

Every setting that decides what an INSERT becomes is given, because the server's defaults differ by
version and by operator (docs/decisions/ says why each has its value).
"""

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import clickhouse_connect
import urllib3.exceptions
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, DataError

from pipeline.topology import resource

log = logging.getLogger(__name__)
logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)  # it raises what it logs

Part = tuple[str, int]
"""A topic's id and a partition."""

CONNECT_TIMEOUT_S: Final = 3
ANSWER_TIMEOUT_S: Final = 30
POSITIONS_DAYS: Final = 62
"""Rows that were appended earlier say nothing about where to go on: no topic of the sink is kept
that long, so their offsets are below its first record. It spares a scan of the whole table."""

_UNKNOWN_DATABASE: Final = 81
_INSERT_SETTINGS: Final[Mapping[str, Any]] = {
    "async_insert": 0,  # the answer means: it is stored
    "wait_end_of_query": 1,  # an error behind the first header is an error
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    # One block, so one part: all of the INSERT is there or nothing of it.
    "max_insert_block_size": 1 << 20,
    "min_insert_block_size_rows": 1 << 20,
    "min_insert_block_size_bytes": 1 << 30,
    "max_insert_threads": 1,
    "max_threads": 1,
    "max_partitions_per_insert_block": 1,
    # The rates are of one mind with the rows, or the INSERT has failed (`complete_rates`).
    "materialized_views_ignore_errors": 0,
    "parallel_view_processing": 0,
}
_NEWER_SETTINGS: Final[Mapping[str, Any]] = {"deduplicate_insert": "enable"}
"""Sent to servers that know them; they would overrule the older ones otherwise."""

_RATES: Final = (
    "tenant, message_id, kind, origin, channel, provider, country, priority, status, accepted_at,"
    " latency_ms, source_topic, source_partition, source_offset"
)
"""The columns of `rates_feed`."""

_FILE: Final = re.compile(r"([0-9]{3})_[a-z_]+\.sql")
_MIGRATIONS: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations
(
    version UInt32,
    name String,
    checksum String,
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = ReplacingMergeTree ORDER BY version
"""


class Unavailable(RuntimeError):
    """ClickHouse did not do it; whether it did anything is not known. Try again later."""


class Refused(RuntimeError):
    """ClickHouse answered that it will not; the text is its own."""


class WrongTables(RuntimeError):
    """The database holds tables that this version cannot use; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file of `deploy/clickhouse/`."""

    version: int
    name: str
    statements: tuple[str, ...]
    checksum: str


def read_migrations(folder: Path) -> list[Migration]:
    """The numbered files of `folder`, in order.

    Raises:
        WrongTables: a number is missing, or given twice.
    """
    found = []
    for path in sorted(folder.glob("*.sql")):
        name = _FILE.fullmatch(path.name)
        if name is None:
            raise WrongTables(f"{path.name} is not named like 001_events.sql; rename it")
        text = path.read_text(encoding="utf-8")
        plain = re.sub(r"^--.*\n", "", text, flags=re.MULTILINE)
        statements = tuple(part.strip() for part in plain.split(";\n") if part.strip())
        checksum = hashlib.sha256(text.encode()).hexdigest()
        found.append(Migration(int(name[1]), path.name, statements, checksum))
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise WrongTables(f"the files of {folder} are not numbered from 001 without a gap")
    return found


def token_of(parts: Mapping[Part, tuple[int, int]], names: Sequence[str], salt: int = 0) -> str:
    """The deduplication token of an INSERT: of its offset ranges (first and last of each
    partition) and of the name of every row.

    Two INSERTs with one token hold the same rows, so what the server drops for it is there
    already. `salt` makes another token for the same rows.
    """
    ranges = "\n".join(f"{t}:{p}:{parts[t, p][0]}-{parts[t, p][1]}" for t, p in sorted(parts))
    digest = hashlib.blake2b(digest_size=16)
    for text in (str(salt), ranges, *names):
        digest.update(text.encode())
        digest.update(b"\x1f")
    return digest.hexdigest()


class Store:
    """The pipeline's tables in the database that `url` names; one thread at a time.

    `url` is a DSN as clickhouse-connect takes it: http(s)://user:password@host:port/database. It
    connects when first used. `columns` are the names and types of an inserted row; `answer_s` is
    how long one answer may take.
    """

    def __init__(
        self,
        url: str,
        columns: Mapping[str, str] | None = None,
        *,
        answer_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        self._url = url
        self._answer_s = answer_s
        self._names = list(columns or {})
        self._types = list((columns or {}).values())
        self._open: Any = None

    def close(self) -> None:
        """Ends the connection; the next use makes a new one."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _connect(self, **options: Any) -> Any:
        return clickhouse_connect.get_client(
            dsn=self._url,
            connect_timeout=CONNECT_TIMEOUT_S,
            send_receive_timeout=self._answer_s,
            autogenerate_session_id=False,
            query_retries=0,
            client_name="delivery-pipeline",
            dedicated_pool=True,
            **options,
        )

    def _client(self) -> Any:
        if self._open is None:
            with _translated():
                self._open = self._connect()
        return self._open

    def create_database(self) -> None:
        """Makes the database that the address names, when there is none.

        Raises:
            Unavailable
        """
        with _translated():
            try:
                self._open = self._open or self._connect()
            except DatabaseError as error:
                if error.code != _UNKNOWN_DATABASE:
                    raise
                name = self._url.rpartition("/")[2].partition("?")[0]
                client = self._connect(database="default")
                client.command(f"CREATE DATABASE IF NOT EXISTS {_quoted(name)}")
                client.close()

    def migrate(self, folder: Path | None = None) -> list[str]:
        """Brings the tables to this version and returns the files that were applied. Any number of
        programs may do it at once: each statement says IF NOT EXISTS.

        Raises:
            Unavailable: try again later.
            WrongTables: an applied file has changed since, or the database is of a newer version.
        """
        known = read_migrations(folder or resource("deploy") / "clickhouse")
        self.create_database()
        self.command(_MIGRATIONS)
        rows = self.query("SELECT version, name, checksum FROM schema_migrations FINAL")
        applied = {int(version): (name, checksum) for version, name, checksum in rows}
        if any(version > len(known) for version in applied):
            newest = applied[max(applied)][0]
            raise WrongTables(f"the tables are newer than this program ({newest}); update it")
        done = []
        for migration in known:
            name, checksum = applied.get(migration.version, (migration.name, migration.checksum))
            if checksum != migration.checksum:
                raise WrongTables(
                    f"{name} was changed after it had been applied; put the change in a new file"
                )
            if migration.version in applied:
                continue
            for statement in migration.statements:
                self.command(statement)
            self.command(
                "INSERT INTO schema_migrations (version, name, checksum)"
                " SELECT {version:UInt32}, {name:String}, {checksum:String}",
                {
                    "version": migration.version,
                    "name": migration.name,
                    "checksum": migration.checksum,
                },
            )
            done.append(migration.name)
        return done

    def positions(self, topic_ids: Sequence[str]) -> dict[Part, int]:
        """The offset behind the last row of each partition that has rows.

        Raises:
            Unavailable
        """
        rows = self.query(
            "SELECT _topic_id, _partition, max(_offset) FROM events"
            " WHERE _topic_id IN {ids:Array(String)}"
            " AND _appended_at >= now64(3, 'UTC') - toIntervalDay({days:UInt32})"
            " GROUP BY _topic_id, _partition",
            {"ids": sorted(set(topic_ids)), "days": POSITIONS_DAYS},
        )
        return {(topic_id, part): last + 1 for topic_id, part, last in rows}

    def complete_rates(self, topic_ids: Sequence[str]) -> None:
        """Feeds the rates with the newest INSERT of each partition once more. Rows and rates are
        not one write: what broke the INSERT off may have left rows that no rate knows. Rates are
        sets of ids, so whatever they know already changes nothing.

        Raises:
            Unavailable
        """
        where = (
            "_topic_id IN {ids:Array(String)}"
            " AND _appended_at >= now64(3, 'UTC') - toIntervalDay({days:UInt32})"
        )
        self.command(
            f"INSERT INTO rates_feed ({_RATES}) SELECT {_RATES} FROM events WHERE {where}"  # noqa: S608 - constants
            " AND (_topic_id, _partition, _inserted_at) IN"
            f" (SELECT _topic_id, _partition, max(_inserted_at) FROM events WHERE {where}"
            " GROUP BY _topic_id, _partition)",
            {"ids": sorted(set(topic_ids)), "days": POSITIONS_DAYS},
        )

    def insert(self, table: str, rows: Sequence[Sequence[Any]], token: str) -> None:
        """One INSERT: after it returned, every row is there.

        Raises:
            Unavailable: whether the rows are there is not known.
        """
        client = self._client()
        settings = {**_INSERT_SETTINGS, "insert_deduplication_token": token}
        settings |= {k: v for k, v in _NEWER_SETTINGS.items() if k in client.server_settings}
        with _translated():
            context = client.create_insert_context(
                table,
                column_names=self._names,
                column_type_names=self._types,
                column_oriented=True,
                data=list(zip(*rows, strict=True)),
                settings=settings,
            )
            context.block_row_count = len(rows)  # the library would cut it by bytes
            written = client.insert(context=context).written_rows
        if 0 < written < len(rows):
            raise Unavailable(f"only {written} of {len(rows)} rows were taken")

    def command(self, sql: str, values: Mapping[str, Any] | None = None) -> None:
        """A statement without an answer.

        Raises:
            Unavailable
        """
        client = self._client()
        with _translated():
            client.command(sql, parameters=dict(values or {}))

    def query(self, sql: str, values: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a question of ours.

        Raises:
            Unavailable
        """
        client = self._client()
        with _translated():
            return list(client.query(sql, parameters=dict(values or {})).result_rows)

    def read(self, sql: str, form: str) -> bytes:
        """The answer to somebody else's SELECT in one of ClickHouse's formats; nothing that
        writes is let through.

        Raises:
            Unavailable: there is no answer.
            Refused: the text is ClickHouse's.
        """
        client = self._client()
        with _translated(code_is_refusal=True):
            answer: bytes = client.raw_query(sql, fmt=form, settings={"readonly": 1})
            return answer


@contextmanager
def _translated(*, code_is_refusal: bool = False) -> Iterator[None]:
    """Turns every way of not getting an answer into one error, without the address, which may hold
    a password. With `code_is_refusal`, a server that answered with an error code has refused."""
    try:
        yield
    except DataError as error:
        raise Refused(f"a row does not fit its columns: {error}") from error
    except ClickHouseError as error:
        if getattr(error, "code", None) is None:
            raise Unavailable(f"no answer ({type(error).__name__})") from error
        if code_is_refusal:
            raise Refused(_own_words(error)) from error
        raise Unavailable(_own_words(error)) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Unavailable(f"no answer ({type(error).__name__})") from error


def _own_words(error: Exception) -> str:
    """What the server said, without what the client library puts around it."""
    found = re.search(
        r"DB::Exception: (.*?)\s*(?:\(version [^)]*\)\s*)?(?:\(for url|$)", str(error), re.DOTALL
    )
    return (found[1] if found else str(error).partition("\n")[0])[:500]


def _quoted(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
