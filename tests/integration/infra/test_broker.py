from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from infra import topology
from infra.broker import Ack, AlreadyStored, Broker, NoSuchStream, Outgoing, connect
from infra.messages import only_after
from schemas import subjects
from schemas.config import BrokerSection, ConsumerSection
from schemas.errors import BodyTooLarge, BusUnavailable
from schemas.subjects import Lane
from tests.support.broker import TestBroker

CFG = BrokerSection(connect_timeout_s=5, publish_timeout_s=20)
_pools = itertools.count()


@asynccontextmanager
async def connected(url: str, pool: str = "", on_reconnect: Callable[[], None] | None = None) -> AsyncGenerator[Broker]:
    """A connection, with the shared streams and `pool`'s."""
    broker = await connect(CFG, name="test", url=url, on_reconnect=on_reconnect)
    try:
        await topology.provision_shared(broker, CFG)
        if pool:
            await topology.provision_pool(broker, CFG, ConsumerSection(pool=pool))
        yield broker
    finally:
        await broker.close()


@pytest.fixture
def pool() -> str:
    return f"broker-{next(_pools)}"


def ready(pool: str) -> str:
    return subjects.ready(pool, Lane.BULK, "t")


async def message_ids(broker: Broker, pool: str) -> list[str]:
    """Of everything the pool's queue holds, in order."""
    found: list[str] = []
    seq = 1
    while (message := await broker.next_after(subjects.ready_stream(pool), seq)) is not None:
        found.append(message.headers.get("Nats-Msg-Id", ""))
        seq = message.seq + 1
    return found


def test_a_publish_again_with_the_same_id_is_told_apart(nats_url: str, pool: str) -> None:
    async def story() -> tuple[Ack, Ack]:
        async with connected(nats_url, pool) as broker:
            return await broker.store(ready(pool), b"{}", msg_id="one"), await broker.store(
                ready(pool), b"{}", msg_id="one"
            )

    first, again = asyncio.run(story())

    assert first == Ack(subjects.ready_stream(pool), 1)
    assert again == Ack(subjects.ready_stream(pool), 1, duplicate=True)


def test_a_second_result_is_refused_and_the_first_stays(nats_url: str, pool: str) -> None:
    subject = subjects.result(pool, "t", "job")

    async def story() -> bytes:
        async with connected(nats_url) as broker:
            await broker.store(subject, b"first", headers=only_after(0))
            with pytest.raises(AlreadyStored):
                await broker.store(subject, b"second", headers=only_after(0))
            # Also from a writer that forgets to ask: the stream itself takes one a subject.
            with pytest.raises(AlreadyStored):
                await broker.store(subject, b"third")
            stored = await broker.last_on(subjects.RESULTS_STREAM, subject)
            assert stored is not None
            return stored.data

    assert asyncio.run(story()) == b"first"


def test_a_pool_that_does_not_exist_is_known_at_once(nats_url: str) -> None:
    async def story() -> None:
        async with connected(nats_url) as broker, asyncio.timeout(2):
            with pytest.raises(NoSuchStream, match=r"penstock\.ready\.nowhere\.bulk\.t"):
                await broker.store(ready("nowhere"), b"{}")
            answers = await broker.store_batch([Outgoing(ready("nowhere"), b"{}")] * 500)
            assert {type(answer) for answer in answers} == {NoSuchStream}
            with pytest.raises(NoSuchStream):
                await broker.message(subjects.ready_stream("nowhere"), 1)

    asyncio.run(story())


def test_a_message_over_the_limit_is_refused_with_both_numbers(nats_url: str, pool: str) -> None:
    async def story() -> None:
        async with connected(nats_url, pool) as broker:
            limit = broker.payload_bytes_max
            await broker.store(ready(pool), b"x" * limit, headers={"Penstock-Job": "j" * 96}, msg_id="m" * 96)
            with pytest.raises(BodyTooLarge, match=f"{limit + 1} bytes, the broker takes {limit}"):
                await broker.store(ready(pool), b"x" * (limit + 1))

    asyncio.run(story())


def test_an_atomic_batch_of_a_thousand_lies_in_order(nats_url: str, pool: str) -> None:
    ids = [f"m{number}" for number in range(1000)]

    async def story() -> tuple[list[int], list[str]]:
        async with connected(nats_url, pool) as broker:
            answers = await broker.store_batch([Outgoing(ready(pool), b"{}", msg_id=one) for one in ids])
            assert all(isinstance(answer, Ack) and not answer.duplicate for answer in answers)
            acks = [answer for answer in answers if isinstance(answer, Ack)]
            return [ack.seq for ack in acks], await message_ids(broker, pool)

    seqs, stored = asyncio.run(story())

    assert seqs == list(range(1, 1001))
    assert stored == ids


