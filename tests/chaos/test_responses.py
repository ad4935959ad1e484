"""Readers who hang up and come back anywhere, while gateways and consumers are killed under them. Seeded."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.consumer import ConsumerProcess
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer

pytestmark = pytest.mark.chaos

SEED = int(os.environ.get("PENSTOCK_SEED", random.randrange(10_000)))
RESPONSES, READERS, KILLS = 6, 2, 4


class Gateways:
    """Two, of which one is killed and replaced from time to time."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self.open: list[GatewayProcess] = []

    async def add(self) -> None:
        gateway = GatewayProcess(self._url, self._folder)
        await gateway.start()
        self.open.append(gateway)

    async def kill_one(self, rng: random.Random) -> None:
        await self.open.pop(rng.randrange(len(self.open))).kill()
        await self.add()

    async def close(self) -> None:
        for gateway in self.open:
            await gateway.kill()


async def read(gateways: Gateways, response_id: str, rng: random.Random) -> list[Any]:
    """To the end, in as many lines as it takes; never asks twice for an event."""
    events: list[Any] = []
    while not events or events[-1].type not in {"response.completed", "response.incomplete"}:
        after = events[-1].sequence_number if events else -1
        limit = rng.randrange(1, 40)
        try:
            async with rng.choice(gateways.open).openai() as client:
                stream = await client.responses.retrieve(response_id, stream=True, starting_after=after)
                async for event in stream:
                    events.append(event)
                    limit -= 1
                    if not limit:
                        await stream.close()
                        break
        except openai.APIStatusError:
            # It is up and says no.
            raise
        except (openai.APIError, OSError, Exception) as error:
            if "stream_broken" in str(error):
                raise
            await asyncio.sleep(0.05)
    return events


def test_readers_get_every_event_once_whatever_is_killed(own_nats: NatsServer, tmp_path: Path) -> None:
    rng = random.Random(SEED)

    async def story() -> None:
        gateways = Gateways(own_nats.url, tmp_path)
        consumers = [ConsumerProcess(own_nats.url, tmp_path, "--engine.step_s", "0.02") for _ in range(2)]
        await consumers[0].start()
        try:
            await gateways.add()
            await gateways.add()
            async with gateways.open[0].openai() as client:
                asked = [
                    await client.responses.create(
                        model="tiny",
                        input=f"Tell me of water {number}",
                        temperature=0,
                        background=True,
                        max_output_tokens=200,
                        extra_body={"ignore_eos": True},
                    )
                    for number in range(RESPONSES)
                ]
            readers = [
                asyncio.create_task(read(gateways, one.id, random.Random(rng.random())))
                for one in asked
                for _ in range(READERS)
            ]
            for kill in range(KILLS):
                await asyncio.sleep(rng.uniform(0.2, 1.0))
                if kill == 1:
                    await asyncio.gather(consumers[1].start(), consumers[0].kill())
                else:
                    await gateways.kill_one(rng)
            stories = await asyncio.gather(*readers)
            async with gateways.open[0].openai() as client:
                kept = {one.id: await client.responses.retrieve(one.id) for one in asked}
        finally:
            await gateways.close()
            for consumer in consumers:
                await consumer.kill()

        for events in stories:
            assert [event.sequence_number for event in events] == list(range(len(events)))
            whole = kept[events[0].response.id]
            text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
            assert text == whole.output_text
            assert events[-1].response == whole

    _run(story)


def _run(story: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(180):
            await story()

    try:
        asyncio.run(bounded())
    except BaseException:
        print(f"PENSTOCK_SEED={SEED} repeats it")
        raise
