"""From the first publish to an empty pool until its consumer's process is there: a real scaler, broker and consumers.

`spawn_p99_s` is what the bar is about. Every job must have its one result, after one attempt, and every pool must be
empty again before its next try.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

import msgspec
from nats.aio.msg import Msg

from infra.broker import Broker, connect
from infra.embedded import EmbeddedServer
from infra.life import unix_ms
from infra.report import Bar, Report, bar, this_machine
from scaler.drivers.process_record import Records
from scaler.drivers.processes import is_alive
from schemas import subjects
from schemas.config import BrokerSection
from schemas.errors import EngineFailed
from schemas.job import Job, encode_job
from schemas.result import Result, Status
from schemas.subjects import Lane

# One pool's consumer starts and goes while the next is tried.
_POOLS = 3
_POOL = {"maximum": 1, "cold_start_s": 1.0, "idle_s": 0.5, "gpus_per_replica": 0}
_WAIT_S = 120.0
# So long a pool rests empty before its next try, that the scaler has seen it.
_REST_S = 1.0
_BODY = msgspec.Raw(b'{"messages":[{"role":"user","content":"hello"}],"max_tokens":4}')


class Try(msgspec.Struct, frozen=True, kw_only=True):
    spawn_s: float
    answer_s: float
    attempt: int
    status: str


def wake(*, tries: int, environment: Mapping[str, str]) -> Report:
    found = asyncio.run(_measure(tries, environment))
    spawned = [one.spawn_s for one in found]
    answered = [one.answer_s for one in found]
    completed = sum(one.status == Status.COMPLETED.value for one in found)
    return Report(
        bench="wake",
        machine=this_machine(),
        bars={
            "spawn_p50_s": bar(spawned, "s"),
            "spawn_p99_s": _quantile(spawned, 0.99),
            "answer_p50_s": bar(answered, "s"),
            "jobs_lost": Bar(value=tries - completed, unit="jobs", n=tries, spread=0.0),
            "jobs_interrupted": Bar(value=sum(one.attempt > 1 for one in found), unit="jobs", n=tries, spread=0.0),
        },
        detail={
            "tries": tries,
            "pools": _POOLS,
            "engine": "simulated",
            "spawn_s": [round(one, 4) for one in spawned],
            "answer_s": [round(one, 3) for one in answered],
            "load_average": os.getloadavg()[0],
        },
    )


async def _measure(tries: int, environment: Mapping[str, str]) -> list[Try]:
    with tempfile.TemporaryDirectory(prefix="penstock-wake-") as name:
        folder = Path(name)
        server = EmbeddedServer(folder / "broker")
        url = await server.start()
        try:
            async with _scaler(url, folder, environment):
                broker = await connect(BrokerSection(), name="penstock bench wake", url=url)
                try:
                    return await _all(broker, folder, tries)
                finally:
                    await broker.close()
        finally:
            await server.stop()


@contextlib.asynccontextmanager
async def _scaler(url: str, folder: Path, environment: Mapping[str, str]) -> AsyncGenerator[None]:
    pools = msgspec.json.encode({_pool(number): _POOL for number in range(_POOLS)}).decode()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-P", "-m", "scaler", "scaler", "--with-parent", "--drain-at-stop", "--engine.kind", "simulated"),
        *("--scaler.driver", "process", "--scaler.pools", pools, "--log.format", "json"),
        env={**environment, "PENSTOCK__BROKER__URL": url, "PENSTOCK__DATA_DIR": str(folder)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        await _until_it_leads(process.stderr)
        reading = asyncio.create_task(_read(process.stderr))
        await asyncio.sleep(2 * _REST_S)
        yield
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_WAIT_S):
            await process.wait()
            await reading
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        _end_all(folder)


async def _all(broker: Broker, folder: Path, tries: int) -> list[Try]:
    """Pool after pool; each is tried again when it has come to rest."""
    found: list[Try] = []
    turns = [asyncio.Lock() for _ in range(_POOLS)]
    one_at_a_time = asyncio.Lock()

    async def attempt(number: int) -> None:
        async with turns[number % _POOLS]:
            found.append(await _one(broker, folder, _pool(number % _POOLS), f"wake-{number}", one_at_a_time))

    await asyncio.gather(*(attempt(number) for number in range(tries)))
    return found


async def _one(broker: Broker, folder: Path, pool: str, job: str, one_at_a_time: asyncio.Lock) -> Try:
    records = Records(folder / "scaler")
    done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

    async def on_done(msg: Msg) -> None:
        if not done.done():
            done.set_result(msgspec.json.decode(msg.data, type=Result))

    hearing = await broker.subscribe(subjects.done(pool, "bench", job), on_done)
    async with asyncio.timeout(_WAIT_S):
        # Two that publish at once would measure each other.
        async with one_at_a_time:
            began = time.perf_counter()
            payload = encode_job(Job(id=job, body=_BODY, submitted_unix_ms=unix_ms()))
            headers = {subjects.HEADER_JOB: job, subjects.HEADER_VERSION: subjects.WIRE_VERSION}
            storing = asyncio.create_task(
                broker.store(subjects.ready(pool, Lane.INTERACTIVE, "bench"), payload, headers=headers, msg_id=job)
            )
            while not _living(records, pool):
                await asyncio.sleep(0.001)
            spawn_s = time.perf_counter() - began
            await storing
        result = await done
        answer_s = time.perf_counter() - began
        while records.read().get(pool):
            await asyncio.sleep(0.05)
    await hearing.unsubscribe()
    await asyncio.sleep(_REST_S)
    return Try(spawn_s=spawn_s, answer_s=answer_s, attempt=result.attempt, status=result.status.value)


def _living(records: Records, pool: str) -> bool:
    return any(is_alive(one.pid, one.start_ticks) for one in records.read().get(pool, {}).values())


async def _until_it_leads(stream: asyncio.StreamReader) -> None:
    lines: list[str] = []
    async with asyncio.timeout(_WAIT_S):
        while line := await stream.readline():
            lines.append(line.decode(errors="replace"))
            if '"scaler.leads"' in lines[-1]:
                return
    raise EngineFailed(f"the scaler did not start: {''.join(lines)[-2000:]}")


async def _read(stream: asyncio.StreamReader) -> None:
    while await stream.readline():
        pass


def _end_all(folder: Path) -> None:
    for pool in Records(folder / "scaler").read().values():
        for record in pool.values():
            if is_alive(record.pid, record.start_ticks):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(record.pid, signal.SIGKILL)


def _quantile(values: list[float], share: float) -> Bar:
    ordered = sorted(values)
    place = max(0, -int(-share * len(ordered) // 1) - 1)
    median = ordered[len(ordered) // 2]
    spread = (ordered[-1] - ordered[0]) / median if median else 0.0
    return Bar(value=round(ordered[place], 4), unit="s", n=len(ordered), spread=round(spread, 4))


def _pool(number: int) -> str:
    return f"wake-{number}"
