"""Chunks of an engine's own (tools, logprobs) reach OpenAI's client whole; and what a pool that only fails gets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import openai
import pytest

from consumer.engine.port import Admit, Answer, EngineEvent, EngineRequest, Need, RawChunk
from schemas.errors import JobFault
from tests.support.echo_consumer import EchoConsumer, EchoEngine
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer

CALL = {"id": "call_1", "type": "function", "function": {"name": "flow", "arguments": '{"gate": 7}'}}
TOOLS: list[Any] = [{"type": "function", "function": {"name": "flow", "parameters": {"type": "object"}}}]
PIECES: list[tuple[dict[str, Any], str | None]] = [
    ({"role": "assistant", "content": ""}, None),
    ({"tool_calls": [{"index": 0, **CALL, "function": {"name": "flow", "arguments": ""}}]}, None),
    ({"tool_calls": [{"index": 0, "function": {"arguments": '{"gate"'}}]}, None),
    ({"tool_calls": [{"index": 0, "function": {"arguments": ": 7}"}}]}, None),
    ({}, "tool_calls"),
]


class ToolEngine(EchoEngine):
    async def generate(self, request: EngineRequest, admit: Admit) -> AsyncGenerator[EngineEvent]:
        await admit(Need(prompt_tokens=3, output_tokens_max=5))
        if "fault" in json.loads(request.body):
            raise JobFault("broken", code="broken")
        if request.stream:
            for delta, reason in PIECES:
                choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
                chunk = {"id": "engine-1", "object": "x", "created": 1, "model": "other", "choices": [choice]}
                yield RawChunk(json.dumps(chunk, separators=(",", ":")).encode(), 1)
        message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
        usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        whole = {"id": "x", "object": "chat.completion", "created": 1, "model": "echo", "choices": [choice]}
        yield Answer(body=json.dumps({**whole, "usage": usage}).encode(), prompt_tokens=3, completion_tokens=5)


def test_a_tool_call_is_streamed_whole_and_another_request_of_the_same_key_gets_it_too(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story() -> None:
        consumer = EchoConsumer(own_nats.url)
        consumer.engine = ToolEngine()
        async with consumer, GatewayProcess(own_nats.url, tmp_path) as gateway, gateway.openai() as client:
            ask: dict[str, Any] = {
                "model": "echo",
                "messages": [{"role": "user", "content": "open gate 7"}],
                "tools": TOOLS,
                "extra_headers": {"Idempotency-Key": "k"},
            }
            options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
            for _ in range(2):
                chunks = [chunk async for chunk in await client.chat.completions.create(**ask, **options)]
                calls = [
                    call for chunk in chunks[:-1] for call in chunk.choices[0].delta.tool_calls or () if call.function
                ]
                assert calls[0].id == "call_1"
                assert "".join(call.function.arguments or "" for call in calls) == '{"gate": 7}'
                assert chunks[-2].choices[0].finish_reason == "tool_calls"
                assert chunks[-1].usage.total_tokens == 8
                assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
                assert chunks[0].model == "echo"
            whole = await client.chat.completions.create(**ask)
            assert whole.choices[0].message.tool_calls[0].function.arguments == '{"gate": 7}'

    asyncio.run(asyncio.wait_for(story(), 40))


def test_a_pool_that_only_fails_is_closed_for_a_while_and_says_why(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        settings = tmp_path / "penstock.toml"
        settings.write_text("[gateway]\nbreaker_answers = 2\nbreaker_open_s = 0.5\n")
        consumer = EchoConsumer(own_nats.url)
        consumer.engine = ToolEngine()
        consumer._cfg = type(consumer._cfg)(**{**_fields(consumer._cfg), "attempts_shared": 1, "attempts_max": 1})
        async with (
            consumer,
            GatewayProcess(own_nats.url, tmp_path, "--config", str(settings)) as gateway,
            gateway.openai() as client,
        ):
            ask: dict[str, Any] = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
            for _ in range(2):
                with pytest.raises(openai.InternalServerError) as dead:
                    await client.chat.completions.create(**ask, extra_body={"fault": True})
                assert dead.value.code == "attempts_spent"
                assert dead.value.response.headers["x-should-retry"] == "false"
            with pytest.raises(openai.InternalServerError) as closed:
                await client.chat.completions.create(**ask)
            assert closed.value.code == "pool_unavailable"
            assert "2 of its last 2 answers were faults" in closed.value.message
            assert closed.value.response.headers["retry-after"] == "1"

            await asyncio.sleep(0.6)
            for _ in range(3):
                assert (await client.chat.completions.create(**ask)).choices

    asyncio.run(asyncio.wait_for(story(), 40))


def _fields(section: Any) -> dict[str, Any]:
    return {name: getattr(section, name) for name in section.__struct_fields__}