def test_a_batch_with_one_already_stored_stores_the_others(nats_url: str, pool: str) -> None:
    async def story() -> tuple[list[bool], list[str]]:
        async with connected(nats_url, pool) as broker:
            await broker.store(ready(pool), b"{}", msg_id="m3")
            answers = await broker.store_batch([Outgoing(ready(pool), b"{}", msg_id=f"m{n}") for n in range(6)])
            acks = [answer for answer in answers if isinstance(answer, Ack)]
            assert {ack.tries for ack in acks} == {1}, "a refused batch has stored nothing: no echo is possible"
            return [ack.duplicate for ack in acks], sorted(await message_ids(broker, pool))

    duplicates, stored = asyncio.run(story())

    assert duplicates == [False, False, False, True, False, False]
    assert stored == [f"m{n}" for n in range(6)]


def test_a_batch_waits_its_turn_where_others_have_as_many_on_their_way_as_there_may_be(
    nats_url: str, pool: str
) -> None:
    async def story() -> tuple[list[int], int]:
        async with connected(nats_url, pool) as broker:

            async def stage(number: int, sequence: int, more: dict[str, str]) -> None:
                headers = {"Nats-Batch-Id": f"other-{number}", "Nats-Batch-Sequence": str(sequence), **more}
                await broker.nc.publish(ready(pool), b"theirs", headers=headers)

            for number in range(50):
                await stage(number, 1, {})
            storing = asyncio.create_task(
                broker.store_batch([Outgoing(ready(pool), b"ours", f"id-{number}") for number in range(300)])
            )
            await asyncio.sleep(0.1)
            waited = not storing.done()
            for number in range(50):
                await stage(number, 2, {"Nats-Batch-Commit": "1"})
            acks = await storing
            assert waited
            return [ack.seq for ack in acks if isinstance(ack, Ack)], len(await message_ids(broker, pool))

    seqs, stored = asyncio.run(story())

    assert seqs == list(range(seqs[0], seqs[0] + 300))
    assert stored == 400


def test_one_bad_message_of_a_batch_fails_alone(nats_url: str, pool: str) -> None:
    async def story() -> list[type]:
        async with connected(nats_url, pool) as broker:
            large = b"x" * (broker.payload_bytes_max + 1)
            return [
                type(answer)
                for answer in await broker.store_batch(
                    [
                        Outgoing(ready(pool), b"{}", msg_id="a"),
                        Outgoing(ready(pool), large, msg_id="b"),
                        Outgoing(ready("nowhere"), b"{}", msg_id="c"),
                        Outgoing(ready(pool), b"{}", msg_id="d"),
                    ]
                )
            ]

    assert asyncio.run(story()) == [Ack, BodyTooLarge, NoSuchStream, Ack]


def test_a_message_is_read_by_place_and_by_subject_until_it_is_deleted(nats_url: str, pool: str) -> None:
    stream = subjects.ready_stream(pool)

    async def story() -> None:
        async with connected(nats_url, pool) as broker:
            assert await broker.last_on(stream, ready(pool)) is None
            ack = await broker.store(ready(pool), b"body", headers={"Penstock-Job": "j"})
            for stored in (await broker.last_on(stream, ready(pool)), await broker.message(stream, ack.seq)):
                assert stored is not None
                assert (stored.subject, stored.seq, stored.data) == (ready(pool), ack.seq, b"body")
                assert stored.headers["Penstock-Job"] == "j"
                assert stored.unix_ms > 1_700_000_000_000
            assert await broker.delete(stream, ack.seq)
            assert not await broker.delete(stream, ack.seq)
            assert await broker.message(stream, ack.seq) is None
            assert await broker.next_after(stream, 1) is None

    asyncio.run(story())


def test_kill_minus_nine_in_the_middle_of_stores_loses_none_and_doubles_none(tmp_path: Path) -> None:
    ids = [f"m{number}" for number in range(600)]

    async def story() -> tuple[set[type], list[str], int]:
        reconnects: list[int] = []
        async with (
            TestBroker(tmp_path) as server,
            connected(server.url, "p", on_reconnect=lambda: reconnects.append(1)) as broker,
        ):
            gate = asyncio.Semaphore(32)
            begun = asyncio.Semaphore(0)

            async def one(msg_id: str) -> Ack:
                async with gate:
                    begun.release()
                    return await broker.store(ready("p"), b"{}", msg_id=msg_id)

            async def batch(first: int) -> None:
                part = [Outgoing(ready("p"), b"{}", msg_id=f"b{first}-{n}") for n in range(100)]
                assert {type(answer) for answer in await broker.store_batch(part)} == {Ack}

            async def killer() -> None:
                for _ in range(3):
                    for _ in range(150):
                        await begun.acquire()
                    await server.kill()
                    await server.restart()

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(msg_id)) for msg_id in ids]
                group.create_task(killer())
                for first in range(4):
                    group.create_task(batch(first))
            return {type(task.result()) for task in tasks}, await message_ids(broker, "p"), len(reconnects)

    answers, stored, reconnects = asyncio.run(story())

    assert answers == {Ack}
    assert sorted(stored) == sorted([*ids, *(f"b{first}-{n}" for first in range(4) for n in range(100))])
    assert reconnects >= 1


