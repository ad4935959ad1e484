"""`penstock jobs`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from producer.cli.exits import Exit
from producer.cli.main import Invocation
from producer.cli.promises import clock
from producer.cli.settings import client_of
from producer.cli.terminal import note, say, say_json
from producer.listing import JobInfo, PoolInfo


def jobs(invocation: Invocation) -> int:
    return asyncio.run(_jobs(invocation))


async def _jobs(invocation: Invocation) -> int:
    arguments = invocation.arguments
    async with client_of(invocation) as client:
        infos = await client.jobs(limit=arguments.limit, tenant="*" if arguments.all_tenants else "")
        pools = await client.pools()
    if arguments.json:
        say_json({"jobs": infos, "pools": pools})
        return Exit.OK
    now = datetime.now(UTC).astimezone()
    if infos:
        for row in table([_HEAD, *(_row(info, now) for info in infos)]):
            say(row)
    else:
        note(f"no jobs in pool {client.pool}")
    for pool in pools:
        note(pool_line(pool))
    return Exit.OK


def pool_line(pool: PoolInfo) -> str:
    served = f"{len(pool.consumers)} consumer(s): {', '.join(pool.models)}" if pool.consumers else "no consumer"
    parts = [f"pool {pool.pool}: {served}"]
    if pool.waiting_jobs or pool.held_jobs:
        tokens = f" with about {pool.waiting_tokens:,} tokens" if pool.waiting_tokens else ""
        held = f", {pool.held_jobs:,} held" if pool.held_jobs else ""
        waiting = "1 job waits" if pool.waiting_jobs == 1 else f"{pool.waiting_jobs:,} jobs wait"
        parts.append(f"{waiting}{tokens}{held}")
        if not pool.dispatcher:
            parts.append("no dispatcher answers; start one: penstock dispatcher")
    if pool.paused:
        parts.append(f"paused: {', '.join('the pool' if name == '*' else name for name in pool.paused)}")
    return "; ".join(parts)


_HEAD = ("JOB", "STATE", "LANE", "POS", "ETA", "TOKENS", "AGE", "CONSUMER", "BATCH", "CUSTOM_ID", "WHY")


def _row(info: JobInfo, now: datetime) -> tuple[str, ...]:
    submitted_s = info.submitted_unix_ms / 1000
    return (
        info.job,
        info.state,
        info.lane,
        str(info.position) if info.position else "",
        clock(info.eta_unix_ms, now) if info.eta_unix_ms else "",
        str(info.tokens) if info.tokens else "",
        age(now.timestamp() - submitted_s) if submitted_s else "",
        info.consumer,
        info.batch,
        info.custom_id[:32],
        (info.error or info.why_held)[:60],
    )


def age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns as wide as their widest cell; columns that are empty throughout are left out."""
    used = [index for index in range(len(rows[0])) if any(row[index] for row in rows[1:])]
    widths = [max(len(row[index]) for row in rows) for index in used]
    return [
        "  ".join(row[index].ljust(width) for index, width in zip(used, widths, strict=True)).rstrip() for row in rows
    ]
