"""Files and batches by OpenAI's own client: a real socket, a real broker, a consumer on the simulated engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Batch

from tests.support.gateway import GatewayProcess

SLOW = ("--engine.step_s", "0.02")
ENDED = {"completed", "failed", "expired", "cancelled"}


def run(story: Callable[[], Awaitable[None]], limit_s: float = 60.0) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(limit_s):
            await story()

    asyncio.run(bounded())


def line(custom_id: str, *, url: str = "/v1/chat/completions", **body: Any) -> bytes:
    body = {"model": "tiny", "messages": [{"role": "user", "content": f"About {custom_id}"}], "max_tokens": 4, **body}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body}).encode() + b"\n"


async def uploaded(client: openai.AsyncOpenAI, *lines: bytes) -> str:
    return (await client.files.create(file=("in.jsonl", b"".join(lines)), purpose="batch")).id


async def created(client: openai.AsyncOpenAI, *lines: bytes, window: str = "24h", **more: Any) -> Batch:
    return await client.batches.create(
        input_file_id=await uploaded(client, *lines),
        endpoint="/v1/chat/completions",
        completion_window=window,  # type: ignore[arg-type]
        **more,
    )


async def ended(client: openai.AsyncOpenAI, batch_id: str) -> Batch:
    return await reached(client, batch_id, lambda batch: batch.status in ENDED)


async def reached(client: openai.AsyncOpenAI, batch_id: str, wanted: Callable[[Batch], object]) -> Batch:
    while True:
        batch = await client.batches.retrieve(batch_id)
        if wanted(batch):
            return batch
        await asyncio.sleep(0.05)


async def lines_of(client: openai.AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    text = (await client.files.content(file_id)).text
    return [json.loads(one) for one in text.splitlines()]


def with_gateway(
    shared: tuple[str, Path], story: Callable[[openai.AsyncOpenAI], Awaitable[None]], *arguments: str
) -> None:
    async def whole() -> None:
        async with GatewayProcess(*shared, *arguments) as gateway:
            try:
                async with gateway.openai() as client:
                    await story(client)
            except BaseException:
                print(gateway.log)
                raise

    run(whole)


def test_a_file_goes_in_and_out_and_is_listed_and_deleted(shared: tuple[str, Path]) -> None:
    async def story(client: openai.AsyncOpenAI) -> None:
        content = b"\x00anything\r\n--boundary\n" * 700_000
        first = await client.files.create(file=("a b.jsonl", content), purpose="batch")
        second = await client.files.create(
            file=("c.jsonl", b""), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}
        )

        assert (first.bytes, first.filename, first.purpose, first.status) == (
            len(content),
            "a b.jsonl",
            "batch",
            "processed",
        )
        assert first.expires_at == first.created_at + 30 * 24 * 3600
        assert second.expires_at == second.created_at + 3600
        assert (await client.files.content(first.id)).content == content
        assert (await client.files.content(second.id)).content == b""
        assert [one.id async for one in client.files.list(limit=1)][:2] == [second.id, first.id]
        assert [one.id async for one in client.files.list(purpose="user_data")] == [second.id]
        oldest = [one.id async for one in client.files.list(order="asc", limit=1)]
        assert oldest.index(first.id) < oldest.index(second.id)
        assert (await client.files.delete(first.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await client.files.content(first.id)
        assert first.id not in [one.id async for one in client.files.list()]

    with_gateway(shared, story)


def test_a_batch_runs_to_its_end_with_output_and_error_files(shared: tuple[str, Path]) -> None:
    async def story(client: openai.AsyncOpenAI) -> None:
        good = [line(f"good-{n}") for n in range(20)]
        bad = [line("bad", max_tokens="many"), line("worse", messages=[])]
        batch = await created(client, *good, *bad, metadata={"who": "me"})
        assert batch.status == "validating"

        done = await ended(client, batch.id)

        assert done.status == "completed", done
        assert done.metadata == {"who": "me"}
        assert done.request_counts is not None
        assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (22, 20, 2)
        assert None not in (done.in_progress_at, done.finalizing_at, done.completed_at, done.expires_at)
        output = await lines_of(client, done.output_file_id)
        assert sorted(one["custom_id"] for one in output) == sorted(f"good-{n}" for n in range(20))
        assert all(one["response"]["status_code"] == 200 and one["error"] is None for one in output)
        assert {one["response"]["body"]["object"] for one in output} == {"chat.completion"}
        errors = await lines_of(client, done.error_file_id)
        assert sorted(one["custom_id"] for one in errors) == ["bad", "worse"]
        assert all(
            one["response"]["status_code"] == 400 and one["response"]["body"]["error"]["message"] for one in errors
        )
        assert done.usage is not None
        assert done.usage.output_tokens == sum(one["response"]["body"]["usage"]["completion_tokens"] for one in output)
        file = await client.files.retrieve(done.output_file_id or "")
        assert (file.purpose, file.bytes) == ("batch_output", len((await client.files.content(file.id)).content))
        assert batch.id in [one.id async for one in client.batches.list(limit=1)]

    with_gateway(shared, story)
