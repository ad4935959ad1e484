"""Kill -9 with the real engine: what the simulated one shows in seconds, once more with vLLM and its processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from penstock import Client, Status
from schemas import subjects
from tests.support.consumer import ConsumerProcess
from tests.support.nats import NatsServer

pytestmark = [pytest.mark.engine, pytest.mark.chaos]


def engines() -> list[int]:
    """Pids of all vLLM engine processes on this machine."""
    found: list[int] = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if (folder / "cmdline").read_bytes().startswith(b"VLLM::") and "Z" not in (
                    folder / "stat"
                ).read_text().split()[2]:
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def test_two_hundred_streaming_jobs_survive_kill_nine_of_a_vllm_consumer(
    own_nats: NatsServer, engine_data_dir: Path
) -> None:
    async def stored(client: Client) -> int:
        info = await client.session.broker.api(f"STREAM.INFO.{subjects.RESULTS_STREAM}")
        return info["state"]["messages"]

    async def story() -> None:
        before = set(engines())
        timing = ("--consumer.ack_wait_s", "4", "--consumer.heartbeat_s", "1", "--engine.max_num_seqs", "32")
        first = ConsumerProcess(own_nats.url, engine_data_dir, *timing, kind="vllm")
        second = ConsumerProcess(own_nats.url, engine_data_dir, *timing, kind="vllm")
        async with first, Client(own_nats.url) as client:
            bodies = ({"prompt": f"{n}", "max_tokens": 60 + n, "ignore_eos": True} for n in range(200))
            jobs = await client.submit_many(bodies, endpoint="/v1/completions")
            waiting = asyncio.gather(*(job.result() for job in jobs))
            while await stored(client) < 20:
                await asyncio.sleep(0.02)
            await first.kill_alone()
            assert not waiting.done()
            for _ in range(100):
                if set(engines()) <= before:
                    break
                await asyncio.sleep(0.1)
            assert set(engines()) <= before, "the engine outlived its consumer"

            async with second:
                results = await waiting

            assert {result.status for result in results} == {Status.COMPLETED}
            assert [result.usage.completion_tokens for result in results] == [60 + n for n in range(200)]
            assert await stored(client) == 200

    async def bounded() -> None:
        async with asyncio.timeout(400):
            await story()

    asyncio.run(bounded())
