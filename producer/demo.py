"""`make demo`: a broker, a consumer on vLLM and a file of requests, from nothing to answers; leaves nothing running.

Everything it keeps lies in `./.penstock`. Any setting may be given: `python -m producer.demo --engine.model NAME`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Generator
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from infra import settings
from infra.life import on_signals
from producer.batch import progress
from producer.batch.files import Output, lines_of
from producer.batch.run import Order, Plan, Run, discard, plan
from producer.batch.stats import Summary
from producer.batch.summary import show_summary
from producer.cli.exits import Exit, exit_of
from producer.client import Client
from producer.events import Restarted
from producer.local.fleet import Fleet, Spec
from producer.replay import texts_of
from producer.request import Request
from schemas.batch_line import BatchLine, BatchOutput, decode_line, decode_output, encode_output, output_of
from schemas.config import Config
from schemas.errors import JobMalformed, PenstockError
from schemas.frames import Delta, Finished

HOME = Path(".penstock")
REQUESTS = Path(__file__).resolve().parent.parent / "examples" / "requests.jsonl"
# The lines that are wrong on purpose, by custom_id, and how they must fail.
EXPECTED_FAILURES = {"": "invalid_json_line", "over-context": "context_length_exceeded"}
SHOWN = "books-zh"


def main() -> int:
    console = Console(highlight=False, soft_wrap=True)
    logging.getLogger().addHandler(logging.NullHandler())
    environment = {"PENSTOCK__DATA_DIR": str(HOME.resolve()), **os.environ}  # noqa: TID251 - this is a main()
    try:
        config = settings.load_config("", sys.argv[1:], environment)
        return asyncio.run(_demo(config, environment, console))
    except PenstockError as error:
        console.print(f"[red]demo: {error.message}[/]")
        return exit_of(error)
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("interrupted; nothing is left running")
        return Exit.INTERRUPTED


async def _demo(config: Config, environment: dict[str, str], console: Console) -> int:
    folder = HOME / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    task = asyncio.current_task()
    assert task is not None
    stop = on_signals(asyncio.get_running_loop())
    stopping = asyncio.create_task(stop.requested.wait())
    stopping.add_done_callback(lambda done: None if done.cancelled() else task.cancel())
    spec = Spec(
        config=config,
        consumer_arguments=[*sys.argv[1:], "--consumer.pool", "demo"],
        environment=environment,
        broker_dir=folder / "broker",
    )
    try:
        async with contextlib.AsyncExitStack() as stack:
            console.print("[bold]penstock demo[/]: requests → NATS JetStream → vLLM → answers\n")
            fleet = await stack.enter_async_context(Fleet(spec))
            stack.callback(fleet.skip_grace.set)
            console.print(f"  broker      nats-server at {fleet.url}, syncing every write")
            await _until_ready(fleet, config, console)
            client = await stack.enter_async_context(Client(fleet.url, pool="demo", config=config))
            return await _run(client, folder, console)
    finally:
        stopping.cancel()


async def _until_ready(fleet: Fleet, config: Config, console: Console) -> None:
    what = f"{config.engine.kind} with model {config.engine.model}"
    begun = time.monotonic()
    if console.is_terminal:
        with console.status(f"starting {what}; the first time may take a minute or two …"):
            await fleet.wait_ready()
    else:
        await fleet.wait_ready()
    console.print(f"  consumer    {what}, ready after {time.monotonic() - begun:.0f} s\n")


async def _run(client: Client, folder: Path, console: Console) -> int:
    first, rest = split_requests(REQUESTS)
    results = folder / "demo-results.jsonl"
    remaining = folder / "requests-rest.jsonl"
    remaining.write_bytes(rest)
    discard(results)
    streamed = await _stream(client, first, console)
    order = Order(input=remaining, output=results, is_streamed=True)
    planned = plan(order, broker="own", pool="demo", tenant=client.tenant, run_id=os.urandom(8).hex())
    assert planned is not None
    summary = await _rest(client, planned, console)
    with Output(results) as output:
        output.append(encode_output(streamed), time.monotonic())
    return judged(results, summary, console)


async def _rest(client: Client, planned: Plan, console: Console) -> Summary:
    console.print(f"[bold]The other {planned.lines} lines[/] of {REQUESTS.name}, all at once:")
    run = Run(planned, time.monotonic)
    async with progress.shown(lambda: run.stats, planned.lines, time.monotonic, console):
        return await run.run(client)


async def _stream(client: Client, line: BatchLine, console: Console) -> BatchOutput:
    """One request, token by token."""
    prompt = msgspec.json.decode(line.body)["messages"][-1]["content"]
    console.print(f"[bold]One request, token by token[/] ({line.custom_id}):\n  {prompt}\n  ", end="")
    begun = time.monotonic()
    first_s = 0.0
    tokens = 0
    result = None
    async for event in client.stream(Request(body=line.body, endpoint=line.url, custom_id=line.custom_id)):
        if isinstance(event, Delta):
            first_s = first_s or time.monotonic() - begun
            tokens += event.tokens
            console.print(event.text.replace("\n", "\n  "), end="", style="cyan", markup=False)
        elif isinstance(event, Restarted):
            console.print("\n  (again, from the start)\n  ", end="")
        elif isinstance(event, Finished):
            result = event.result
    assert result is not None
    console.print(f"\n  {tokens} tokens, the first after {first_s * 1000:.0f} ms\n", style="dim")
    return output_of(result)


def split_requests(path: Path) -> tuple[BatchLine, bytes]:
    """The line to watch, and the text of all others."""
    lines = [text for _, text in lines_of(path)]
    # An empty line in its place, so that the others keep their numbers.
    return decode_line(lines[0]), b"\n" + b"\n".join(lines[1:]) + b"\n"


def judged(results: Path, summary: Summary, console: Console) -> int:
    """Prints what came of it; 0 when everything went as it should, the two bad lines included."""
    answers = {output.custom_id: output for output in _outputs(results)}
    schemas = dict(schemas_of(REQUESTS))
    wrong = [*wrong_failures(answers), *invalid_answers(answers, schemas)]
    shown = answers.get(SHOWN)
    if shown is not None and shown.response is not None:
        console.print(f"\n[bold]{SHOWN}[/], held to its JSON schema:\n  {text_of(shown)}")
    console.print("\n[bold]Summary[/]")
    total = msgspec.structs.replace(summary, done=summary.done + 1, output=str(results))
    show_summary(total, console)
    for custom_id, code in EXPECTED_FAILURES.items():
        output = answers.get(custom_id)
        if output is not None:
            console.print(f"  {'as meant':<12}{custom_id or 'the cut-off line'} failed: {reason_of(output) or code}")
    valid = len(schemas) - sum("schema" in one for one in wrong)
    console.print(f"  {'schemas':<12}{valid} of {len(schemas)} constrained answers are valid")
    for one in wrong:
        console.print(f"  [red]wrong[/]       {one}")
    return Exit.JOB_FAILED if wrong else Exit.OK


def wrong_failures(answers: dict[str, BatchOutput]) -> Generator[str]:
    """Lines that failed and should not have, or the other way round."""
    for custom_id, output in answers.items():
        reason = reason_of(output)
        expected = EXPECTED_FAILURES.get(custom_id)
        if expected is None and reason:
            yield f"{custom_id}: {reason}"
        elif expected is not None and expected not in f"{code_of(output)}":
            yield f"{custom_id or 'the malformed line'}: should fail with {expected}, but: {reason or 'completed'}"


def invalid_answers(answers: dict[str, BatchOutput], schemas: dict[str, Any]) -> Generator[str]:
    try:
        # Comes with vLLM; not worth a dependency of the client's.
        jsonschema: Any = import_module("jsonschema")
    except ModuleNotFoundError:
        yield "schema: the package jsonschema is missing, so nothing was validated"
        return
    for custom_id, schema in schemas.items():
        output = answers.get(custom_id)
        try:
            jsonschema.validate(msgspec.json.decode(text_of(output) if output else ""), schema)
        except (msgspec.DecodeError, jsonschema.ValidationError) as error:
            yield f"{custom_id}: not valid under its schema: {str(error).splitlines()[0]}"


def schemas_of(path: Path) -> Generator[tuple[str, Any]]:
    for _, text in lines_of(path):
        with contextlib.suppress(JobMalformed):
            line = decode_line(text)
            wanted = msgspec.json.decode(line.body).get("response_format", {}).get("json_schema")
            if wanted:
                yield line.custom_id, wanted["schema"]


def _outputs(path: Path) -> Generator[BatchOutput]:
    for _, text in lines_of(path):
        yield decode_output(text)


def text_of(output: BatchOutput) -> str:
    return texts_of(bytes(output.response.body)).get(0, "") if output.response else ""


def reason_of(output: BatchOutput) -> str:
    """Why it failed; empty when it did not."""
    return str(_error_of(output).get("message", ""))


def code_of(output: BatchOutput) -> str:
    return str(_error_of(output).get("code", ""))


def _error_of(output: BatchOutput) -> dict[str, Any]:
    if output.error is not None:
        return {"message": output.error.message, "code": output.error.code}
    assert output.response is not None
    if output.response.status_code == 200:
        return {}
    body: dict[str, Any] = msgspec.json.decode(output.response.body)
    return body.get("error", {})


if __name__ == "__main__":
    raise SystemExit(main())
