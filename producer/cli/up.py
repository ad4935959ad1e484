"""`penstock up`: a broker, consumers, a dispatcher and a gateway on this machine until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Coroutine
from typing import Any

import msgspec

from infra import life, settings
from producer.cli.exits import Exit
from producer.cli.local_consumers import LogView, consumer_arguments, scaler_arguments, shared_arguments
from producer.cli.main import Invocation
from producer.cli.settings import config_of
from producer.cli.terminal import is_terminal, note, say, say_json
from producer.local.addresses import listening, url_of
from producer.local.fleet import Fleet, Spec
from schemas.config import Config
from schemas.errors import ConfigError


def up(invocation: Invocation) -> int:
    return asyncio.run(_up(invocation))


async def _up(invocation: Invocation) -> int:
    arguments = invocation.arguments
    config = config_of(invocation, more=["--engine.model", arguments.model] if arguments.model else None)
    if arguments.consumers < 1:
        raise ConfigError("--consumers must be at least 1; --no-consumer starts only the rest", param="--consumers")
    if arguments.consumers_max is not None and (arguments.consumers_max < 1 or not arguments.scale):
        raise ConfigError("--max is the most consumers that --scale may start: at least 1", param="--max")
    with contextlib.ExitStack() as held:
        gateway = None if arguments.no_gateway else held.enter_context(_gateway_socket(config))
        return await _run(invocation, config, gateway)


async def _run(invocation: Invocation, config: Config, gateway: socket.socket | None) -> int:
    arguments = invocation.arguments
    stop = life.on_signals(asyncio.get_running_loop())
    fleet = Fleet(_spec(invocation, config, gateway), LogView(is_verbose=arguments.verbose))
    async with fleet:
        note(f"broker ready at {fleet.url}")
        if gateway:
            note(_where(gateway, config.gateway.port))
        if arguments.scale:
            note("no consumer yet: the first job starts one")
        elif not arguments.no_consumer:
            note(f"starting {config.engine.kind} with model {config.engine.model} …")
        if await _unless_stopped(stop, fleet.wait_ready()):
            _show_ready(config, fleet, url_of(gateway) if gateway else "", as_json=arguments.json)
            await _unless_stopped(stop, fleet.wait_failed())
        note("stopping; running jobs may finish within the grace (Ctrl-C again: now)")
        skipping = asyncio.create_task(_skip(stop, fleet))
        await fleet.stop()
        skipping.cancel()
    note("stopped; jobs that were not finished wait in the queue for the next start")
    return Exit.OK


def _gateway_socket(config: Config) -> socket.socket:
    """Somebody else's port is no reason not to start.

    Raises:
        ConfigError: the address is not ours.
    """
    host, wanted = config.gateway.host, config.gateway.port
    try:
        return listening(host, wanted)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}: {error.strerror}; see gateway.host", param="gateway.host"
        ) from error


def _where(gateway: socket.socket, wanted: int) -> str:
    url = url_of(gateway)
    if wanted in {0, gateway.getsockname()[1]}:
        return f"gateway at {url}"
    return f"gateway at {url}: port {wanted} is taken (choose one with --gateway.port)"


def _spec(invocation: Invocation, config: Config, gateway: socket.socket | None) -> Spec:
    arguments = invocation.arguments
    fd = gateway.fileno() if gateway else -1
    return Spec(
        config=config,
        consumers=0 if arguments.no_consumer or arguments.scale else arguments.consumers,
        consumer_arguments=consumer_arguments(invocation, pool=config.consumer.pool),
        has_dispatcher=not arguments.no_dispatcher,
        dispatcher_arguments=shared_arguments(invocation),
        scaler_arguments=scaler_arguments(invocation, config) if arguments.scale else [],
        gateway_fd=fd,
        # A pool without consumers is no reason to refuse a request where the scaler starts one.
        gateway_arguments=[
            *("--listening-fd", str(fd)),
            *(_for_later(config) if arguments.scale else ()),
            *shared_arguments(invocation),
        ],
        environment=invocation.environment,
        broker_dir=None if config.broker.url else settings.data_dir(config, invocation.environment),
        url=config.broker.url,
    )


def _for_later(config: Config) -> list[str]:
    """What a gateway must be told of a pool in which nobody may be there to ask."""
    models = msgspec.json.encode({config.engine.model: config.consumer.pool}).decode()
    return ["--gateway.wait_for_consumers", "true", "--gateway.models", models]


async def _unless_stopped(stop: life.Stop, work: Coroutine[Any, Any, None]) -> bool:
    """Whether `work` came to its end before somebody wanted to stop."""
    working = asyncio.create_task(work)
    requested = asyncio.create_task(stop.requested.wait())
    try:
        await asyncio.wait((working, requested), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
            return True
        return False
    finally:
        for task in (working, requested):
            task.cancel()
        await asyncio.gather(working, requested, return_exceptions=True)


async def _skip(stop: life.Stop, fleet: Fleet) -> None:
    await stop.skip_grace.wait()
    fleet.skip_grace.set()


def _show_ready(config: Config, fleet: Fleet, gateway_url: str, *, as_json: bool) -> None:
    if as_json:
        pids = {"consumer_pids": fleet.consumer_pids, "dispatcher_pid": fleet.dispatcher_pid}
        pids["scaler_pid"] = fleet.scaler_pid
        gateway = {"gateway_url": gateway_url, "gateway_pid": fleet.gateway_pid}
        say_json({"ready": True, "url": fleet.url, "pool": config.consumer.pool, **pids, **gateway})
        return
    consumers = ", ".join(f"pid {pid}" for pid in fleet.consumer_pids)
    if fleet.scaler_pid:
        consumers = f"as needed, by the scaler (pid {fleet.scaler_pid}); `penstock explain` says why"
    bold, plain = ("\x1b[1m", "\x1b[0m") if is_terminal() else ("", "")
    say(f"""
{bold}penstock is up.{plain}
  broker     {fleet.url}{f" (pid {fleet.broker_pid})" if fleet.broker_pid else ""}
  pool       {config.consumer.pool}
  model      {config.engine.model} on {config.engine.kind}
  dispatcher {f"pid {fleet.dispatcher_pid}" if fleet.dispatcher_pid else "none"}
  consumers  {consumers or "none"}
  gateway    {f"{gateway_url}/v1 (pid {fleet.gateway_pid})" if gateway_url else "none"}
{
        f'''
  open {gateway_url}
'''
        if gateway_url
        else ""
    }
Next, in another terminal:
  penstock stream "Tell me about rivers"
  penstock run-batch -i requests.jsonl -o answers.jsonl
  penstock jobs
Ctrl-C stops everything; queued jobs and results are kept.
""")