def test_a_broker_that_is_going_down_is_not_taken_for_one_without_the_pool(tmp_path: Path) -> None:
    async def story() -> list[Ack]:
        async with TestBroker(tmp_path) as server, connected(server.url, "p") as broker:
            is_over = asyncio.Event()

            async def keep_storing(worker: int) -> list[Ack]:
                acks: list[Ack] = []
                while not is_over.is_set():
                    acks.append(await broker.store(ready("p"), b"{}", msg_id=f"{worker}-{len(acks)}"))
                return acks

            async with asyncio.TaskGroup() as group:
                workers = [group.create_task(keep_storing(worker)) for worker in range(8)]
                for _ in range(3):
                    await broker.store(ready("p"), b"{}")
                    # A polite end: JetStream goes first, while connections still stand.
                    await server.stop()
                    await server.restart()
                    await broker.store(ready("p"), b"{}")
                is_over.set()
            return [ack for worker in workers for ack in worker.result()]

    assert asyncio.run(story())


def test_a_store_waits_for_the_broker_to_come_back_and_no_longer(tmp_path: Path) -> None:
    async def story() -> tuple[Ack, float]:
        async with TestBroker(tmp_path) as server, connected(server.url, "p") as broker:
            await server.kill()
            waiting = asyncio.create_task(broker.store(ready("p"), b"{}", msg_id="one"))
            with pytest.raises(BusUnavailable, match=r"within 0\.3s"):
                await broker.store(ready("p"), b"{}", timeout_s=0.3)
            assert not waiting.done()
            await server.restart()
            begun = asyncio.get_running_loop().time()
            return await waiting, asyncio.get_running_loop().time() - begun

    ack, seconds = asyncio.run(story())

    assert ack.seq == 1
    assert seconds < 3


def test_a_batch_whose_ack_was_lost_does_not_call_its_own_echo_a_duplicate(tmp_path: Path) -> None:
    async def story() -> tuple[list[Ack], list[str]]:
        async with TestBroker(tmp_path) as server, connected(server.url, "p") as broker:
            os.kill(server.pid, signal.SIGSTOP)
            storing = asyncio.create_task(
                broker.store_batch([Outgoing(ready("p"), b"{}", msg_id=f"m{n}") for n in range(3)])
            )
            # Beyond one try (5 s), so that the batch is given up and its messages go again, each alone.
            await asyncio.sleep(7.5)
            os.kill(server.pid, signal.SIGCONT)
            acks = [answer for answer in await storing if isinstance(answer, Ack)]
            return acks, await message_ids(broker, "p")

    acks, stored = asyncio.run(story())

    assert stored == ["m0", "m1", "m2"]
    assert [ack.duplicate for ack in acks] == [True, True, True]
    assert all(ack.tries > 1 for ack in acks)


def test_subscriptions_outlive_the_server(tmp_path: Path) -> None:
    async def story() -> bytes:
        heard: asyncio.Queue[bytes] = asyncio.Queue()
        is_back = asyncio.Event()

        async def hear(msg: Msg) -> None:
            heard.put_nowait(msg.data)

        async with (
            TestBroker(tmp_path) as server,
            connected(server.url, on_reconnect=is_back.set) as broker,
            asyncio.timeout(10),
        ):
            await broker.subscribe("penstock.reply.live.x", hear)
            await server.kill()
            await server.restart()
            await is_back.wait()
            await broker.nc.publish("penstock.reply.live.x", b"frame")
            return await heard.get()

    assert asyncio.run(story()) == b"frame"


def test_closing_never_waits_for_a_broker_that_is_gone(tmp_path: Path) -> None:
    async def story() -> None:
        async with TestBroker(tmp_path) as server:
            broker = await connect(CFG, name="test", url=server.url)
            await server.kill()
            storing = asyncio.create_task(broker.store(ready("p"), b"{}"))
            await asyncio.sleep(0)
            async with asyncio.timeout(4):
                await broker.close()
                for late in (storing, broker.store(ready("p"), b"{}")):
                    with pytest.raises(BusUnavailable, match="closed"):
                        await late

    asyncio.run(story())


def test_nobody_at_the_address_is_said_with_what_to_do() -> None:
    async def story() -> None:
        cfg = BrokerSection(connect_timeout_s=1)
        with pytest.raises(BusUnavailable, match=r"nats://127\.0\.0\.1:9 within 1s .*Connect call failed.*penstock up"):
            await connect(cfg, name="test", url="nats://me:secret@127.0.0.1:9")

    asyncio.run(story())


def test_an_error_line_from_the_server_is_a_reason_to_connect_again_not_to_give_up() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.write(b'INFO {"server_id":"x","version":"2.15.1","max_payload":1048576,"headers":true}\r\n')
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
            if connections == 1 and line.startswith(b"SUB"):
                writer.write(b"-ERR 'maximum connections exceeded'\r\n")
                break
        writer.close()

    async def story() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        is_back = asyncio.Event()
        broker = await connect(CFG, name="test", url=f"nats://127.0.0.1:{port}", on_reconnect=is_back.set)
        try:
            async with asyncio.timeout(5):
                await is_back.wait()
        finally:
            await broker.close()
            server.close()

    asyncio.run(story())

    assert connections == 2
