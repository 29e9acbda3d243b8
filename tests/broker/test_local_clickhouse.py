"""The embedded ClickHouse behaves to its clients as a server does."""

import datetime as dt
import gc
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from pipeline.local.clickhouse import EmbeddedClickHouse, StartError
from tests.waiting import alive, until

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678_000)
PARENT = """
import sys
from pathlib import Path
from pipeline.local.clickhouse import EmbeddedClickHouse
server = EmbeddedClickHouse(Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    with EmbeddedClickHouse(tmp_path_factory.mktemp("clickhouse")) as made:
        yield made


@pytest.fixture
def client(server: EmbeddedClickHouse) -> Iterator[Client]:
    made = clickhouse_connect.get_client(dsn=server.url)
    database = f"t{uuid.uuid4().hex[:8]}"
    made.command(f"CREATE DATABASE {database}")
    made.database = database
    yield made
    made.database = "default"
    made.command(f"DROP DATABASE {database}")
    made.close()


def _table(client: Client) -> str:
    client.command(
        "CREATE TABLE events (id UInt64, text String, labels Map(String, String),"
        " at DateTime64(3, 'UTC'), cost Decimal(18, 6), who LowCardinality(String),"
        " tries Nested(code String, ms UInt32)) ENGINE = ReplacingMergeTree ORDER BY id"
        " SETTINGS non_replicated_deduplication_window = 100"
    )
    return "events"


COLUMNS = ["id", "text", "labels", "at", "cost", "who", "tries.code", "tries.ms"]


def _rows(count: int) -> list[list[object]]:
    return [
        [n, f"text {n} \t'\\", {"a": "ü"}, NOW, "0.032", "x", ["c", "d"], [1, 2]]
        for n in range(count)
    ]


def test_rows_come_back_as_they_went(client: Client) -> None:
    table = _table(client)
    done = client.insert(table, _rows(3), column_names=COLUMNS)
    assert done.written_rows == 3
    found = client.query(f"SELECT * FROM {table} ORDER BY id").result_rows
    assert len(found) == 3
    assert found[1][:3] == (1, "text 1 \t'\\", {"a": "ü"})
    assert found[1][3].replace(tzinfo=None) == NOW
    assert [str(found[1][4]), found[1][6], found[1][7]] == ["0.032000", ["c", "d"], [1, 2]]


def test_one_insert_is_one_part_and_a_token_counts_once(client: Client) -> None:
    table = _table(client)
    for token in ("a", "a", "b"):
        client.insert(
            table,
            _rows(60_000),
            column_names=COLUMNS,
            settings={"insert_deduplication_token": token, "async_insert": 0},
        )
    counted = client.query(f"SELECT count(), uniqExact(_part) FROM {table}").result_rows
    assert counted == [(120_000, 2)]
    assert client.query(f"SELECT count() FROM {table} FINAL").result_rows == [(60_000,)]


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELEC 1", 62),
        ("SELECT * FROM nowhere", 60),
        ("SELECT throwIf(number = 3) FROM numbers(10)", 395),
        ("SELECT nosuch()", 46),
    ],
)
def test_errors_carry_clickhouses_codes(client: Client, sql: str, code: int) -> None:
    with pytest.raises(DatabaseError) as caught:
        client.query(sql)
    assert caught.value.code == code


def test_a_setting_lasts_for_one_request(client: Client) -> None:
    asked = "SELECT getSetting('max_result_rows')"
    assert client.query(asked, settings={"max_result_rows": 77}).result_rows == [(77,)]
    assert client.query(asked).result_rows != [(77,)]
    with pytest.raises(DatabaseError) as caught:
        client.query("SELECT 1", settings={"no_such_setting": 1})
    assert caught.value.code == 115
    with pytest.raises(DatabaseError) as caught:
        client.command("CREATE TABLE t (a UInt8) ENGINE = Memory", settings={"readonly": 1})
    assert caught.value.code == 164


@pytest.mark.parametrize("compression", ["lz4", "zstd", "gzip", False])
def test_every_compression_is_read_to_its_end(
    server: EmbeddedClickHouse, client: Client, compression: str | bool
) -> None:
    """Clients write a frame per block; reading only the first would lose rows in silence."""
    table = _table(client)
    own = clickhouse_connect.get_client(
        dsn=server.url, database=client.database, compress=compression
    )
    own.insert(table, _rows(40_000), column_names=COLUMNS)
    assert own.query(f"SELECT uniqExact(id) FROM {table}").result_rows == [(40_000,)]
    own.close()


def test_parameters_are_bound_by_the_engine(client: Client) -> None:
    found = client.query("SELECT {a:String}, {b:UInt8}", parameters={"a": "x'; DROP", "b": 7})
    assert found.result_rows == [("x'; DROP", 7)]


def test_requests_run_side_by_side(client: Client, server: EmbeddedClickHouse) -> None:
    table = _table(client)
    database = client.database

    def insert(number: int) -> int:
        own = clickhouse_connect.get_client(dsn=server.url, database=database)
        rows = [[number * 1000 + n, *row[1:]] for n, row in enumerate(_rows(1000))]
        own.insert(table, rows, column_names=COLUMNS)
        count = own.query(f"SELECT count() FROM {table}").result_rows[0][0]
        own.close()
        return int(count)

    with ThreadPoolExecutor(4) as pool:
        assert all(count >= 1000 for count in pool.map(insert, range(8)))
    assert client.query(f"SELECT uniqExact(id) FROM {table}").result_rows == [(8000,)]


def _curl(server: EmbeddedClickHouse, path: str, body: bytes | None = None, **headers: str) -> str:
    request = urllib.request.Request(f"{server.url}{path}", data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as reply:
        return str(reply.read().decode())


def test_plain_http_is_enough(server: EmbeddedClickHouse) -> None:
    assert _curl(server, "/ping") == "Ok.\n"
    assert _curl(server, "/?query=SELECT%201%2B1") == "2\n"
    assert _curl(server, "/", b"SELECT 1 AS x FORMAT JSONEachRow") == '{"x":1}\n'
    _curl(server, "/", b"CREATE TABLE plain (a UInt8, b String) ENGINE = Memory")
    _curl(server, "/?query=INSERT%20INTO%20plain%20FORMAT%20CSV", b"1,one\n2,two\n")
    _curl(server, "/", b"INSERT INTO plain VALUES (3, 'three')")
    _curl(server, "/", b'INSERT INTO plain FORMAT JSONEachRow\n{"a": 4, "b": "four"}\n')
    assert _curl(server, "/?query=SELECT%20sum(a)%20FROM%20plain") == "10\n"
    _curl(server, "/", b"DROP TABLE plain")


def test_a_get_cannot_change_anything(server: EmbeddedClickHouse) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        _curl(server, "/?query=CREATE%20TABLE%20t%20(a%20UInt8)%20ENGINE%20%3D%20Memory")
    assert caught.value.headers["X-ClickHouse-Exception-Code"] == "164"


def test_a_web_page_is_refused(server: EmbeddedClickHouse) -> None:
    for header in ({"Origin": "http://example.org"}, {"Host": "example.org"}):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            _curl(server, "/", b"SELECT 1", **header)


# The client leaves its connection to the killed server to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_what_was_inserted_survives_kill_9(tmp_path: Path) -> None:
    with EmbeddedClickHouse(tmp_path) as own:
        client = clickhouse_connect.get_client(dsn=own.url)
        table = _table(client)
        client.insert(table, _rows(1000), column_names=COLUMNS)
        own.kill()
        with pytest.raises(OperationalError):
            client.query("SELECT 1")
        own.start()
        again = clickhouse_connect.get_client(dsn=own.url)
        assert again.query(f"SELECT count() FROM {table}").result_rows == [(1000,)]
        # The token's memory survives too: a repeat after a crash is still one.
        again.insert(
            table, _rows(10), column_names=COLUMNS, settings={"insert_deduplication_token": "t"}
        )
        own.kill()
        own.start()
        last = clickhouse_connect.get_client(dsn=own.url)
        last.insert(
            table, _rows(10), column_names=COLUMNS, settings={"insert_deduplication_token": "t"}
        )
        assert last.query(f"SELECT count() FROM {table}").result_rows == [(1010,)]
        for one in (client, again, last):
            one.close()
        del client, again, last, one
        gc.collect()


def test_a_second_one_on_the_same_data_is_refused(
    server: EmbeddedClickHouse,
) -> None:
    with pytest.raises(StartError, match="in use by another embedded ClickHouse"):
        EmbeddedClickHouse(server.data).start()


def test_it_stops_with_its_parent(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
        until(lambda: not alive(pid))
