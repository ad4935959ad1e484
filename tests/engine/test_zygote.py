"""A zygote that has imported vLLM: consumers, engines and workers are forked, and live and end as others do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from penstock import Client
from schemas.result import Result
from tests.support.consumer import ROOT, ConsumerProcess
from tests.support.nats import NatsServer

pytestmark = pytest.mark.engine

CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 20, "temperature": 0}


def content_of(result: Result) -> str:
    return json.loads(bytes(result.body))["choices"][0]["message"]["content"]


def under(pid: int) -> set[int]:
    """Its children and theirs, as they are now."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(status.parent.name)] = int(fields[1])
    found, before = {pid}, set[int]()
    while found != before:
        before = set(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found - {pid}


def are_there(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}").exists()}


async def until_gone(pids: set[int]) -> None:
    async with asyncio.timeout(30):
        while are_there(pids):
            await asyncio.sleep(0.1)


def test_a_forked_engine_answers_drains_and_dies_with_its_stand_in(
    own_nats: NatsServer, tmp_path: Path, engine_data_dir: Path
) -> None:
    async def story() -> None:
        socket = str(tmp_path / "z")
        zygote = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "consumer", "--serve-zygote", socket, "--engine.model", "tiny"),
            cwd=ROOT,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert zygote.stderr is not None
            async with asyncio.timeout(300):
                while b"ready at" not in await zygote.stderr.readline():
                    pass
            forked = ConsumerProcess(own_nats.url, engine_data_dir, "--zygote", socket, kind="vllm")
            async with Client(own_nats.url) as client:
                async with forked:
                    answers = [await (await client.submit(CHAT)).result(60) for _ in range(2)]
                    assert {answer.status.value for answer in answers} == {"completed"}
                    family = under(zygote.pid)
                    assert len(family) >= 3, "a consumer, its engine and its worker"

                    os.kill(forked.pid, signal.SIGKILL)
                    await until_gone(family)

                async with forked:
                    again = await (await client.submit(CHAT)).result(60)
                    assert content_of(again) == content_of(answers[0])
                    family = under(zygote.pid)

                    forked.signal(signal.SIGTERM)
                    assert await forked.wait(60) == 0
                    await until_gone(family)
        finally:
            if zygote.returncode is None:
                zygote.kill()
            await zygote.wait()

    asyncio.run(story())
