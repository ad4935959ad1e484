"""What only the vLLM adapter can get wrong: the seam to its serving layer, and its processes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from consumer.engine.port import EngineRequest, RawChunk, TextDelta
from schemas.errors import JobRejected
from schemas.job import Endpoint
from tests.support.engines import EngineInThread

pytestmark = pytest.mark.engine

_made = iter(range(10**9))


def a_request(body: dict[str, Any], *, stream: bool = True, endpoint: str = Endpoint.CHAT) -> EngineRequest:
    payload = json.dumps({"temperature": 0, **body}).encode()
    return EngineRequest(request_id=f"vllm-test-{next(_made)}", endpoint=endpoint, body=payload, stream=stream)


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


def said(chunk: bytes) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in json.loads(chunk)["choices"])


def test_logprobs_travel_as_openai_chunks_that_add_up_to_the_whole_answer(vllm_engine: EngineInThread) -> None:
    outcome = vllm_engine.generate(a_request(chat("What is a penstock?", logprobs=True, top_logprobs=2, max_tokens=20)))

    chunks = [event for event in outcome.events if isinstance(event, RawChunk)]
    tokens = [
        entry["token"]
        for chunk in chunks
        for choice in json.loads(chunk.chunk)["choices"]
        for entry in (choice.get("logprobs") or {}).get("content") or ()
    ]
    whole = outcome.body["choices"][0]
    assert len(outcome.needs) == 1, "replaying the answer asks for no room"
    assert "".join(said(chunk.chunk) for chunk in chunks) == whole["message"]["content"]
    assert [entry["token"] for entry in whole["logprobs"]["content"]] == tokens
    assert len(tokens) == outcome.answer.completion_tokens


def test_the_chunked_path_and_the_plain_one_say_the_same(vllm_engine: EngineInThread) -> None:
    question = "Tell me a short story about a mill."
    plain = vllm_engine.generate(a_request(chat(question, max_tokens=80)))
    chunked = vllm_engine.generate(a_request(chat(question, max_tokens=80, logprobs=True)))

    assert plain.text() == chunked.text()
    assert all(isinstance(event, TextDelta) for event in plain.events[:-1])


def test_token_ids_are_those_of_vllm_itself(vllm_engine: EngineInThread) -> None:
    prompt = "Once upon a time"
    ours = vllm_engine.generate(
        a_request({"prompt": prompt, "max_tokens": 40, "return_token_ids": True}, endpoint=Endpoint.COMPLETIONS)
    )

    async def theirs() -> list[int]:
        from vllm import SamplingParams

        real: Any = vars(vllm_engine.engine)["_engine"]
        tokens: list[int] = []
        async for output in real.generate(prompt, SamplingParams(temperature=0, max_tokens=40), "direct"):
            tokens = list(output.outputs[0].token_ids)
        return tokens

    assert ours.body["choices"][0]["token_ids"] == vllm_engine.run(theirs())


def test_the_four_novels_come_as_valid_json(vllm_engine: EngineInThread) -> None:
    book = {
        "type": "object",
        "properties": {"title": {"type": "string", "maxLength": 20}, "author": {"type": "string", "maxLength": 20}},
        "required": ["title", "author"],
        "additionalProperties": False,
    }
    schema = {
        "type": "object",
        "properties": {"books": {"type": "array", "items": book, "minItems": 4, "maxItems": 4}},
        "required": ["books"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "books", "schema": schema}}
    question = "请用 JSON 格式列出中国四大名著及其作者"

    outcome = vllm_engine.generate(a_request(chat(question, response_format=form, max_tokens=300)))

    books = json.loads(outcome.text())["books"]
    assert len(books) == 4
    assert {"title": "红楼梦", "author": "曹雪芹"} in books


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (
            chat("x", response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "?"}}}),
            "response_format",
        ),
        (chat("x", top_p=2), "top_p"),
        (chat("x", n=-1), "n"),
        (chat("x", temperature="hot"), "temperature"),
        (chat("x", tools=[{"type": "function", "function": {"name": "f"}}], tool_choice="required"), "tool_choice"),
        ({"messages": [{"role": "user", "content": {"deep": [[[[]]]]}}]}, "messages"),
    ],
    ids=["schema", "top_p", "n", "temperature", "tool_choice", "content"],
)
def test_what_vllm_refuses_names_the_field(vllm_engine: EngineInThread, body: dict[str, Any], param: str) -> None:
    with pytest.raises(JobRejected) as caught:
        vllm_engine.generate(a_request(body))

    assert caught.value.param is not None
    assert caught.value.param.startswith(param)
    assert vllm_engine.until(vllm_engine.is_empty, 2)
