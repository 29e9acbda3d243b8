"""The simulated provider over real HTTP: what a caller sees, what comes back, what is written."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from standardwebhooks import Webhook

from pipeline.domain.errors import ErrorClass, Result
from pipeline.domain.ports import Account, HttpReply
from pipeline.providers import PROVIDERS
from pipeline.simulators.behaviour import Answer, Behaviour, behaviour
from pipeline.simulators.ledger import Ledger, address_id
from pipeline.simulators.script import AccountScript, Kind, Script, only, windows
from tests.unit.simulators.benches import SECRET, Bench, benched


@pytest.fixture
def ledger_path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


FAST = {"receipt_s": (0.01, 0.05), "windows_s": windows(sms=2, whatsapp=2)}


def address_where(wanted: Callable[[Behaviour], bool], script: Script) -> str:
    for number in range(10_000):
        address = f"+4915123{number:06d}"
        if wanted(behaviour(1, "a", "sms", "DE", address, 1, script)):
            return address
    raise AssertionError("no address behaves so")


async def outcome(
    bench: Bench, address: str = "+4915123000001"
) -> tuple[Result, ErrorClass | None]:
    """What the generic adapter makes of one request; no answer at all is unknown."""
    account = Account(name="a", adapter="generic", channel="sms", base_url="")
    try:
        async with bench.post(address) as response:
            body = await response.content.read(1 << 20)
            headers = {name.lower(): value for name, value in response.headers.items()}
            reply = HttpReply(response.status, headers, body, not response.content.at_eof())
    except (aiohttp.ClientError, TimeoutError):
        return Result.UNKNOWN, None
    read = PROVIDERS["generic"].read_reply(account, reply)
    return read.result, read.error_class


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.NO_ANSWER])
def test_the_adapter_sees_what_the_behaviour_means(kind: Kind, ledger_path: Path) -> None:
    async def main() -> None:
        script = only(kind, early_answer_s=0.01, **FAST)
        channel_late = address_where(lambda does: does.kind is kind, script)
        async with benched(ledger_path, script) as bench:
            result, error_class = await outcome(bench, channel_late)
            bench.simulator._ledger.flush()
            [request] = bench.ledger().requests
        assert request.behaviour == kind
        if request.answer == "accepted":
            assert result is Result.ACCEPTED
        elif request.answer == "refused":
            assert result is Result.REFUSED
        else:
            assert result is Result.UNKNOWN
        expected = {Kind.BUSY: ErrorClass.TRANSIENT, Kind.THROTTLED: ErrorClass.THROTTLE}
        if kind in expected:
            assert error_class is expected[kind]

    asyncio.run(main())


@pytest.mark.parametrize("answer", [Answer.HTML, Answer.EMPTY, Answer.HUGE, Answer.HALF])
def test_a_weird_answer_is_what_it_says(answer: Answer, ledger_path: Path) -> None:
    async def main() -> None:
        script = only(Kind.WEIRD, **FAST)
        address = address_where(lambda does: does.answer is answer, script)
        async with benched(ledger_path, script) as bench, bench.post(address) as response:
            body = await response.read()
        assert response.status == 200
        if answer is Answer.HTML:
            assert body.startswith(b"<!doctype")
        elif answer is Answer.EMPTY:
            assert body == b""
        elif answer is Answer.HUGE:
            assert len(body) > 10_000_000
        else:
            with pytest.raises(ValueError, match="Unterminated"):
                json.loads(body)

    asyncio.run(main())


def test_a_reset_is_a_reset_and_its_message_may_still_arrive(ledger_path: Path) -> None:
    async def main() -> None:
        script = only(Kind.RESET_AFTER, **FAST)
        address = address_where(lambda does: does.handed_over and bool(does.receipts), script)
        async with benched(ledger_path, script) as bench:
            with pytest.raises(aiohttp.ClientOSError) as raised:
                async with bench.post(address):
                    pass
            assert isinstance(raised.value.__cause__ or raised.value, ConnectionResetError)
            await bench.until(lambda: bool(bench.callbacks))
        assert len(bench.ledger().handovers) == 1

    asyncio.run(main())


def test_no_answer_never_comes_and_hanging_up_ends_it(ledger_path: Path) -> None:
    async def main() -> None:
        async with benched(ledger_path, only(Kind.NO_ANSWER, **FAST)) as bench:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(bench.post(), 0.3)
            assert len(bench.simulator._provider._keys) == 1
        assert [item.handed_over for item in bench.simulator._provider._keys.values()] == [True]

    asyncio.run(main())
    ledger = Ledger.load(ledger_path)
    (asked,) = ledger.requests
    ((given_up,),) = ledger.hung_up.values()
    assert asked.at + 200 <= given_up <= asked.at + 5_000


def test_a_throttled_caller_is_told_how_long(ledger_path: Path) -> None:
    async def main() -> None:
        script = only(Kind.THROTTLED, retry_after_s=3, **FAST)
        async with benched(ledger_path, script) as bench, bench.post() as response:
            assert response.status == 429
            assert response.headers["Retry-After"] == "3"
            assert (await response.json())["error"]["code"] == "too_fast"

    asyncio.run(main())


def test_callbacks_are_signed_and_sent_again_until_they_are_taken(ledger_path: Path) -> None:
    async def main() -> None:
        async with benched(ledger_path, only(Kind.DELIVERS, **FAST)) as bench:
            bench.answers = [503, 500]
            async with bench.post() as response:
                taken = (await response.json())["id"]
            await bench.quiet()
        [(headers, body)] = bench.callbacks
        event = Webhook(SECRET).verify(body, headers)
        assert event["type"] == "delivered"
        assert event["message_id"] == taken
        assert event["reference"] == "r-1"
        assert event["country"] == "DE"
        ledger = bench.ledger()
        [receipt] = ledger.receipts
        assert receipt.tries == 3
        assert receipt.status == 204
        assert receipt.acknowledged_at is not None
        assert receipt.acknowledged_at >= receipt.at + 200
        assert ledger.deliveries() == {taken: receipt.acknowledged_at}
        assert ledger.outstanding() == 0

    asyncio.run(main())


def test_an_early_receipt_is_there_before_the_answer(ledger_path: Path) -> None:
    async def main() -> None:
        script = only(Kind.EARLY_RECEIPT, **FAST)
        async with benched(ledger_path, script) as bench, bench.post() as response:
            assert response.status == 202
            assert len(bench.callbacks) == 1

    asyncio.run(main())


def test_a_repeated_key_gets_the_same_answer_and_one_handover(ledger_path: Path) -> None:
    async def main() -> None:
        async with benched(ledger_path, only(Kind.SILENT, **FAST)) as bench:
            answers = []
            for key in ("k-1", "k-1", "k-2"):
                async with bench.post(key=key) as response:
                    answers.append((await response.json())["id"])
        assert answers[0] == answers[1] != answers[2]
        ledger = bench.ledger()
        assert [(item.attempt, item.repeat) for item in ledger.requests] == [(1, 0), (1, 1), (2, 0)]
        assert [item.key for item in ledger.handovers] == ["k-1", "k-2"]
        assert ledger.repeated_keys() == 1
        assert [name for name, _ in ledger.double_sends()] == ["r-1"]

    asyncio.run(main())


def test_an_account_without_keys_hands_over_every_time(ledger_path: Path) -> None:
    async def main() -> None:
        script = only(Kind.SILENT, accounts={"a": AccountScript(honours_keys=False)}, **FAST)
        async with benched(ledger_path, script) as bench:
            for _ in range(2):
                async with bench.post() as response:
                    await response.read()
        ledger = bench.ledger()
        assert [item.attempt for item in ledger.requests] == [1, 2]
        assert [item.honoured for item in ledger.handovers] == [False, False]
        assert len({item.id for item in ledger.handovers}) == 2

    asyncio.run(main())


@pytest.mark.parametrize("settles", [True, False])
@pytest.mark.parametrize("taken", [True, False])
def test_a_repeat_settles_what_was_in_doubt_or_never_does(
    settles: bool, taken: bool, ledger_path: Path
) -> None:
    async def main() -> None:
        script = only(Kind.ERROR, **FAST)
        address = address_where(
            lambda does: does.settles is settles and does.handed_over is taken, script
        )
        async with benched(ledger_path, script) as bench:
            statuses = []
            for _ in range(3):
                async with bench.post(address) as response:
                    statuses.append(response.status)
        assert statuses == ([500, 202, 202] if settles else [500, 500, 500])
        assert len(bench.ledger().handovers) == (1 if settles or taken else 0)

    asyncio.run(main())


def test_an_account_may_name_only_its_own_id_and_send_batches(ledger_path: Path) -> None:
    async def main() -> None:
        rules = AccountScript(echoes_reference=False, callback_batch=10)
        script = only(Kind.DELIVERS, other_accounts=rules, **FAST)
        async with benched(ledger_path, script) as bench:
            for number in range(10):
                async with bench.post(key=f"k-{number}", reference=f"r-{number}") as response:
                    await response.read()
            await bench.quiet()
        assert len(bench.callbacks) < 10
        events = bench.events()
        assert [event["reference"] for event in events] == [None] * 10
        assert {item.id for item in bench.ledger().handovers} == {e["message_id"] for e in events}

    asyncio.run(main())


def test_mistakes_of_the_caller_are_told_and_change_nothing(ledger_path: Path) -> None:
    async def main() -> None:
        script = only(Kind.DELIVERS, accounts={"locked": AccountScript(credential="right")}, **FAST)
        async with benched(ledger_path, script) as bench:
            base = f"http://127.0.0.1:{bench.simulator.port}"
            async with bench.post(account="locked") as response:
                assert response.status == 401
            async with bench.post(account="locked", Authorization="Bearer right") as response:
                assert response.status == 202
            for body in (b"", b"[]", b'{"to": 7, "reference": "r", "callback_url": "u"}'):
                async with bench.caller.post(f"{base}/a/v1/sms/messages", data=body) as response:
                    assert response.status == 400
            async with bench.caller.post(f"{base}/elsewhere", data=b"") as response:
                assert response.status == 404
            async with bench.caller.get(f"{base}/a/v1/sms/messages") as response:
                assert response.status == 405
            async with bench.caller.get(f"{base}/stats") as response:
                assert (await response.json())["requests"] == 5
        assert len(bench.ledger().requests) == 1

    asyncio.run(main())


def test_the_ledger_names_no_address(ledger_path: Path) -> None:
    async def main() -> None:
        async with benched(ledger_path, only(Kind.DELIVERS, **FAST)) as bench:
            async with bench.post("+4915123000001") as response:
                await response.read()
            await bench.quiet()
        assert list(bench.ledger().requests_by_address()) == [address_id("+4915123000001")]

    asyncio.run(main())
    assert b"4915123000001" not in ledger_path.read_bytes()


def test_a_restart_remembers_keys_attempts_and_what_it_owes(ledger_path: Path) -> None:
    slow = only(Kind.DELIVERS, receipt_s=(0.4, 0.5), windows_s=windows(sms=2))

    async def first() -> str:
        async with benched(ledger_path, slow) as bench:
            async with bench.post() as response:
                taken = (await response.json())["id"]
            bench.url = "http://127.0.0.1:9/nowhere"
        assert bench.callbacks == []
        return str(taken)

    async def second(taken: str, url: str) -> None:
        async with benched(ledger_path, slow) as bench:
            assert bench.simulator.stats()["pending_receipts"] == 1
            bench.url = url or bench.url
            async with bench.post() as response:
                assert (await response.json())["id"] == taken
            async with bench.post(key="k-2") as response:
                assert (await response.json())["id"] != taken
        ledger = bench.ledger()
        assert ledger.starts == 2
        assert [(item.attempt, item.repeat) for item in ledger.requests] == [(1, 0), (1, 1), (2, 0)]
        assert len(ledger.handovers) == 2

    taken = asyncio.run(first())
    with ledger_path.open("ab") as file:
        file.write(b'{"what":"request","at":17')  # what a kill -9 leaves
    asyncio.run(second(taken, ""))


def test_owed_receipts_go_to_the_address_that_was_asked_for(ledger_path: Path) -> None:
    async def main() -> None:
        slow = only(Kind.DELIVERS, receipt_s=(0.3, 0.4), windows_s=windows(sms=2))
        async with benched(ledger_path, slow) as bench:
            async with bench.post() as response:
                await response.read()
            await bench.simulator.close()
            assert bench.callbacks == []
            again = type(bench.simulator)(bench.simulator._options)
            await again.start()
            bench.simulator = again
            await bench.quiet()
            assert [event["type"] for event in bench.events()] == ["delivered"]
        assert bench.ledger().outstanding() == 0

    asyncio.run(main())


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipeline.commands.simulate", "generic", *arguments]


def test_the_process_serves_until_sigterm_and_leaves_a_whole_ledger(ledger_path: Path) -> None:
    process = subprocess.Popen(
        command("--port", "0", "--ledger", str(ledger_path), "--secret", SECRET),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "http://127.0.0.1:" in line

        async def ask() -> None:
            stats = f"{line.split()[-1]}/stats"
            async with aiohttp.request("GET", stats) as response:
                assert (await response.json())["pending_receipts"] == 0

        asyncio.run(ask())
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()
    assert Ledger.load(ledger_path).starts == 1


def test_a_taken_port_and_a_wrong_secret_say_so(ledger_path: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            command("--port", str(port), "--ledger", str(ledger_path), "--secret", SECRET),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 2
    assert f"port {port}" in done.stderr
    script = tmp_path / "script.yaml"
    script.write_text("windows_s: {sms: 1}\n")
    done = subprocess.run(
        command("--ledger", str(ledger_path), "--secret", SECRET, "--script", str(script)),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "windows_s.sms" in done.stderr
