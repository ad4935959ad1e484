"""`penstock jobs`."""

from __future__ import annotations

import asyncio

from infra.life import unix_ms
from producer.cli.exits import Exit
from producer.cli.main import Invocation
from producer.cli.settings import client_of
from producer.cli.terminal import note, say, say_json
from producer.listing import JobInfo


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
    if infos:
        now = unix_ms()
        for row in table([_HEAD, *(_row(info, now) for info in infos)]):
            say(row)
    else:
        note(f"no jobs in pool {client.pool}")
    for pool in pools:
        served = f"{len(pool.consumers)} consumer(s): {', '.join(pool.models)}" if pool.consumers else "no consumer"
        note(f"pool {pool.pool}: {served}")
    return Exit.OK


_HEAD = ("JOB", "STATE", "LANE", "TOKENS", "AGE", "CONSUMER", "CUSTOM_ID", "ERROR")


def _row(info: JobInfo, now_unix_ms: int) -> tuple[str, ...]:
    age = _age((now_unix_ms - info.submitted_unix_ms) / 1000) if info.submitted_unix_ms else ""
    tokens = str(info.tokens) if info.tokens else ""
    custom_id = info.custom_id[:32]
    return (info.job, info.state, info.lane, tokens, age, info.consumer, custom_id, info.error[:60])


def _age(seconds: float) -> str:
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
