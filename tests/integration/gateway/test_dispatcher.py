"""The gateway in front of a pool whose backlog a real dispatcher orders."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx

from tests.support.consumer import ROOT, ConsumerProcess
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer

HELLO: list[Any] = [{"role": "user", "content": "Tell me of water"}]
QUICK: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 3}


@contextlib.asynccontextmanager
async def dispatcher(url: str, folder: Path) -> AsyncGenerator[None]:
    environment = {**os.environ, "PENSTOCK__BROKER__URL": url, "PENSTOCK__DATA_DIR": str(folder)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scaler", "dispatcher", "--with-parent"),
        cwd=ROOT,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.kill()
        await process.wait()


def test_what_waits_is_seen_and_cancelled_where_it_waits_and_chats_pass_it(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story() -> None:
        url = own_nats.url
        async with (
            ConsumerProcess(url, tmp_path, "--engine.step_s", "0.01"),
            dispatcher(url, tmp_path),
            GatewayProcess(url, tmp_path) as gateway,
            httpx.AsyncClient(base_url=gateway.url, timeout=20) as http,
            gateway.openai() as client,
        ):
            held = await _held(http)
            # Stored is not yet seen by the dispatcher.
            while (view := (await http.get(f"/v1/jobs/{held}")).json())["status"] != "held":
                assert view["status"] == "queued"
            assert (view["batch"], bool(view["why_held"])) == ("later", True)

            for stream in (False, True):
                answer = await client.chat.completions.create(**QUICK, stream=stream)
                if stream:
                    assert [chunk async for chunk in answer][-1].choices[0].finish_reason
            for tier in ("default", "flex"):
                assert (await client.chat.completions.create(**QUICK, service_tier=tier)).choices

            listed = {job["id"]: job["status"] for job in (await http.get("/v1/jobs")).json()["data"]}
            assert listed[held] == "held"
            assert sorted(listed.values()) == ["completed"] * 4 + ["held"]
            assert (await http.delete(f"/v1/jobs/{held}")).json()["status"] == "cancelled"
            assert (await http.get(f"/v1/jobs/{held}")).json()["status"] == "cancelled"

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await story()

    asyncio.run(bounded())


async def _held(http: httpx.AsyncClient) -> str:
    """A job that waits for another day; the dispatcher may need a moment to be there."""
    while True:
        answer = await http.post("/v1/jobs", json={"body": QUICK, "not_before": "1d", "batch": "later"})
        if answer.status_code == 202:
            return answer.json()["id"]
        assert answer.json()["error"]["code"] == "no_dispatcher"
        await asyncio.sleep(0.2)
