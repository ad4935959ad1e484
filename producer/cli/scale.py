"""`penstock scale` and `penstock explain`: how many consumers by hand, and why there are as many as there are."""

from __future__ import annotations

import asyncio
from datetime import datetime

import msgspec

from infra.broker import Broker, connect
from infra.life import unix_ms
from producer import decisions
from producer.cli.exits import Exit
from producer.cli.main import Invocation
from producer.cli.settings import broker_url, config_of
from producer.cli.terminal import note, say, say_json
from producer.cli.times import past_of, seconds_of
from schemas.decision import Decision, moment, sentences
from schemas.errors import ConfigError
from schemas.override import Override
from schemas.subjects import checked_name


def scale(invocation: Invocation) -> int:
    return asyncio.run(_scale(invocation))


def explain(invocation: Invocation) -> int:
    return asyncio.run(_explain(invocation))


async def _scale(invocation: Invocation) -> int:
    arguments = invocation.arguments
    if (arguments.replicas is None) == (not arguments.auto):
        raise ConfigError("give a number of consumers, or --auto to let the policies decide again", param="N")
    if arguments.replicas is not None and arguments.replicas < 0:
        raise ConfigError(f"{arguments.replicas} consumers: use 0 or more", param="N")
    if arguments.auto and arguments.duration:
        raise ConfigError("--auto has no end: leave --for out", param="--for")
    now = unix_ms()
    until = now + int(seconds_of(arguments.duration, "--for") * 1000) if arguments.duration else 0
    override = Override(replicas=arguments.replicas, until_unix_ms=until, set_unix_ms=now)
    pool = _pool(invocation)
    broker = await _connected(invocation)
    try:
        await decisions.ask_for(broker, pool, override)
    finally:
        await broker.close()
    if arguments.json:
        say_json({"pool": pool, **msgspec.to_builtins(override)})
    elif arguments.auto:
        say(f"pool {pool}: the policies decide again")
    else:
        end = f"until {moment(until)}" if until else f"until `penstock scale --pool {pool} --auto`"
        say(f"pool {pool}: {_consumers(arguments.replicas or 0)} {end}")
    return Exit.OK


async def _explain(invocation: Invocation) -> int:
    arguments = invocation.arguments
    pool = _pool(invocation)
    at = past_of(arguments.at, datetime.now().astimezone()) if arguments.at else None
    broker = await _connected(invocation)
    try:
        if at is None:
            decision = await decisions.latest(broker, pool)
        else:
            decision = await decisions.at(broker, pool, int(at.timestamp() * 1000))
        override = await decisions.override(broker, pool)
    finally:
        await broker.close()
    if decision is None:
        when = f" before {at:%Y-%m-%d %H:%M:%S %Z}" if at else ""
        raise ConfigError(f"nothing was decided about pool {pool}{when}: is it among scaler.pools?", param="--pool")
    asked = override.replicas_at(unix_ms())
    if arguments.json:
        said = msgspec.to_builtins(override) if asked is not None else None
        say_json({"decision": msgspec.to_builtins(decision), "override": said})
        return Exit.OK
    say(_heading(decision))
    for sentence in sentences(decision):
        say(f"  {sentence}")
    if asked is not None and at is None:
        end = moment(override.until_unix_ms)
        note(f"{_consumers(asked)} by hand {f'until {end}' if end else 'until `penstock scale --auto`'}")
    return Exit.OK


def _heading(decision: Decision) -> str:
    when = datetime.fromtimestamp(decision.unix_ms / 1000).astimezone()
    return f"pool {decision.pool}, {when:%Y-%m-%d %H:%M:%S %Z}, by {decision.scaler}:"


def _consumers(count: int) -> str:
    return "1 consumer" if count == 1 else f"{count} consumers"


def _pool(invocation: Invocation) -> str:
    return checked_name(invocation.arguments.pool or config_of(invocation).client.pool, "pool")


async def _connected(invocation: Invocation) -> Broker:
    config = config_of(invocation)
    return await connect(config.broker, name="penstock scale", url=broker_url(config, invocation))
