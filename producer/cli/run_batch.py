"""`penstock run-batch`: with the broker that runs here, or with one of its own for the time of the run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from rich.console import Console

from infra import embedded, settings
from infra.children import LogLine
from producer.batch import files, progress
from producer.batch.run import Order, Plan, Run, discard, plan
from producer.batch.summary import show_summary
from producer.cli.exits import Exit
from producer.cli.local_consumers import consumer_arguments
from producer.cli.main import Invocation
from producer.cli.settings import broker_url, config_of
from producer.cli.terminal import note, say_json
from producer.cli.times import deadline_of
from producer.client import Client
from producer.local.fleet import Fleet, Spec, Watcher
from producer.request import lane_of
from schemas.config import Config
from schemas.errors import ConfigError
from schemas.subjects import checked_name


def run_batch(invocation: Invocation) -> int:
    try:
        return asyncio.run(_run_batch(invocation))
    except (KeyboardInterrupt, asyncio.CancelledError):
        note("interrupted; the same command goes on where it stopped")
        return Exit.INTERRUPTED


async def _run_batch(invocation: Invocation) -> int:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    arguments = invocation.arguments
    config = config_of(invocation, more=["--engine.model", arguments.model] if arguments.model else None)
    order = order_of(invocation)
    if arguments.overwrite:
        discard(order.output)
        _remove_broker(order.output)
    planned = plan(
        order,
        broker=await asyncio.to_thread(_which_broker, config, invocation),
        pool=arguments.pool or config.client.pool,
        tenant=arguments.tenant or config.client.tenant,
        run_id=os.urandom(8).hex(),
    )
    if planned is None:
        note(f"{order.output} answers every line already; --overwrite runs it again")
        if arguments.json:
            say_json({"done": 0, "failed": 0, "complete": True, "output": str(order.output)})
        return Exit.OK
    console = Console(stderr=True)
    run = Run(planned, time.monotonic)
    async with _broker(planned, config, invocation, console) as url:
        pool, tenant = planned.sidecar.pool, planned.sidecar.tenant
        async with Client(url, pool=pool, tenant=tenant, config=config) as client:
            if planned.sidecar.broker == "shared" and arguments.model:
                await _check_model(client, arguments.model)
            async with progress.shown(lambda: run.stats, planned.lines, time.monotonic, console):
                summary = await run.run(client)
    _remove_broker(order.output)
    if arguments.json:
        say_json(summary)
    else:
        show_summary(summary, console)
    return Exit.JOB_FAILED if arguments.strict and (summary.failed or run.stats.failed_before) else Exit.OK


def order_of(invocation: Invocation) -> Order:
    """
    Raises:
        ConfigError, JobMalformed: an argument is wrong; `param` names it.
    """
    arguments = invocation.arguments
    if arguments.concurrency < 1:
        raise ConfigError(f"--concurrency must be at least 1, not {arguments.concurrency}", param="--concurrency")
    now = datetime.now(UTC).astimezone()
    return Order(
        input=Path(arguments.input),
        output=Path(arguments.output),
        concurrency=arguments.concurrency,
        lane=lane_of(arguments.lane).value,
        priority=arguments.priority,
        deadline=deadline_of(arguments.deadline, now) if arguments.deadline else None,
        is_best_effort=arguments.best_effort,
        batch=checked_name(arguments.batch, "batch") if arguments.batch else "",
        is_streamed=arguments.stream,
    )


def _which_broker(config: Config, invocation: Invocation) -> Literal["own", "shared"]:
    if invocation.arguments.own:
        return "own"
    try:
        embedded.discover(config.broker, settings.data_dir(config, invocation.environment))
    except ConfigError:
        return "own"
    return "shared"


@contextlib.asynccontextmanager
async def _broker(planned: Plan, config: Config, invocation: Invocation, console: Console) -> AsyncGenerator[str]:
    """The url of a broker with a consumer, for the time of the run."""
    if planned.sidecar.broker == "shared":
        yield broker_url(config, invocation)
        return
    spec = Spec(
        config=config,
        consumer_arguments=consumer_arguments(invocation, pool=planned.sidecar.pool),
        environment=_without_url(invocation.environment),
        broker_dir=files.broker_dir(planned.order.output),
    )
    # Before the broker's folder appears, so that a kill in between leaves nothing that a second run would not find.
    files.write_sidecar(planned.order.output, planned.sidecar)
    async with Fleet(spec, _Deaths()) as fleet:
        what = f"{config.engine.kind} with model {config.engine.model}"
        with console.status(f"starting {what} …") if console.is_terminal else contextlib.nullcontext():
            if not console.is_terminal:
                note(f"starting {what} …")
            await fleet.wait_ready()
        failing = asyncio.create_task(fleet.wait_failed())
        running = asyncio.current_task()
        assert running is not None
        failing.add_done_callback(lambda task: None if task.cancelled() else running.cancel())
        try:
            yield fleet.url
        except asyncio.CancelledError:
            if failing.done() and not failing.cancelled():
                running.uncancel()
                failing.result()
            raise
        finally:
            failing.cancel()
            await asyncio.gather(failing, return_exceptions=True)
            # What is still running is in the queue and comes again; nobody waits for it now.
            fleet.skip_grace.set()


class _Deaths(Watcher):
    def on_line(self, consumer: str, line: LogLine) -> None: ...

    def on_death(self, consumer: str, reason: str, restart_in_s: float | None) -> None:
        if restart_in_s is not None:
            note(f"{consumer} died: {reason}; starting again in {restart_in_s:g} s")


def _without_url(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name != "PENSTOCK__BROKER__URL"}


def _remove_broker(output: Path) -> None:
    shutil.rmtree(files.broker_dir(output), ignore_errors=True)


async def _check_model(client: Client, model: str) -> None:
    pools = [pool for pool in await client.pools() if pool.pool == client.pool]
    served = sorted({name for pool in pools for name in pool.models})
    if served and model not in served:
        raise ConfigError(
            f"--model {model}: the running consumers of pool {client.pool} serve {', '.join(served)}; "
            f"leave --model out, or add --own for a consumer of this run's own",
            param="--model",
        )
