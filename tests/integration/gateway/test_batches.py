"""Files and batches by OpenAI's own client: a real socket, a real broker, a consumer on the simulated engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types import Batch

from tests.support.consumer import ConsumerProcess, DispatcherProcess
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer

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


Story = Callable[[openai.AsyncOpenAI], Awaitable[None]]


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


def test_what_is_wrong_with_the_input_is_said_after_the_create_with_line_numbers(shared: tuple[str, Path]) -> None:
    cases: dict[str, tuple[list[bytes], list[tuple[str, int | None]]]] = {
        "empty": ([b"\n \n"], [("empty_file", None)]),
        "json": ([line("a"), b"{no\n", b"\xff\n"], [("invalid_json_line", 2), ("invalid_json_line", 3)]),
        "twice": ([line("a"), line("b"), line("a")], [("duplicate_custom_id", 3)]),
        "url": ([line("a"), line("b", url="/v1/completions")], [("url_mismatch", 2)]),
        "model": ([line("a"), line("b", model="other")], [("model_mismatch", 2)]),
        "many": ([line(f"{n}") for n in range(8)], [("too_many_tasks", None)]),
        "long": ([line("a"), line("b", user="x" * 1_200_000)], [("invalid_json_line", 2)]),
    }

    async def story(client: openai.AsyncOpenAI) -> None:
        for lines, expected in cases.values():
            batch = await created(client, *lines)
            assert batch.status == "validating"
            done = await ended(client, batch.id)
            assert done.status == "failed"
            assert done.failed_at
            assert done.errors is not None
            assert [(one.code, one.line) for one in done.errors.data or []] == expected
            assert done.output_file_id is None

    with_gateway(shared, story, "--gateway.batch_lines_max", "7")


def test_a_create_that_cannot_be_is_refused_at_once_and_names_the_field(shared: tuple[str, Path]) -> None:
    async def story(client: openai.AsyncOpenAI) -> None:
        file = await uploaded(client, line("a"))
        other = (await client.files.create(file=("x", b"x"), purpose="user_data")).id
        good: dict[str, Any] = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"input_file_id": "file-none"}, "input_file_id"),
            ({"input_file_id": "../x"}, "input_file_id"),
            ({"input_file_id": other}, "input_file_id"),
            ({"endpoint": "/v1/nothing"}, "endpoint"),
            ({"completion_window": "soon"}, "completion_window"),
            ({"completion_window": "10d"}, "completion_window"),
            ({"completion_window": "nanh"}, "completion_window"),
            ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
            ({"metadata": {"x": "y" * 513}}, "metadata[...]"),
            ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after.seconds"),
        ]
        for change, param in wrong:
            with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as refused:
                await client.batches.create(**{**good, **change})
            assert refused.value.param == param, change
        with pytest.raises(openai.NotFoundError):
            await client.batches.retrieve("batch_none")
        with pytest.raises(openai.NotFoundError):
            await client.batches.cancel("batch_none")
        for query in ("limit=0", "limit=101", "limit=x"):
            with pytest.raises(openai.BadRequestError):
                await client.get(f"/batches?{query}", cast_to=object)

    with_gateway(shared, story)


def test_an_upload_that_cannot_be_is_refused_and_leaves_nothing(shared: tuple[str, Path], tmp_path: Path) -> None:
    async def story(client: openai.AsyncOpenAI) -> None:
        for purpose in ("", "everything", "batch_output"):
            with pytest.raises(openai.BadRequestError) as refused:
                await client.files.create(file=("x", b"x"), purpose=purpose)  # type: ignore[arg-type]
            assert refused.value.param == "purpose"
        with pytest.raises(openai.APIStatusError) as large:
            await client.files.create(file=("x", b"x" * 5_000_001), purpose="batch")
        assert large.value.status_code == 413
        for seconds in ("1", "x", "9999999"):
            with pytest.raises(openai.BadRequestError):
                await client.files.create(
                    file=("x", b"x"),
                    purpose="batch",
                    expires_after={"anchor": "created_at", "seconds": seconds},  # type: ignore[typeddict-item]
                )
        form = "multipart/form-data"
        async with httpx.AsyncClient() as plain:
            for body, kind in ((b"", form), (b"--x\r\n", f"{form}; boundary=x"), (b"{}", "a/b")):
                answer = await plain.post(f"{client.base_url}files", content=body, headers={"content-type": kind})
                assert answer.status_code == 400
                assert answer.json()["error"]["param"] in ("content-type", "body")
        async with asyncio.timeout(10):
            while any(path.is_file() for path in (tmp_path / "files").rglob("*")):
                await asyncio.sleep(0.05)

    with_gateway(shared, story, "--gateway.files_url", str(tmp_path / "files"), "--gateway.file_bytes_max", "5000000")


def test_the_same_create_within_a_minute_or_with_the_same_key_is_one_batch(shared: tuple[str, Path]) -> None:
    async def story(client: openai.AsyncOpenAI) -> None:
        file = await uploaded(client, line("a"))
        asked: dict[str, Any] = {
            "input_file_id": file,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        }
        batches = await asyncio.gather(*(client.batches.create(**asked) for _ in range(5)))
        assert len({batch.id for batch in batches}) == 1
        other = await client.batches.create(**asked, metadata={"x": "y"})
        assert other.id != batches[0].id
        keyed = [await client.batches.create(**asked, extra_headers={"Idempotency-Key": "k"}) for _ in range(2)]
        assert keyed[0].id == keyed[1].id != batches[0].id
        with pytest.raises(openai.UnprocessableEntityError):
            await client.batches.create(**asked, metadata={"x": "z"}, extra_headers={"Idempotency-Key": "k"})

    with_gateway(shared, story)


def test_a_cancel_keeps_what_is_done_and_the_rest_says_so(tmp_path: Path, own_nats: NatsServer) -> None:
    async def story(client: openai.AsyncOpenAI) -> None:
        lines = [line(f"c{n}", max_tokens=5 if n < 20 else 2000, ignore_eos=True) for n in range(300)]
        batch = await created(client, *lines)
        partial = await reached(client, batch.id, lambda one: one.output_file_id and one.request_counts.completed >= 20)
        early = await lines_of(client, partial.output_file_id)
        assert len(early) >= 20
        with pytest.raises(openai.ConflictError):
            await client.files.delete(partial.output_file_id or "")
        with pytest.raises(openai.ConflictError):
            await client.files.delete(partial.input_file_id)

        cancelling = await client.batches.cancel(batch.id)
        assert cancelling.status == "cancelling"
        done = await ended(client, batch.id)

        assert done.status == "cancelled"
        assert (await client.batches.cancel(batch.id)).status == "cancelled"
        assert done.cancelled_at
        output, errors = await lines_of(client, done.output_file_id), await lines_of(client, done.error_file_id)
        assert [one["custom_id"] for one in early] == [one["custom_id"] for one in output][: len(early)]
        assert sorted(one["custom_id"] for one in [*output, *errors]) == sorted(f"c{n}" for n in range(300))
        assert {one["error"]["code"] for one in errors} == {"batch_cancelled"}
        assert all(one["response"] is None for one in errors)
        assert done.request_counts is not None
        assert done.request_counts.completed == len(output)
        assert done.request_counts.failed == len(errors)

    with_consumer(own_nats, tmp_path, story)


def test_a_batch_expires_at_the_end_of_its_window_with_what_it_has(tmp_path: Path, own_nats: NatsServer) -> None:
    async def story(client: openai.AsyncOpenAI) -> None:
        lines = [line(f"e{n}", max_tokens=4 if n < 10 else 4000, ignore_eos=True) for n in range(100)]
        done = await ended(client, (await created(client, *lines, window="4s")).id)

        assert done.status == "expired"
        assert done.expired_at
        output, errors = await lines_of(client, done.output_file_id), await lines_of(client, done.error_file_id)
        assert sorted(one["custom_id"] for one in [*output, *errors]) == sorted(f"e{n}" for n in range(100))
        assert len(output) >= 10
        assert {one["error"]["code"] for one in errors} == {"batch_expired"}

    with_consumer(own_nats, tmp_path, story, dispatched=True)


def test_a_batch_cancelled_before_it_began_never_begins(shared: tuple[str, Path]) -> None:
    async def story(client: openai.AsyncOpenAI) -> None:
        # No consumer serves it, and the gateway waits a while for one to come.
        batch = await created(client, line("a", model="not-there-yet"))
        await client.batches.cancel(batch.id)
        done = await ended(client, batch.id)
        assert done.status == "cancelled"
        assert done.in_progress_at is None

    with_gateway(shared, story)


def test_all_lines_failed_is_a_completed_batch_without_output(shared: tuple[str, Path]) -> None:
    async def story(client: openai.AsyncOpenAI) -> None:
        done = await ended(client, (await created(client, line("a", messages=[]), line("b", messages=[]))).id)
        assert done.status == "completed"
        assert done.output_file_id is None
        assert len(await lines_of(client, done.error_file_id)) == 2

    with_gateway(shared, story)


def with_consumer(nats: NatsServer, folder: Path, story: Story, *, dispatched: bool = False) -> None:
    """With a consumer whose engine takes its time, and maybe a dispatcher."""

    async def whole() -> None:
        async with contextlib.AsyncExitStack() as life:
            consumer = ConsumerProcess(nats.url, folder, "--engine.step_s", "0.01", "--engine.sequences_max", "32")
            await life.enter_async_context(consumer)
            if dispatched:
                await life.enter_async_context(DispatcherProcess(nats.url, folder))
            gateway = await life.enter_async_context(GatewayProcess(nats.url, folder))
            try:
                async with gateway.openai() as client:
                    await story(client)
            except BaseException:
                print(gateway.log)
                raise

    run(whole)
