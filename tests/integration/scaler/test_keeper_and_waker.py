"""Orders of two that both believe they lead, and an ear that closes after one word."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from infra import topology
from infra.broker import Broker, connect
from scaler.live.keeper import Keeper, LeadLost, PoolState
from scaler.live.wake import Waker
from schemas import subjects
from schemas.config import BrokerSection, ConsumerSection
from schemas.subjects import Lane
from tests.support.broker import TestBroker


def play(folder: Path, scene: Callable[[Broker], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with TestBroker(folder) as server:
            broker = await connect(BrokerSection(), name="test", url=server.url)
            await topology.provision_scaler(broker, BrokerSection())
            await topology.provision_pool(broker, BrokerSection(), ConsumerSection(pool="p"))
            await scene(broker)
            await broker.close()

    asyncio.run(whole())


def test_an_order_of_a_leader_that_was_replaced_is_refused(tmp_path: Path) -> None:
    async def scene(broker: Broker) -> None:
        old, new = Keeper(broker, "p", "old"), Keeper(broker, "p", "new")
        await old.take_over(1)
        await old.order(3, 2, timeout_s=5.0)
        await old.order(4, 3, timeout_s=5.0)
        await new.take_over(4)
        with pytest.raises(LeadLost):
            await old.order(5, 5, timeout_s=5.0)
        await new.order(6, 6, timeout_s=5.0)

    play(tmp_path, scene)


def test_the_echo_of_an_order_whose_ack_was_lost_is_its_own(tmp_path: Path) -> None:
    async def scene(broker: Broker) -> None:
        keeper = Keeper(broker, "p", "s")
        await keeper.take_over(1)
        stale = keeper._seq
        await keeper.order(3, 2, timeout_s=5.0)
        keeper._seq = stale
        await keeper.order(3, 2, timeout_s=5.0)
        await keeper.order(4, 3, timeout_s=5.0)

    play(tmp_path, scene)


def test_what_is_kept_is_recalled_and_what_cannot_be_read_is_begun_anew(tmp_path: Path) -> None:
    async def scene(broker: Broker) -> None:
        keeper = Keeper(broker, "p", "s")
        assert await keeper.recall() == PoolState()
        state = PoolState(own=["a"])
        state.learned.note_cold_start(12.0)
        await keeper.keep(state)
        assert await Keeper(broker, "p", "other").recall() == state
        await broker.store(subjects.scaler_state("p"), b'{"policy": 7}')
        assert await keeper.recall() == PoolState()

    play(tmp_path, scene)


@pytest.mark.parametrize("backlog", [False, True])
def test_of_a_thousand_publishes_to_an_empty_pool_one_is_heard(tmp_path: Path, backlog: bool) -> None:
    async def scene(broker: Broker) -> None:
        await topology.provision_backlog(broker, BrokerSection(), "p")
        heard: list[int] = []
        called = asyncio.Event()

        def on_publish() -> None:
            heard.append(1)
            called.set()

        waker = Waker(broker, "p", on_publish)
        await waker.arm()
        subject = (subjects.backlog if backlog else subjects.ready)("p", Lane.BULK, "t")
        received = broker.nc.stats["in_msgs"]
        async with asyncio.timeout(10):
            await asyncio.gather(*(broker.nc.publish(subject, b"{}") for _ in range(1000)))
            await broker.flush()
            await called.wait()
        await broker.flush()
        assert heard == [1]
        assert broker.nc.stats["in_msgs"] - received <= 3
        assert not waker.is_armed
        assert waker.may_arm_in_s > 0
        called.clear()
        await waker.arm()
        await broker.nc.publish(subject, b"{}")
        async with asyncio.timeout(10):
            await called.wait()
        assert heard == [1, 1]

    play(tmp_path, scene)


def test_a_disarmed_ear_hears_nothing(tmp_path: Path) -> None:
    async def scene(broker: Broker) -> None:
        heard: list[int] = []
        waker = Waker(broker, "p", lambda: heard.append(1))
        await waker.arm()
        await waker.disarm()
        await broker.nc.publish(subjects.ready("p", Lane.BULK, "t"), b"{}")
        await broker.flush()
        assert not heard

    play(tmp_path, scene)
