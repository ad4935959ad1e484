"""Finding a message by its time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from infra import topology
from infra.broker import connect
from producer import decisions
from schemas import subjects
from schemas.config import BrokerSection
from schemas.decision import Decision
from tests.support.broker import TestBroker


def test_the_decision_at_a_time_is_the_last_one_before_it(tmp_path: Path) -> None:
    async def scene() -> None:
        async with TestBroker(tmp_path) as server:
            broker = await connect(BrokerSection(), name="test", url=server.url)
            await topology.provision_scaler(broker, BrokerSection())
            stored: list[int] = []
            for number in range(6):
                for pool in ("p", "other"):
                    payload = msgspec.json.encode(Decision(pool=pool, unix_ms=number))
                    await broker.store(subjects.decisions(pool), payload)
                message = await broker.last_on(subjects.DECISIONS_STREAM, subjects.decisions("p"))
                assert message is not None
                stored.append(message.unix_ms)
                await asyncio.sleep(0.25)
            for number, unix_ms in enumerate(stored):
                decision = await decisions.at(broker, "p", unix_ms + 120)
                assert decision is not None
                assert (decision.pool, decision.unix_ms) == ("p", number)
            assert await decisions.at(broker, "p", stored[0] - 1000) is None
            assert [one.unix_ms for one in await decisions.since(broker, "p", stored[2], 3)] == [2, 3, 4]
            await broker.close()

    asyncio.run(scene())
