"""Each stage against a bare loop: the same records in alternating rounds, on the same servers."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.figures import Figure, against
from bench.ground import Ground, Watcher, timed, wait_until
from bench.load import KNOWN_PEOPLE, Record, blast, commands, dispatched, requests
from pipeline.local.ports import free_port
from pipeline.runtime.clickhouse import Store
from pipeline.runtime.kafka import Cluster

TARGET: Final = 0.6
IN_FLIGHT: Final = 128
WARM_UP: Final = 2_000
ROUNDS: Final = 5
LANES: Final = ("accepted.urgent", "accepted.normal", "accepted.bulk")

Rounds = list[tuple[float, float]]


def policy(provider: str, window: str = "10m") -> dict[str, Any]:
    """A configuration with room: nothing in it ends before the bench does."""
    priority = {
        "window": window,
        "deadline": "1h",
        "retry": {"tries": 3, "base": "1s", "cap": "10s"},
        "command_ttl": "30m",
        "blind_hold": "5s",
    }
    return {
        "priorities": {
            "urgent": {**priority, "on_doubt": "resend"},
            "normal": {**priority, "on_doubt": "wait"},
            "bulk": {**priority, "on_doubt": "wait"},
        },
        "default_route": [{"channel": "sms"}],
        "providers": {
            "sms-a": {
                "adapter": "generic",
                "channel": "sms",
                "base_url": provider,
                "callback_secrets": ["env:PIPELINE_SIMULATOR_SECRET"],
                "honours_keys": True,
                "cost": 0.032,
                "timeout": "10s",
            }
        },
        "dispatch": {"slots": IN_FLIGHT, "provider_share": 1.0, "provider_waiting": 2_000},
    }


@dataclass(frozen=True, slots=True)
class Sides:
    """Our topics and the bare loop's."""

    ours: Cluster
    bare: Cluster


def _sides(world: Ground, stage: str) -> Sides:
    return Sides(world.topics(f"{stage}.", stage), world.topics(f"bare-{stage}.", stage))


def _alternate(
    world: Ground,
    sides: Sides,
    names: tuple[str, str],
    topic: str,
    results: Sequence[str],
    make: Callable[[int], list[Record]],
    size: int,
    rounds: int = ROUNDS,
    warm_up: int = WARM_UP,
) -> tuple[Rounds, Rounds]:
    """Rounds of records a second, and of processor microseconds a record: (ours, the bare loop's).
    `names` are the two processes."""
    pairs = [(cluster, Watcher(world, cluster, results)) for cluster in (sides.ours, sides.bare)]
    speeds: Rounds = []
    costs: Rounds = []
    try:
        for cluster, watcher in pairs:
            timed(world, cluster, topic, make(warm_up), watcher)
        for _ in range(rounds):
            pair = []
            for name, (cluster, watcher) in zip(names, pairs, strict=True):
                used = world.cpu_s(name)
                speed = timed(world, cluster, topic, make(size), watcher)
                pair.append((speed, (world.cpu_s(name) - used) / size * 1e6))
            speeds.append((pair[0][0], pair[1][0]))
            costs.append((pair[0][1], pair[1][1]))
    finally:
        for _, watcher in pairs:
            watcher.close()
    return speeds, costs


def _figures(name: str, found: tuple[Rounds, Rounds]) -> list[Figure]:
    speeds, costs = found
    return [
        against(name, speeds, "messages/s", TARGET),
        against(f"{name}: processor", costs, "us/message", None),
    ]


