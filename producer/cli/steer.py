"""`penstock cancel`, `pause`, `resume` and `tenants`: many jobs at once."""

from __future__ import annotations

import asyncio

from infra.life import unix_ms
from producer.cli.exits import Exit
from producer.cli.jobs import age, table
from producer.cli.main import Invocation
from producer.cli.settings import client_of
from producer.cli.terminal import note, say, say_json
from producer.client import Client
from schemas.dispatch import Amount, Snapshot
from schemas.errors import BusUnavailable, ConfigError


def cancel(invocation: Invocation) -> int:
    return asyncio.run(_cancel(invocation))


def pause(invocation: Invocation) -> int:
    return asyncio.run(_pause(invocation, is_paused=True))


def resume(invocation: Invocation) -> int:
    return asyncio.run(_pause(invocation, is_paused=False))


def tenants(invocation: Invocation) -> int:
    return asyncio.run(_tenants(invocation))


async def _cancel(invocation: Invocation) -> int:
    arguments = invocation.arguments
    if bool(arguments.job) + bool(arguments.batch) + arguments.all != 1:
        raise ConfigError("give job ids, --batch NAME or --all: one of them", param="ID")
    async with client_of(invocation) as client:
        if not arguments.job:
            what = f"batch {arguments.batch}" if arguments.batch else f"tenant {client.tenant}"
            ended = await (client.cancel_batch(arguments.batch) if arguments.batch else client.cancel_tenant())
            if arguments.json:
                say_json({"cancelled": ended, "pool": client.pool, "tenant": client.tenant, "batch": arguments.batch})
            else:
                say(f"{what}: {ended:,} {'job' if ended == 1 else 'jobs'} cancelled")
            return Exit.OK
        for job in arguments.job:
            result = await client.cancel(job)
            if arguments.json:
                say_json(result)
            else:
                say(f"{job} {result.status}")
    return Exit.OK


async def _pause(invocation: Invocation, *, is_paused: bool) -> int:
    arguments = invocation.arguments
    tenant, batch = arguments.tenant or "", arguments.batch or ""
    async with client_of(invocation) as client:
        change = client.pause if is_paused else client.resume
        await change(tenant=tenant, batch=batch)
        what = f"tenant {tenant}" if tenant else f"batch {batch}" if batch else f"pool {client.pool}"
        if arguments.json:
            said = {"paused": is_paused, "pool": client.pool, "tenant": tenant, "batch": batch}
            say_json(said)
        else:
            say(f"{what} {'paused: what runs goes on, what waits stays' if is_paused else 'resumed'}")
    return Exit.OK


async def _tenants(invocation: Invocation) -> int:
    arguments = invocation.arguments
    weights = dict(_weight(text) for text in arguments.weight)
    async with client_of(invocation) as client:
        if weights:
            await client.weigh(weights)
        snapshot = await _look(client)
        shares = {**snapshot.weights, **(await client.settings()).weights, **weights}
    if arguments.json:
        say_json({"pool": client.pool, "weights": shares, "tenants": snapshot.tenants, "total": snapshot.tenants_total})
        return Exit.OK
    names = sorted({*snapshot.tenants, *shares}, key=lambda name: (-_tokens(snapshot, name), name))
    if names:
        for row in table([_HEAD, *(_row(name, snapshot, shares) for name in names)]):
            say(row)
    else:
        note(f"no tenant waits in pool {client.pool}")
    if snapshot.tenants_total > len(snapshot.tenants):
        note(f"the {len(snapshot.tenants)} largest of {snapshot.tenants_total} tenants with waiting jobs")
    return Exit.OK


async def _look(client: Client) -> Snapshot:
    """
    Raises:
        BusUnavailable: no dispatcher answers.
    """
    snapshot = await client.look()
    if snapshot is None:
        raise BusUnavailable(
            f"no dispatcher answers for pool {client.pool}: start one: penstock dispatcher", code="no_dispatcher"
        )
    return snapshot


_HEAD = ("TENANT", "WEIGHT", "JOBS", "PROMPT", "OUTPUT", "OLDEST", "")


def _row(name: str, snapshot: Snapshot, shares: dict[str, float]) -> tuple[str, ...]:
    amount = snapshot.tenants.get(name, Amount())
    oldest = age((unix_ms() - amount.oldest_unix_ms) / 1000) if amount.oldest_unix_ms else ""
    state = "paused" if name in snapshot.paused else "over quota" if name in snapshot.over_quota else ""
    tokens = (f"{amount.prompt_tokens:,}", f"{amount.output_tokens:,}")
    return (name, f"{shares.get(name, 1):g}", f"{amount.jobs:,}", *tokens, oldest, state)


def _tokens(snapshot: Snapshot, name: str) -> int:
    amount = snapshot.tenants.get(name, Amount())
    return amount.prompt_tokens + amount.output_tokens


def _weight(text: str) -> tuple[str, float]:
    name, _, weight = text.partition("=")
    try:
        return name, float(weight)
    except ValueError:
        raise ConfigError(f"--weight {text!r}: use NAME=3", param="--weight") from None
