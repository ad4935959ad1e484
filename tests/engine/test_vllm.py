"""What only the vLLM adapter can get wrong: the seam to its serving layer, and its processes."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumer.engine.port import EngineRequest, Need, RawChunk, TextDelta
from consumer.engine.registry import make_engine
from consumer.engine.vllm import stream_interval
from consumer.engine.vllm_arguments import parse
from schemas.config import EngineSection
from schemas.errors import ConfigError, EngineDied, JobRejected, PromptTooLong, UnknownEndpoint
from schemas.job import Endpoint
from tests.support.engines import VLLM_ARGUMENTS, EngineInThread, running_engine
from tests.support.processes import children_of_this_process, kill

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


def test_a_completion_may_ask_for_the_chosen_tokens_logprob_alone(vllm_engine: EngineInThread) -> None:
    body = {"prompt": "Once upon a time", "logprobs": 0, "max_tokens": 8, "ignore_eos": True}
    outcome = vllm_engine.generate(a_request(body, endpoint=Endpoint.COMPLETIONS))

    assert len(outcome.body["choices"][0]["logprobs"]["tokens"]) == 8
    assert all(isinstance(chunk, RawChunk) for chunk in outcome.chunks)
    assert sum(chunk.tokens for chunk in outcome.chunks) == 8


def test_prompts_that_finish_out_of_order_keep_their_answers(vllm_engine: EngineInThread) -> None:
    prompts = ["Tell me a short story about a mill.", "x"]
    body = {"prompt": prompts, "logprobs": 1, "max_tokens": 60, "stop": ["gate"], "return_token_ids": True}
    together = vllm_engine.generate(a_request(body, endpoint=Endpoint.COMPLETIONS)).body["choices"]

    for choice, prompt in zip(together, prompts, strict=True):
        alone = vllm_engine.generate(a_request({**body, "prompt": prompt}, endpoint=Endpoint.COMPLETIONS))
        assert choice["prompt_token_ids"] == alone.body["choices"][0]["prompt_token_ids"]
        assert choice["text"] == alone.text()


def test_no_token_is_lost_where_deltas_grow_and_shrink_with_the_load(vllm_engine: EngineInThread) -> None:
    requests = [
        a_request(
            {
                "prompt": f"Story {number}:",
                "max_tokens": 10 + 2 * number,
                "ignore_eos": True,
                "return_token_ids": False,
            },
            endpoint=Endpoint.COMPLETIONS,
        )
        for number in range(60)
    ]

    outcomes = vllm_engine.generate_all(requests)

    sizes = {chunk.tokens for outcome in outcomes for chunk in outcome.chunks}
    assert {1, 2, 3} <= sizes
    for number, outcome in enumerate(outcomes):
        assert outcome.streamed() == outcome.text()
        assert sum(chunk.tokens for chunk in outcome.chunks) == 10 + 2 * number


@pytest.mark.parametrize(("streams", "tokens"), [(0, 1), (31, 1), (32, 2), (64, 4), (128, 8), (5000, 8)])
def test_deltas_have_more_tokens_the_more_streams_there_are(streams: int, tokens: int) -> None:
    assert stream_interval(streams, smooth_below=16, interval_max=8) == tokens


def test_beam_search_is_admitted_once_and_as_a_whole(vllm_engine: EngineInThread) -> None:
    body = {"prompt": "Once upon a time", "use_beam_search": True, "n": 2, "max_tokens": 4}
    outcome = vllm_engine.generate(a_request(body, endpoint=Endpoint.COMPLETIONS))

    assert [(need.output_tokens_max, need.sequences) for need in outcome.needs] == [(4, 2)]
    assert len(outcome.body["choices"]) == 2
    assert not outcome.chunks


def test_a_refusal_at_the_door_reaches_the_job_through_a_recorded_stream(vllm_engine: EngineInThread) -> None:
    async def admit(_need: Need) -> None:
        raise PromptTooLong("no room for it, ever")

    with pytest.raises(PromptTooLong, match="no room for it"):
        vllm_engine.run(vllm_engine.collect(a_request(chat("Hello", logprobs=True)), admit))


def test_a_generating_model_serves_no_embeddings(vllm_engine: EngineInThread) -> None:
    with pytest.raises(UnknownEndpoint):
        vllm_engine.generate(a_request({"input": "Hello"}, endpoint=Endpoint.EMBEDDINGS))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"max_num_sequences": 3}, r"engine\.max_num_sequences .*did you mean `engine\.max_num_seqs`"),
        ({"max_num_seqs": "many"}, r"engine\.max_num_seqs: invalid int value"),
        ({"tensor_parallel_size": [1, 2]}, r"engine\.tensor_parallel_size takes one value"),
        ({"enforce_eager": "maybe"}, r"engine\.enforce_eager is true or false"),
        ({"config": "nowhere.yaml"}, r"engine\.arguments\.config"),
        ({"help": True}, r"engine\.help"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_engine_argument_is_named(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse("nobody/knows", arguments)


def test_embeddings_need_the_pooling_runner_and_an_idle_engine_that_is_killed_is_noticed(engine_data_dir: Path) -> None:
    with running_engine("vllm", engine_data_dir, runner="pooling", convert="embed") as engine:
        body = {"input": ["A river", "A turbine"]}
        outcome = engine.generate(a_request(body, endpoint=Endpoint.EMBEDDINGS))
        vectors = [entry["embedding"] for entry in outcome.body["data"]]
        assert len(vectors) == 2
        assert vectors[0] != vectors[1]
        assert len(outcome.needs) == 1
        assert outcome.needs[0].sequences == 2

        async def dies() -> str:
            dead = asyncio.create_task(engine.engine.wait_dead())
            for pid in engine.processes:
                kill(pid)
            return await asyncio.wait_for(dead, 10)

        assert engine.run(dies())
        with pytest.raises(EngineDied):
            engine.generate(a_request(body, endpoint=Endpoint.EMBEDDINGS))


def test_a_start_that_is_cancelled_leaves_no_process(engine_data_dir: Path) -> None:
    before = set(children_of_this_process("spawn_main"))
    section = msgspec.convert({"kind": "vllm", "arguments": VLLM_ARGUMENTS}, EngineSection)

    async def scene() -> None:
        engine = make_engine(section, engine_data_dir)
        starting = asyncio.create_task(engine.start())
        while not set(children_of_this_process("spawn_main")) - before:
            await asyncio.sleep(0.05)
            assert not starting.done()
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await asyncio.wait_for(engine.stop(), 30)

    asyncio.run(scene())

    deadline = time.monotonic() + 5
    while (left := set(children_of_this_process("spawn_main")) - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
