"""Batches among several gateways, as processes: handed over by one that stops, taken from one that sleeps."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.integration.gateway.test_batches import created, ended, line, lines_of, reached
from tests.support.consumer import ConsumerProcess
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer

CUSTOM_IDS = [f"g{n}" for n in range(300)]


def run(
    nats: NatsServer,
    folder: Path,
    story: Callable[[GatewayProcess, GatewayProcess], Awaitable[None]],
    lease_s: str,
) -> None:
    async def whole() -> None:
        async with contextlib.AsyncExitStack() as life:
            consumer = ConsumerProcess(nats.url, folder, "--engine.step_s", "0.01", "--engine.sequences_max", "16")
            await life.enter_async_context(consumer)
            lease = ("--gateway.batch_lease_s", lease_s)
            one = await life.enter_async_context(GatewayProcess(nats.url, folder, *lease))
            other = await life.enter_async_context(GatewayProcess(nats.url, folder, *lease))
            async with asyncio.timeout(60):
                await story(one, other)

    asyncio.run(whole())


def test_a_gateway_that_stops_hands_its_batches_over_at_once(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story(one: GatewayProcess, other: GatewayProcess) -> None:
        async with one.openai() as client:
            batch = await created(client, *(line(custom_id, max_tokens=20) for custom_id in CUSTOM_IDS))
            await reached(client, batch.id, lambda now: now.output_file_id)
        one.signal(signal.SIGTERM)
        assert await one.wait() == 0

        async with other.openai() as client:
            done = await ended(client, batch.id)
            output = await lines_of(client, done.output_file_id)

        assert done.status == "completed"
        assert sorted(answer["custom_id"] for answer in output) == sorted(CUSTOM_IDS)
        assert '"batch.taken_over"' in other.log

    # Longer than the test may take: nobody waited for it.
    run(own_nats, tmp_path, story, lease_s="600")


def test_zombie_owner_burns_inference_a_gateway_that_slept_finds_its_batch_taken(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story(one: GatewayProcess, other: GatewayProcess) -> None:
        async with one.openai() as client:
            batch = await created(client, *(line(custom_id, max_tokens=20) for custom_id in CUSTOM_IDS))
            await reached(client, batch.id, lambda now: now.output_file_id)
        one.signal(signal.SIGSTOP)
        try:
            async with other.openai() as client:
                done = await ended(client, batch.id)
                output = await lines_of(client, done.output_file_id)
        finally:
            one.signal(signal.SIGCONT)
        while '"batch.lost"' not in one.log:
            await asyncio.sleep(0.05)

        assert done.status == "completed"
        assert sorted(answer["custom_id"] for answer in output) == sorted(CUSTOM_IDS)
        async with one.openai() as client:
            assert await client.batches.retrieve(batch.id) == done
            assert await lines_of(client, done.output_file_id) == output

    run(own_nats, tmp_path, story, lease_s="1.5")