def accept(world: Ground, size: int = 20_000) -> list[Figure]:
    """Accept, for people seen before (whose numbers are remembered) and for new ones."""
    names = ("accept", "bare-accept")
    sides = _sides(world, "accept")
    config = world.config("accept", policy("http://127.0.0.1:1"))
    world.worker("accept", world.environment(sides.ours.prefix, config))
    world.program("bare-accept", "bench.bare_accept", world.kafka.bootstrap, sides.bare.prefix)
    try:
        known = _alternate(
            world,
            sides,
            names,
            "intake",
            LANES,
            lambda n: requests(n, new_people=False),
            size,
            warm_up=KNOWN_PEOPLE,
        )
        new = _alternate(
            world, sides, names, "intake", LANES, lambda n: requests(n, new_people=True), size
        )
    finally:
        world.end(*names)
    return _figures("accept, known people", known) + _figures("accept, new people", new)


def dispatch(world: Ground, size: int = 10_000) -> list[Figure]:
    """Dispatch against aiohttp, one provider, as many requests in flight."""
    names = ("dispatch", "bare-dispatch")
    port = free_port()
    url = f"http://127.0.0.1:{port}/sms-a"
    sides = _sides(world, "dispatch")
    config = world.config("dispatch", policy(url))
    world.program("provider", "bench.provider", str(port))
    world.worker("dispatch", world.environment(sides.ours.prefix, config))
    bare = (world.kafka.bootstrap, sides.bare.prefix, url, str(IN_FLIGHT))
    world.program("bare-dispatch", "bench.bare_dispatch", *bare)
    try:
        found = _alternate(
            world,
            sides,
            names,
            "send.sms.normal",
            ("dispatched",),
            lambda n: commands(world.codec, n),
            size,
        )
    finally:
        world.end(*names, "provider")
    return _figures("dispatch", found)


def sink(world: Ground, size: int = 100_000, rounds: int = 3) -> list[Figure]:
    """The sink; the bare loop inserts batches of the size that ours made."""
    sides = _sides(world, "sink")
    config = world.config("sink", policy("http://127.0.0.1:1"))
    world.worker("sink", world.environment(sides.ours.prefix, config))
    found: Rounds = []
    batch = 0
    try:
        _rows_a_second(world, sides.ours, dispatched(world.codec, WARM_UP), 1)
        for _ in range(rounds):
            ours, rows = _rows_a_second(world, sides.ours, dispatched(world.codec, size), 1)
            if not batch:
                batch = rows
                world.program(
                    "bare-sink", "bench.bare_sink", world.kafka.bootstrap, sides.bare.prefix,
                    world.database("bare-sink"), str(batch),
                )  # fmt: skip
            bare, _ = _rows_a_second(world, sides.bare, dispatched(world.codec, size), batch)
            found.append((ours, bare))
    finally:
        world.end("sink", "bare-sink")
    return [against(f"sink, batches of {batch}", found, "rows/s", TARGET)]


def _rows_a_second(
    world: Ground, cluster: Cluster, records: list[Record], batch: int
) -> tuple[float, int]:
    """Rows a second from one INSERT to the next, so that waiting for a batch to fill at the end
    does not count; and the rows of the usual INSERT. `batch` is what may stay uninserted."""
    store = Store(world.database(cluster.prefix.rstrip(".")))
    store.migrate()
    before = int(store.query("SELECT count() FROM events")[0][0])
    ((began,),) = store.query("SELECT now64(3, 'UTC')")
    blast(world.producer, cluster.real("dispatched"), records)

    def stored() -> bool:
        ((rows,),) = store.query("SELECT count() FROM events")
        time.sleep(0.1)
        return int(rows) > before + len(records) - batch

    wait_until(stored, f"the rows of {cluster.prefix}")
    inserts = store.query(
        "SELECT toUnixTimestamp64Milli(_inserted_at) AS at, count() FROM events"
        " WHERE _inserted_at > {began:DateTime64(3, 'UTC')} GROUP BY at ORDER BY at",
        {"began": began},
    )
    store.close()
    full = inserts[:-1] if batch == 1 and len(inserts) > 2 else inserts
    rows = sum(int(amount) for _, amount in full[1:])
    seconds = (full[-1][0] - full[0][0]) / 1000
    return (rows / seconds if seconds else 0.0), (rows // max(1, len(full) - 1))
