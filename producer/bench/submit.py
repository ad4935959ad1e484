"""`penstock bench submit`: one process puts a million small jobs in; every one is acknowledged by a broker that syncs.

No consumer and no dispatcher: a pool, its backlog, and the client as programs use it. At the end the stream is asked
what it holds, so that an acknowledgement without a message would be seen.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from infra import settings, topology
from infra.broker import connect
from infra.embedded import EmbeddedServer
from producer.bench.processes import cpu_seconds
from producer.bench.report import Report, bar, show, this_machine
from producer.cli.exits import Exit
from producer.client import Client
from producer.request import Request
from schemas import subjects
from schemas.config import Config
from schemas.errors import BusUnavailable, PenstockError

_POOL = "bench"
_TENANTS = 100
# What the process holds when the first so many are in: buffers have found their size.
_WARM = 20_000


class Round(msgspec.Struct, frozen=True):
    jobs: int
    seconds: float
    rss_warm_mib: float
    rss_end_mib: float
    client_cpu_s: float
    broker_cpu_s: float

    @property
    def jobs_per_s(self) -> float:
        return self.jobs / self.seconds


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="penstock bench submit", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--folder", default=None, metavar="DIR", help="where the broker keeps its data (default: temporary)"
    )
    parser.add_argument("--quick", action="store_true", help="within a minute: 100,000 jobs, once")
    parser.add_argument("--json", action="store_true")
    settings.add_config_options(parser)
    options, extra = parser.parse_known_args(arguments)
    cfg = settings.load_config(options.config, extra, dict(os.environ))  # noqa: TID251 - this is a main()
    jobs, rounds = (100_000, 1) if options.quick else (options.jobs, options.rounds)
    measured = [uvloop.run(one_round(cfg, jobs, options.folder)) for _ in range(rounds)]
    show(_report(measured), as_json=options.json)
    return Exit.OK


async def one_round(cfg: Config, jobs: int, folder: str | None) -> Round:
    """
    Raises:
        PenstockError: a job was refused, or acknowledged and is not there.
    """
    async with AsyncExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-", dir=folder)))
        server = EmbeddedServer(data)
        url = await server.start()
        stack.push_async_callback(server.stop)
        await _provision(cfg, url)
        client = await stack.enter_async_context(Client(url, pool=_POOL, config=cfg))
        begun, cpu, broker_cpu = time.monotonic(), time.process_time(), cpu_seconds(server.pid)
        warm = acked = 0
        async for receipt in client.submit_stream(_requests(jobs)):
            if isinstance(receipt, PenstockError):
                raise receipt
            acked += 1
            if acked == min(_WARM, jobs):
                warm = _rss()
        seconds = time.monotonic() - begun
        await _check_stored(client, jobs)
        return Round(
            jobs=acked,
            seconds=seconds,
            rss_warm_mib=warm / 2**20,
            rss_end_mib=_rss() / 2**20,
            client_cpu_s=time.process_time() - cpu,
            broker_cpu_s=cpu_seconds(server.pid) - broker_cpu,
        )


async def _provision(cfg: Config, url: str) -> None:
    broker = await connect(cfg.broker, name="penstock-bench", url=url)
    try:
        await topology.provision_shared(broker, cfg.broker)
        await topology.provision_pool(broker, cfg.broker, msgspec.structs.replace(cfg.consumer, pool=_POOL))
        await topology.provision_backlog(broker, cfg.broker, _POOL)
    finally:
        await broker.close()


async def _check_stored(client: Client, jobs: int) -> None:
    answer = await client.session.broker.api(f"STREAM.INFO.{subjects.backlog_stream(_POOL)}")
    there: int = answer.get("state", {}).get("messages", 0)
    if there != jobs:
        raise BusUnavailable(f"{jobs} jobs were acknowledged and the stream holds {there}")


def _requests(jobs: int) -> Iterator[Request]:
    """A few hundred bytes each, as classification or labelling of short texts."""
    system = {"role": "system", "content": "You label support tickets. Answer with one word: billing, fault or other."}
    for number in range(jobs):
        text = f"Ticket {number}: since this morning the valve at gate {number % 977} does not close any more."
        body = {"messages": [system, {"role": "user", "content": text}], "max_tokens": 4, "temperature": 0}
        yield Request(body=body, lane="bulk", tenant=f"tenant-{number % _TENANTS}", stream=False, batch="nightly")


def _rss() -> int:
    """Bytes in memory now, not at the peak."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _report(rounds: list[Round]) -> Report:
    bars = {
        "acked_jobs_per_s": bar([one.jobs_per_s for one in rounds], "jobs/s"),
        "rss_growth_mib": bar([one.rss_end_mib - one.rss_warm_mib for one in rounds], "MiB"),
        "rss_end_mib": bar([one.rss_end_mib for one in rounds], "MiB"),
        "client_us_per_job": bar([one.client_cpu_s / one.jobs * 1e6 for one in rounds], "µs"),
        "broker_us_per_job": bar([one.broker_cpu_s / one.jobs * 1e6 for one in rounds], "µs"),
    }
    detail: dict[str, Any] = {
        "jobs": rounds[0].jobs,
        "tenants": _TENANTS,
        "rounds": [msgspec.structs.asdict(one) for one in rounds],
    }
    return Report(bench="submit", machine=this_machine(), bars=bars, detail=detail)
