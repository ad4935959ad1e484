"""`penstock submit`, `stream` and `result`: one job at a time."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from producer.cli import promises
from producer.cli.exits import Exit
from producer.cli.main import Invocation
from producer.cli.settings import client_of
from producer.cli.terminal import is_stdout_terminal, note, say, say_json
from producer.cli.times import deadline_of, seconds_of
from producer.events import Event, Restarted, text_in
from producer.handle import Handle, Stream
from producer.replay import texts_of
from producer.request import Request
from schemas.errors import ConfigError, ResultPending
from schemas.frames import Finished
from schemas.job import Endpoint
from schemas.result import Result
from schemas.subjects import backlog_stream

_ENDPOINTS = {
    "chat": Endpoint.CHAT.value,
    "completions": Endpoint.COMPLETIONS.value,
    "embeddings": Endpoint.EMBEDDINGS.value,
}


def submit(invocation: Invocation) -> int:
    return asyncio.run(_submit(invocation))


def stream(invocation: Invocation) -> int:
    return asyncio.run(_stream(invocation))


def result(invocation: Invocation) -> int:
    return asyncio.run(_result(invocation))


async def _submit(invocation: Invocation) -> int:
    arguments = invocation.arguments
    request = request_of(arguments)
    async with client_of(invocation) as client:
        handle = await client.submit(request)
        if arguments.wait:
            return _show_result(await _waited(handle, arguments), as_json=arguments.json)
        is_waiting = handle.queue == backlog_stream(handle.pool)
        promise = handle.promise or (await handle.eta() if is_waiting else None)
        if is_waiting and promise is None and await client.look() is None:
            note(f"no dispatcher answers for pool {handle.pool}, the job waits for one; start it: penstock dispatcher")
        if arguments.json:
            say_json({**_told(handle), "promise": promise})
        else:
            say(handle.id)
            if promise is not None:
                note(promises.told(promise, datetime.now(UTC).astimezone()))
            if is_stdout_terminal():
                again = " (submitted before)" if handle.duplicate else ""
                note(f"queued in pool {handle.pool}{again}; next: penstock stream --job {handle.id}")
    return Exit.OK


async def _stream(invocation: Invocation) -> int:
    arguments = invocation.arguments
    if (arguments.job is None) == (arguments.text is None and arguments.body is None):
        raise ConfigError("give a TEXT, --body or --job: exactly one of them", param="TEXT")
    timeout_s = _timeout(arguments)
    async with client_of(invocation) as client:
        stream = client.stream(arguments.job) if arguments.job else client.stream(request_of(arguments))
        try:
            async with asyncio.timeout(timeout_s):
                return await _show_stream(stream, as_json=arguments.json)
        except TimeoutError:
            raise ResultPending(f"no end within {timeout_s:g} s; the job goes on") from None
        except asyncio.CancelledError:
            if not arguments.job:
                await _cancel_abandoned(stream)
            raise


async def _cancel_abandoned(stream: Stream) -> None:
    """Ctrl-C on a job that was submitted to be watched means that nobody wants it any more."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
    with contextlib.suppress(Exception):
        async with asyncio.timeout(2):
            handle = await stream.handle()
            ended = await handle.cancel()
            note(f"\n{ended.status}")


async def _result(invocation: Invocation) -> int:
    arguments = invocation.arguments
    async with client_of(invocation) as client:
        timeout_s = _timeout(arguments)
        wait_s = timeout_s if timeout_s is not None else (None if arguments.wait else 0.0)
        try:
            found = await client.result(arguments.job, wait_s)
        except ResultPending:
            if arguments.wait or timeout_s is not None:
                raise
            raise ResultPending(f"job {arguments.job} has no result yet; --wait waits for it") from None
        return _show_result(found, as_json=arguments.json)


def request_of(arguments: argparse.Namespace) -> Request:
    """
    Raises:
        ConfigError: an argument is wrong; `param` names it.
    """
    endpoint: str = arguments.endpoint
    endpoint = _ENDPOINTS.get(endpoint, endpoint)
    now = datetime.now(UTC).astimezone()
    return Request(
        body=_body(arguments, endpoint),
        endpoint=endpoint,
        lane=arguments.lane,
        priority=arguments.priority,
        deadline=deadline_of(arguments.deadline, now) if arguments.deadline else None,
        job_id=arguments.job_id,
        idempotency_key=arguments.key,
        custom_id=arguments.custom_id,
        not_before=deadline_of(arguments.not_before, now, "--not-before") if arguments.not_before else None,
        window=arguments.window,
        batch=arguments.batch,
        best_effort=arguments.best_effort,
        # Anybody may want to look on from another terminal.
        stream="kept",
    )


def _body(arguments: argparse.Namespace, endpoint: str) -> dict[str, Any] | bytes:
    if (arguments.text is None) == (arguments.body is None):
        raise ConfigError("give a TEXT or --body FILE, one of them", param="TEXT")
    more = {"model": arguments.model, "max_tokens": arguments.max_tokens, "temperature": arguments.temperature}
    given = {key: value for key, value in more.items() if value is not None}
    if arguments.text is not None:
        if endpoint == Endpoint.COMPLETIONS:
            return {"prompt": arguments.text, **given}
        if endpoint == Endpoint.EMBEDDINGS:
            return {"input": arguments.text, **given}
        return {"messages": [{"role": "user", "content": arguments.text}], **given}
    try:
        raw = sys.stdin.buffer.read() if arguments.body == "-" else Path(arguments.body).read_bytes()
    except OSError as error:
        raise ConfigError(f"--body {arguments.body}: {error.strerror}", param="--body") from error
    if not given:
        return raw
    try:
        return {**msgspec.json.decode(raw, type=dict[str, Any]), **given}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--body {arguments.body} is not one JSON object: {error}", param="--body") from error


def _timeout(arguments: argparse.Namespace) -> float | None:
    return None if arguments.timeout is None else seconds_of(arguments.timeout, "--timeout")


async def _waited(handle: Handle, arguments: argparse.Namespace) -> Result:
    return await handle.result(_timeout(arguments))


async def _show_stream(stream: Stream, *, as_json: bool) -> int:
    ended: Result | None = None
    last = "\n"
    async for event in stream:
        if as_json:
            say_json(_event_json(event))
        elif text := text_in(event):
            say(text, end="")
            last = text[-1]
        elif isinstance(event, Restarted):
            note("\n— another consumer took over and says something else; from the start: —")
        if isinstance(event, Finished):
            ended = event.result
    assert ended is not None
    if not as_json:
        if last != "\n":
            say()
        _show_failure(ended)
    return Exit.OK if ended.is_completed else Exit.JOB_FAILED


def _event_json(event: Event) -> Any:
    if isinstance(event, Restarted):
        return {"type": "restarted", **msgspec.to_builtins(event)}
    return event


def _show_result(ended: Result, *, as_json: bool) -> int:
    if as_json:
        say_json(ended)
    elif ended.is_completed:
        texts = texts_of(bytes(ended.body))
        say("\n".join(texts[index] for index in sorted(texts)) if texts else bytes(ended.body).decode())
    else:
        _show_failure(ended)
    return Exit.OK if ended.is_completed else Exit.JOB_FAILED


def _show_failure(ended: Result) -> None:
    if not ended.is_completed:
        note(f"penstock: job {ended.id} {ended.status}: {ended.error.message if ended.error else 'no reason given'}")


def _told(handle: Handle) -> dict[str, Any]:
    return {
        "job": handle.id,
        "pool": handle.pool,
        "tenant": handle.tenant,
        "lane": handle.lane,
        "seq": handle.seq,
        "duplicate": handle.duplicate,
    }
