"""Consumers that a zygote forks, on the simulated engine: the same life and the same ends as those that start alone."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from penstock import Client
from tests.support.consumer import ROOT, ConsumerProcess
from tests.support.nats import NatsServer

CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}


@asynccontextmanager
async def a_zygote(socket: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "consumer", "--serve-zygote", str(socket), "--engine.kind", "simulated"),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(60):
            assert b"ready at" in await process.stderr.readline()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def children_of(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while is_there(pid):
            await asyncio.sleep(0.05)


def test_two_forked_consumers_serve_and_drain_as_others_do(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        socket = tmp_path / "z"
        async with a_zygote(socket) as zygote, Client(own_nats.url) as client:
            assert stat.S_IMODE(socket.stat().st_mode) == 0o600
            one = ConsumerProcess(own_nats.url, tmp_path, "--zygote", str(socket))
            two = ConsumerProcess(own_nats.url, tmp_path, "--zygote", str(socket))
            async with one, two:
                assert len(children_of(zygote.pid)) == 2
                results = [await (await client.submit(CHAT)).result(20) for _ in range(8)]
                assert all(result.status.value == "completed" for result in results)

                one.signal(signal.SIGTERM)
                assert await one.wait() == 0
                assert len(children_of(zygote.pid)) == 1

                await (await client.submit(CHAT)).result(20)

    asyncio.run(story())


def test_kill_nine_of_the_stand_in_is_kill_nine_of_its_consumer_and_loses_no_job(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story() -> None:
        async with a_zygote(tmp_path / "z") as zygote, Client(own_nats.url) as client:
            consumer = ConsumerProcess(own_nats.url, tmp_path, "--zygote", str(tmp_path / "z"))
            async with consumer:
                (forked,) = children_of(zygote.pid)
                handle = await client.submit({**CHAT, "max_tokens": 400, "ignore_eos": True})

                os.kill(consumer.pid, signal.SIGKILL)
                await until_gone(forked)
                await consumer.kill()

                await consumer.start()
                assert (await handle.result(60)).status.value == "completed"

    asyncio.run(story())


def test_a_consumer_that_is_killed_is_seen_as_killed_through_its_stand_in(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        consumer = ConsumerProcess(own_nats.url, tmp_path, "--zygote", str(tmp_path / "z"))
        async with a_zygote(tmp_path / "z") as zygote, consumer:
            (forked,) = children_of(zygote.pid)

            os.kill(forked, signal.SIGKILL)

            assert await consumer.wait() == -signal.SIGKILL

    asyncio.run(story())


def test_consumers_outlive_their_zygote(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        consumer = ConsumerProcess(own_nats.url, tmp_path, "--zygote", str(tmp_path / "z"))
        async with a_zygote(tmp_path / "z") as zygote, Client(own_nats.url) as client, consumer:
            zygote.kill()
            await zygote.wait()

            assert (await (await client.submit(CHAT)).result(20)).status.value == "completed"
            consumer.signal(signal.SIGTERM)
            # Nobody is left who saw how it ended.
            assert await consumer.wait() == 1

    asyncio.run(story())


def test_without_a_zygote_a_consumer_starts_alone_and_says_so(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        async with ConsumerProcess(own_nats.url, tmp_path, "--zygote", str(tmp_path / "none")) as consumer:
            assert "no zygote answers" in consumer.log
            async with Client(own_nats.url) as client:
                assert (await (await client.submit(CHAT)).result(20)).status.value == "completed"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--zygote"], "--zygote needs the path of a socket"),
        (["--serve-zygote", "--engine.kind", "simulated"], "--serve-zygote needs the path of a socket"),
        (["--serve-zygote", "/tmp/z", "--engine.kind", "steam"], "engine.kind"),
        (["--serve-zygote", "/tmp/z", "--consumer.poool", "big"], "poool"),
        (["--serve-zygote", "/proc/none/z", "--engine.kind", "simulated"], "--serve-zygote /proc/none/z: No such file"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_and_exits_with_2(words: list[str], says: str) -> None:
    async def story() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "consumer", *words, cwd=ROOT, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(60):
            _, said = await process.communicate()
        assert process.returncode == 2
        assert says in said.decode()

    asyncio.run(story())
