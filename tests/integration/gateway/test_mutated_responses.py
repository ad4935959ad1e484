"""Bodies of /v1/responses that are almost right: each gets an answer in time, and the gateway is never at fault."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.gateway.test_mutations import _mutate
from tests.support.gateway import GatewayProcess

SEED: dict[str, Any] = {
    "model": "tiny",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "x"},
    ],
    "instructions": "x",
    "max_output_tokens": 3,
    "temperature": 0.5,
    "stream": True,
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
    "tool_choice": {"type": "function", "name": "f"},
    "reasoning": {"effort": "low"},
    "metadata": {"a": "b"},
    "background": True,
    "background_options": {"completion_window": "2h"},
    "include": ["message.output_text.logprobs"],
    "penstock": {"lane": "bulk"},
}


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    body = json.loads(json.dumps(SEED))
    for _ in range(draw(st.integers(1, 3))):
        _mutate(draw, body)
    data = json.dumps(body).encode()
    return data if draw(st.integers(0, 9)) else data[: draw(st.integers(0, len(data)))]


def check(http: httpx.Client, body: bytes) -> None:
    answer = http.post("/v1/responses", content=body, headers={"content-type": "application/json"})
    assert answer.status_code < 500, (body, answer.text)
    if answer.status_code >= 400:
        error = json.loads(answer.content)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
    elif answer.headers["content-type"].startswith("text/event-stream"):
        last = answer.text.removesuffix("\n\n").rpartition("\n\n")[2]
        name = last.removeprefix("event: ").partition("\n")[0]
        assert name in {"response.completed", "response.incomplete", "response.failed"}, (body, last)


def test_hundreds_of_mutated_bodies_get_an_answer_and_never_the_gateways_own_fault(shared: tuple[str, Path]) -> None:
    async def story() -> None:
        async with GatewayProcess(*shared) as gateway:
            with httpx.Client(base_url=gateway.url, timeout=15) as http:

                @settings(max_examples=300, suppress_health_check=list(HealthCheck), database=None)
                @given(mutated())
                def every(body: bytes) -> None:
                    check(http, body)

                # In a thread, so that what the processes say is read meanwhile.
                await asyncio.to_thread(every)
            assert "request.crashed" not in gateway.log

    asyncio.run(story())
