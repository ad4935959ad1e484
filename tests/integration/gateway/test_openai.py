"""The gateway as OpenAI's own client sees it: a real socket, a real broker, a consumer on the simulated engine."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from penstock import Client
from tests.support.consumer import ConsumerProcess
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer

SLOW = ("--engine.step_s", "0.02")
HELLO: list[Any] = [{"role": "user", "content": "Tell me of water"}]


def run(story: Callable[[], Awaitable[None]], limit_s: float = 60.0) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(limit_s):
            await story()

    asyncio.run(bounded())


def with_gateway(shared: tuple[str, Path], story: Callable[[GatewayProcess], Awaitable[None]], *arguments: str) -> None:
    async def whole() -> None:
        async with GatewayProcess(*shared, *arguments) as gateway:
            await story(gateway)

    run(whole)


async def until(question: Callable[[], Awaitable[bool]], limit_s: float = 10.0) -> None:
    async with asyncio.timeout(limit_s):
        while not await question():
            await asyncio.sleep(0.05)


def test_a_chat_is_answered_streamed_and_not_with_the_same_text(shared: tuple[str, Path]) -> None:
    async def story(gateway: GatewayProcess) -> None:
        async with gateway.openai() as client:
            ask: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 40, "temperature": 0}
            whole = await client.chat.completions.create(**ask)
            chunks = [
                chunk
                async for chunk in await client.chat.completions.create(
                    **ask, stream=True, stream_options={"include_usage": True}
                )
            ]

        text = whole.choices[0].message.content
        assert text
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == text
        assert chunks[0].choices[0].delta.role == "assistant"
        assert [chunk.choices[0].finish_reason for chunk in chunks[-2:-1]] == [whole.choices[0].finish_reason]
        assert all(chunk.usage is None for chunk in chunks[:-1])
        assert chunks[-1].choices == []
        assert chunks[-1].usage == whole.usage
        assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1
        assert chunks[0].object == "chat.completion.chunk"
        assert chunks[0].model == "tiny"

    with_gateway(shared, story)


def test_a_completion_streams_every_choice(shared: tuple[str, Path]) -> None:
    async def story(gateway: GatewayProcess) -> None:
        async with gateway.openai() as client:
            ask: dict[str, Any] = {"model": "tiny", "prompt": ["One", "Two"], "max_tokens": 8, "n": 2, "temperature": 1}
            whole = await client.completions.create(**ask)
            texts: dict[int, str] = {}
            ends: dict[int, str] = {}
            async for chunk in await client.completions.create(**ask, stream=True):
                for choice in chunk.choices:
                    texts[choice.index] = texts.get(choice.index, "") + choice.text
                    if choice.finish_reason:
                        ends[choice.index] = choice.finish_reason

        assert texts == {choice.index: choice.text for choice in whole.choices}
        assert ends == {choice.index: choice.finish_reason for choice in whole.choices}
        assert len(texts) == 4

    with_gateway(shared, story)


def test_embeddings_come_as_numbers_and_as_the_base64_that_the_client_asks_for_by_itself(
    shared: tuple[str, Path],
) -> None:
    async def story(gateway: GatewayProcess) -> None:
        async with gateway.openai() as client:
            by_default = await client.embeddings.create(model="tiny", input=["water", "stone"])
            plain = await client.embeddings.create(model="tiny", input="water", encoding_format="float")
        async with httpx.AsyncClient() as http:
            body = {"model": "tiny", "input": "water", "encoding_format": "base64"}
            raw = (await http.post(f"{gateway.url}/v1/embeddings", json=body)).json()["data"][0]["embedding"]

        vector = by_default.data[0].embedding
        assert vector == pytest.approx(plain.data[0].embedding, abs=1e-6)
        assert vector == pytest.approx(struct.unpack(f"<{len(vector)}f", base64.b64decode(raw)))
        assert by_default.usage.prompt_tokens > 0

    with_gateway(shared, story)


def test_models_are_what_live_consumers_serve_and_another_is_not_found(shared: tuple[str, Path]) -> None:
    async def story(gateway: GatewayProcess) -> None:
        async with gateway.openai() as client:
            assert [model.id async for model in client.models.list()] == ["tiny"]
            assert (await client.models.retrieve("tiny")).owned_by == "penstock"
            with pytest.raises(openai.NotFoundError) as missing:
                await client.chat.completions.create(model="gpt-9", messages=HELLO)
            with pytest.raises(openai.NotFoundError):
                await client.models.retrieve("org/none")

        assert missing.value.code == "model_not_found"
        assert "tiny" in missing.value.message
        assert missing.value.response.headers["x-request-id"].startswith("req_")

    with_gateway(shared, story)


def test_a_request_the_engine_refuses_is_a_400_that_names_the_field_also_where_a_stream_was_asked_for(
    shared: tuple[str, Path],
) -> None:
    async def story(gateway: GatewayProcess) -> None:
        async with gateway.openai() as client:
            for stream in (False, True):
                with pytest.raises(openai.BadRequestError) as refused:
                    await client.chat.completions.create(
                        model="tiny", messages=HELLO, max_tokens=10_000_000, stream=stream
                    )
                assert refused.value.param == "max_tokens"
                assert refused.value.code == "context_length_exceeded"

    with_gateway(shared, story)


def test_a_failure_in_mid_stream_is_an_error_event(shared: tuple[str, Path]) -> None:
    async def story(gateway: GatewayProcess) -> None:
        async with gateway.openai() as client:
            fault = {"simulated": {"fail": "raise", "after_tokens": 5}}
            stream = await client.chat.completions.create(
                model="tiny", messages=HELLO, max_tokens=50, stream=True, extra_body=fault
            )
            assert (await anext(stream)).choices[0].delta.role == "assistant"
            with pytest.raises(openai.APIError) as failed:
                [chunk async for chunk in stream]

        assert failed.value.body["code"] == "attempts_spent"

    with_gateway(shared, story, "--gateway.comment_interval_s", "1")


def test_a_stream_that_waits_says_so_until_its_turn_comes(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        # One at a time, so that the second waits.
        consumer = ConsumerProcess(own_nats.url, tmp_path, *SLOW, "--consumer.prefetch", "1")
        async with (
            consumer,
            GatewayProcess(own_nats.url, tmp_path, "--gateway.comment_interval_s", "0.2") as gateway,
            httpx.AsyncClient(base_url=gateway.url, timeout=20) as http,
            gateway.openai() as client,
        ):
            body = {"model": "tiny", "messages": HELLO, "max_tokens": 60, "ignore_eos": True, "stream": True}
            first = await client.chat.completions.create(
                model="tiny", messages=HELLO, max_tokens=60, stream=True, extra_body={"ignore_eos": True}
            )
            await anext(aiter(first))
            async with http.stream("POST", "/v1/chat/completions", json=body) as second:
                assert second.status_code == 200
                lines = [line async for line in second.aiter_lines() if line]

        assert lines.count(": waiting") >= 2
        assert lines[-1] == "data: [DONE]"

    run(story)


def test_who_hangs_up_ends_the_job_and_who_asked_for_background_does_not(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            ConsumerProcess(own_nats.url, tmp_path, *SLOW),
            GatewayProcess(own_nats.url, tmp_path) as gateway,
            gateway.openai() as client,
            Client(own_nats.url) as queue,
        ):
            for stream in (True, False):
                for background in (False, True):
                    headers = {"x-penstock-background": "true"} if background else {}

                    async def running(count: int = 1) -> bool:
                        return sum(job.state == "running" for job in await queue.jobs()) == count

                    asking = asyncio.create_task(
                        _drained(client, stream=stream, extra_headers=headers)  # cancelled: hangs up
                    )
                    await until(running)
                    asking.cancel()
                    await asyncio.gather(asking, return_exceptions=True)

                    async def ended() -> bool:
                        return await running(0)

                    await until(ended)
                    newest = (await queue.jobs())[0]
                    assert newest.state == ("completed" if background else "cancelled"), (stream, background)

    run(story)


async def _drained(client: openai.AsyncOpenAI, *, stream: bool, extra_headers: dict[str, str]) -> None:
    answer = await client.chat.completions.create(
        model="tiny",
        messages=HELLO,
        max_tokens=100,
        stream=stream,
        extra_headers=extra_headers,
        extra_body={"ignore_eos": True},
    )
    if stream:
        async for _ in answer:
            pass


def test_the_same_idempotency_key_gets_the_same_answer_and_computes_it_once(shared: tuple[str, Path]) -> None:
    async def story(gateway: GatewayProcess) -> None:
        async with gateway.openai() as client:
            same: dict[str, Any] = {
                "model": "tiny",
                "messages": HELLO,
                "temperature": 1,
                "extra_headers": {"Idempotency-Key": f"key-{gateway.port}"},
            }
            answers = await asyncio.gather(*(client.chat.completions.create(**same) for _ in range(3)))
            again = [chunk async for chunk in await client.chat.completions.create(**same, stream=True)]

        assert len({answer.id for answer in answers}) == 1
        text = "".join(chunk.choices[0].delta.content or "" for chunk in again)
        assert text == answers[0].choices[0].message.content

    with_gateway(shared, story)


def test_the_service_tier_and_the_headers_choose_lane_and_deadline(shared: tuple[str, Path]) -> None:
    async def story(gateway: GatewayProcess) -> None:
        async with gateway.openai() as client:
            ask: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 3}
            for more in (
                {"service_tier": "flex"},
                {"service_tier": "priority"},
                {"extra_headers": {"X-Penstock-Lane": "bulk", "X-Penstock-Deadline": "30s"}},
                {"extra_body": {"penstock": {"lane": "standard", "deadline": 30, "pool": "default"}}},
            ):
                await client.chat.completions.create(**ask, **more)
            with pytest.raises(openai.APIStatusError) as late:
                await client.chat.completions.create(**ask, extra_headers={"X-Penstock-Deadline": "-1"})
            with pytest.raises(openai.BadRequestError) as wrong:
                await client.chat.completions.create(**ask, extra_headers={"X-Penstock-Lane": "fast"})
            with pytest.raises(openai.NotFoundError) as missing:
                await client.chat.completions.create(**ask, extra_headers={"X-Penstock-Pool": "elsewhere"})

        assert late.value.status_code == 408
        assert wrong.value.param == "lane"
        assert missing.value.code == "pool_not_found"

    with_gateway(shared, story)


def test_a_request_that_takes_too_long_is_given_up_and_its_job_ended(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            ConsumerProcess(own_nats.url, tmp_path, *SLOW),
            GatewayProcess(own_nats.url, tmp_path, "--gateway.request_timeout_s", "0.5") as gateway,
            gateway.openai() as client,
            Client(own_nats.url) as queue,
        ):
            with pytest.raises(openai.InternalServerError) as late:
                await client.chat.completions.create(
                    model="tiny", messages=HELLO, max_tokens=1000, extra_body={"ignore_eos": True}
                )

            async def cancelled() -> bool:
                return {job.state for job in await queue.jobs()} == {"cancelled"}

            await until(cancelled)
            assert late.value.status_code == 504
            assert late.value.response.headers["x-should-retry"] == "false"

    run(story)


def test_every_refusal_has_openais_shape(shared: tuple[str, Path]) -> None:
    async def story(gateway: GatewayProcess) -> None:
        async with httpx.AsyncClient(base_url=gateway.url) as http:
            json_headers = {"content-type": "application/json"}
            cases: list[tuple[int, str, httpx.Response]] = [
                (404, "not_found", await http.get("/v1/nothing")),
                (405, "method_not_allowed", await http.get("/v1/chat/completions")),
                (415, "unsupported_media_type", await http.post("/v1/chat/completions", content=b"{}")),
                (400, "malformed_job", await http.post("/v1/embeddings", content=b"{", headers=json_headers)),
                (400, "malformed_job", await http.post("/v1/completions", json={"prompt": "x", "n": "two"})),
                (413, "body_too_large", await http.post("/v1/completions", json={"prompt": "x" * 2_000_000})),
            ]

        for status, code, answer in cases:
            assert answer.status_code == status
            error = json.loads(answer.content)["error"]
            assert error["code"] == code
            assert set(error) == {"message", "type", "param", "code"}
            assert answer.headers["x-request-id"]

    with_gateway(shared, story)
