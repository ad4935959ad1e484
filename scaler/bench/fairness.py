"""`fairness`: the dispatcher process on a real broker that syncs, with a million jobs of ten thousand tenants.

One tenant has half of all jobs. Four tenants with weights 3:2:1:1 wait in the lane before the others. Jobs are pulled
and answered by this process without an engine (`drain`), so that what is measured is the dispatcher and the broker.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import sys
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import msgspec
import uvloop

from infra import topology
from infra.broker import Broker, Outgoing, connect
from infra.embedded import EmbeddedServer
from infra.report import Report, bar, this_machine
from scaler.bench.drain import Drain
from schemas import subjects
from schemas.backlog import Ticket, header_of
from schemas.config import BrokerSection, ConsumerSection
from schemas.dispatch import Look, Snapshot
from schemas.errors import BusUnavailable, EngineFailed
from schemas.subjects import Lane

_POOL = "bench"
_WHALE = "whale"
_WEIGHTS = {"three": 3.0, "two": 2.0, "one": 1.0, "uno": 1.0}
_NEWCOMERS = 10
_START_S = 120.0
# What the weighted tenants are compared over: while all of them have jobs, after the first turn of each.
_STRETCH = 3500


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    jobs: int = 1_000_000
    tenants: int = 10_000
    weighted_each: int = 4_000
    serve_s: float = 20.0


QUICK = Shape(jobs=100_000, tenants=1_000, weighted_each=3_000, serve_s=6.0)


class Dispatcher:
    """The process: started, and asked when it leads."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> Self:
        weights = msgspec.json.encode(_WEIGHTS).decode()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", "scaler", "dispatcher", "--with-parent", "--log.level", "warning"),
            *("--broker.url", self._url, "--dispatcher.weights", weights),
            stdin=asyncio.subprocess.DEVNULL,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        await self._process.wait()

    async def wait_leads(self, broker: Broker) -> Snapshot:
        """
        Raises:
            EngineFailed: it ended, or does not answer.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + _START_S
        question = msgspec.json.encode(Look())
        while loop.time() < end and self._process.returncode is None:
            try:
                reply = await broker.ask(subjects.control_dispatch(_POOL), question, timeout_s=1.0)
                return msgspec.json.decode(reply.data, type=Snapshot)
            except (BusUnavailable, msgspec.DecodeError):
                await asyncio.sleep(0.02)
        raise EngineFailed("the dispatcher does not answer")

    @property
    def rss_bytes(self) -> int:
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


def fairness(*, is_quick: bool, rounds: int) -> Report:
    shape = QUICK if is_quick else Shape()
    seen = [uvloop.run(_round(shape)) for _ in range(rounds)]
    units = {
        "weight_error": "share",
        "newcomer_start_s": "s",
        "dispatch_jobs_per_s": "jobs/s",
        "bytes_per_job": "bytes",
        "rebuild_1m_s": "s",
    }
    bars = {name: bar([one[name] for one in seen], unit) for name, unit in units.items()}
    return Report(
        bench="fairness",
        machine=this_machine(),
        bars=bars,
        detail={"shape": msgspec.to_builtins(shape), "rounds": seen},
    )


async def _round(shape: Shape) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        server = EmbeddedServer(folder)
        url = await server.start()
        stack.push_async_callback(server.stop)
        broker = await connect(BrokerSection(), name="bench", url=url)
        stack.push_async_callback(broker.close)
        await topology.provision_shared(broker, BrokerSection())
        await topology.provision_pool(broker, BrokerSection(), ConsumerSection(pool=_POOL))
        await topology.provision_backlog(broker, BrokerSection(), _POOL)
        async with Dispatcher(url) as idle:
            await idle.wait_leads(broker)
            empty_bytes = idle.rss_bytes
        await _fill(broker, shape)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        dispatcher = await stack.enter_async_context(Dispatcher(url))
        snapshot = await dispatcher.wait_leads(broker)
        rebuild_s = loop.time() - begun
        waiting = sum(lane.jobs for lane in snapshot.lanes.values())
        bytes_per_job = (dispatcher.rss_bytes - empty_bytes) / waiting
        served = await _serve(broker, shape)
    return {
        "weight_error": served["weight_error"],
        "newcomer_start_s": statistics.median(served["newcomers_s"]),
        "dispatch_jobs_per_s": served["jobs_per_s"],
        "bytes_per_job": bytes_per_job,
        # Of as many jobs as there were: a quick run has fewer, and its start is mostly Python's.
        "rebuild_1m_s": rebuild_s,
        "newcomers_s": [round(one, 3) for one in sorted(served["newcomers_s"])],
        "waiting": waiting,
        "tenants_served": served["tenants_served"],
        "whale_share": served["whale_share"],
    }


async def _fill(broker: Broker, shape: Shape) -> None:
    headers = [header_of(Ticket(prompt_tokens=tokens, output_tokens_max=100)) for tokens in range(50, 151)]
    lane_tenants = [(Lane.BULK, _WHALE if n % 2 else f"tenant-{n // 2 % shape.tenants}") for n in range(shape.jobs)]
    lane_tenants += [(Lane.STANDARD, tenant) for _ in range(shape.weighted_each) for tenant in _WEIGHTS]
    for start in range(0, len(lane_tenants), 1000):
        part = enumerate(lane_tenants[start : start + 1000], start)
        messages = [
            _message(lane, tenant, f"job-{number:09d}", headers[number % len(headers)])
            for number, (lane, tenant) in part
        ]
        for ack in await broker.store_batch(messages):
            if isinstance(ack, Exception):
                raise ack


def _message(lane: Lane, tenant: str, job: str, header: str) -> Outgoing:
    payload = b'{"id":"%s","endpoint":"/v1/completions","body":{"prompt":"a river","max_tokens":100}}' % job.encode()
    headers = {subjects.HEADER_JOB: job, subjects.HEADER_VERSION: subjects.WIRE_VERSION, subjects.HEADER_TICKET: header}
    return Outgoing(subjects.backlog(_POOL, lane, tenant), payload, msg_id=job, headers=headers)


async def _serve(broker: Broker, shape: Shape) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    started: dict[str, float] = {}

    def on_served(tenant: str, job: str) -> None:
        if tenant.startswith("new-"):
            started[job] = loop.time()

    drain = Drain(broker, _POOL, on_served=on_served)
    draining = asyncio.create_task(drain.run())
    try:
        weighted = shape.weighted_each * len(_WEIGHTS)
        while len(drain.order) < weighted:
            await asyncio.sleep(0.05)
            if draining.done():
                draining.result()
        before, begun = len(drain.order), loop.time()
        newcomers_s: list[float] = []
        for number in range(_NEWCOMERS):
            await asyncio.sleep(shape.serve_s / _NEWCOMERS)
            message = _message(Lane.BULK, f"new-{number}", f"new-job-{number}", header_of(Ticket(prompt_tokens=100)))
            stored_at = loop.time()
            await broker.store(message.subject, message.payload, headers=message.headers, msg_id=message.msg_id)
            while message.msg_id not in started and loop.time() - stored_at < 30:
                await asyncio.sleep(0.005)
            newcomers_s.append(started.get(message.msg_id, loop.time()) - stored_at)
        jobs_per_s = (len(drain.order) - before) / (loop.time() - begun)
    finally:
        draining.cancel()
        await asyncio.gather(draining, return_exceptions=True)
    bulk = Counter(drain.order[weighted:])
    return {
        "weight_error": _weight_error(drain.order),
        "newcomers_s": newcomers_s,
        "jobs_per_s": jobs_per_s,
        "tenants_served": len(bulk),
        "whale_share": round(bulk[_WHALE] / max(1, bulk.total()), 4),
    }


def _weight_error(order: list[str]) -> float:
    """Of the first stretch of weighted jobs: the largest relative distance of a tenant's share from its due."""
    counts = Counter([tenant for tenant in order if tenant in _WEIGHTS][:_STRETCH])
    total = sum(_WEIGHTS.values())
    return max(abs(counts[tenant] / _STRETCH / (weight / total) - 1) for tenant, weight in _WEIGHTS.items())
