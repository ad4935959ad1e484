"""The laws of `consumer.engine.port`, for every engine. The number in a heading comment is the law's."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from consumer.engine.port import Answer, EngineRequest, Need, TextDelta
from consumer.engine.registry import make_engine
from schemas.config import EngineSection
from schemas.errors import ConfigError, EngineDied, JobRejected, PromptTooLong, UnknownModel
from schemas.job import Endpoint
from tests.support.engines import EngineInThread, Outcome, Requests
from tests.support.processes import kill

BOOKS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "books": {
            "type": "array",
            "minItems": 1,
            "maxItems": 4,
            "items": {
                "type": "object",
                "properties": {
                    "title": {"type": "string", "maxLength": 20},
                    "author": {"type": "string", "maxLength": 20},
                },
                "required": ["title", "author"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["books"],
    "additionalProperties": False,
}


# 1


def test_deltas_then_exactly_one_answer_that_says_the_same(engine: EngineInThread) -> None:
    outcome = engine.generate(Requests.chat("What is a message queue?", max_tokens=40))

    assert [type(event) for event in outcome.events[:-1]] == [TextDelta] * (len(outcome.events) - 1)
    assert isinstance(outcome.events[-1], Answer)
    assert outcome.streamed() == outcome.text()
    assert len(outcome.chunks) > 1


def test_every_token_is_in_a_delta_and_in_the_usage(engine: EngineInThread) -> None:
    outcome = engine.generate(Requests.completion("Once upon a time", max_tokens=50, ignore_eos=True))

    assert sum(chunk.tokens for chunk in outcome.chunks) == 50
    assert outcome.answer.completion_tokens == 50
    assert outcome.body["usage"]["completion_tokens"] == 50


def test_one_that_nobody_listens_to_may_be_its_answer_alone(engine: EngineInThread) -> None:
    outcome = engine.generate(Requests.chat("Hello", stream=False, max_tokens=10))

    assert [type(event) for event in outcome.events] == [Answer]


def test_the_answer_is_openai_shaped(engine: EngineInThread) -> None:
    chat = engine.generate(Requests.chat("Hello", max_tokens=3, ignore_eos=True)).body
    completion = engine.generate(Requests.completion("Hello", max_tokens=3, ignore_eos=True)).body

    assert chat["object"] == "chat.completion"
    assert chat["id"].startswith("chatcmpl-")
    assert chat["choices"][0]["message"]["role"] == "assistant"
    assert completion["object"] == "text_completion"
    assert completion["id"].startswith("cmpl-")
    for body in (chat, completion):
        assert body["model"] == engine.models[0]
        assert body["created"] > 1_600_000_000
        assert body["choices"][0]["finish_reason"] == "length"
        usage = body["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_choices_and_prompts_are_numbered_through(engine: EngineInThread) -> None:
    outcome = engine.generate(
        Requests.completion(["Hello", "Water"], n=2, temperature=0.8, max_tokens=6, ignore_eos=True)
    )

    assert [choice["index"] for choice in outcome.body["choices"]] == [0, 1, 2, 3]
    assert [outcome.streamed(choice) for choice in range(4)] == [outcome.text(choice) for choice in range(4)]
    assert outcome.answer.completion_tokens == 24


def test_a_stream_field_in_the_body_changes_nothing(engine: EngineInThread) -> None:
    outcome = engine.generate(Requests.chat("Hello", max_tokens=5, stream_options={"include_usage": True}))
    same = engine.generate(
        Requests.of(
            Endpoint.CHAT,
            {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": 5, "stream": True},
        )
    )

    assert same.text() == outcome.text()


# 2


def test_admit_is_called_once_with_the_exact_prompt_tokens(engine: EngineInThread) -> None:
    outcome = engine.generate(Requests.chat("What is a turbine?", max_tokens=7))

    assert [(need.prompt_tokens, need.output_tokens_max, need.sequences) for need in outcome.needs] == [
        (outcome.answer.prompt_tokens, 7, 1)
    ]


def test_a_need_says_how_much_was_produced_also_when_nobody_listens(engine: EngineInThread) -> None:
    quiet = Requests.completion("Once upon a time", stream=False, max_tokens=1500, ignore_eos=True)
    two = Requests.completion("Once upon a time", n=2, temperature=0.9, max_tokens=600, ignore_eos=True)

    for request, tokens in ((quiet, 1500), (two, 1200)):
        needs: list[Need] = []
        seen: list[int] = []

        async def scene(request: EngineRequest = request, needs: list[Need] = needs, seen: list[int] = seen) -> Outcome:
            async def remember(need: Need) -> None:
                needs.append(need)

            running = asyncio.ensure_future(engine.collect(request, remember))
            while not running.done():
                await asyncio.sleep(0.01)
                seen += [need.produced() for need in needs]
            return running.result()

        outcome = engine.run(scene())
        assert outcome.answer.completion_tokens == tokens
        assert seen == sorted(seen)
        assert any(0 < produced < tokens for produced in seen)
        assert needs[0].produced() == tokens


def test_an_answer_whose_length_is_asked_for_is_known_beforehand(engine: EngineInThread) -> None:
    exact = engine.generate(Requests.completion("Hello", max_tokens=5, ignore_eos=True)).needs[0]
    least = engine.generate(Requests.completion("Hello", max_tokens=5, min_tokens=2)).needs[0]

    assert (exact.output_tokens_min, exact.output_tokens_max) == (5, 5)
    assert (least.output_tokens_min, least.output_tokens_max) == (2, 5)


def test_equal_beginnings_of_prompts_have_equal_keys(engine: EngineInThread) -> None:
    beginning = list(range(100, 228))
    first, second = (
        engine.generate(Requests.completion([*beginning, *own], max_tokens=2)).needs[0].block_keys
        for own in ([500] * 64, [600] * 64)
    )

    # The simulated engine cuts blocks by the length of their text, so it may find fewer.
    assert len(first) == len(second) <= 192 // engine.engine.capacity().block_size
    same = [key for key, other in zip(first, second, strict=True) if key == other]
    assert same == list(first[: len(same)])
    assert 0 < len(same) < len(first)


def test_steps_are_counted_and_timed(engine: EngineInThread) -> None:
    before = engine.engine.capacity().steps
    engine.generate(Requests.completion("Hello", max_tokens=100, ignore_eos=True))
    after = engine.engine.capacity()

    assert after.steps - before >= 99
    assert 0 < after.step_s < 1


def test_without_max_tokens_a_chat_may_fill_the_context(engine: EngineInThread) -> None:
    need = engine.generate(Requests.chat("Hello")).needs[0]

    assert need.prompt_tokens + need.output_tokens_max == engine.engine.capacity().context_tokens_max


def test_several_prompts_and_choices_are_admitted_as_one(engine: EngineInThread) -> None:
    outcome = engine.generate(Requests.completion(["Hello", "Hello", "Hello"], n=2, temperature=0.8, max_tokens=4))

    assert len(outcome.needs) == 1
    assert outcome.needs[0].sequences == 6
    assert outcome.needs[0].prompt_tokens * 3 == outcome.answer.prompt_tokens


def test_nothing_is_held_before_admission(engine: EngineInThread) -> None:
    async def scene() -> None:
        asked, go = asyncio.Event(), asyncio.Event()

        async def admit(_need: Need) -> None:
            asked.set()
            await go.wait()

        task = asyncio.create_task(engine.collect(Requests.chat("Hello", max_tokens=5), admit))
        await asyncio.wait_for(asked.wait(), 10)
        await asyncio.sleep(0.05)
        assert engine.is_empty()
        go.set()
        assert (await task).answer.completion_tokens > 0

    engine.run(scene())


def test_a_refused_admission_is_raised_and_the_engine_never_heard_of_it(engine: EngineInThread) -> None:
    async def admit(_need: Need) -> None:
        raise PromptTooLong("no room for it, ever")

    with pytest.raises(PromptTooLong, match="no room for it"):
        engine.run(engine.collect(Requests.chat("Hello"), admit))

    assert engine.is_empty()


def test_one_that_is_cancelled_before_admission_leaves_no_trace(engine: EngineInThread) -> None:
    async def scene() -> None:
        asked, was_cancelled = asyncio.Event(), asyncio.Event()

        async def admit(_need: Need) -> None:
            asked.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                was_cancelled.set()
                raise

        task = asyncio.create_task(engine.collect(Requests.chat("Hello"), admit))
        await asyncio.wait_for(asked.wait(), 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        # Nobody may go on waiting at the door for a request that is gone.
        await asyncio.wait_for(was_cancelled.wait(), 1)
        assert engine.is_empty()

    engine.run(scene())


# 3


def _long(**fields: Any) -> EngineRequest:
    return Requests.completion("Once upon a time", max_tokens=1900, ignore_eos=True, **fields)


async def _admit(_need: Need) -> None:
    pass


def test_closing_the_generator_frees_its_blocks_within_a_second(engine: EngineInThread) -> None:
    async def scene() -> None:
        async with aclosing(engine.engine.generate(_long(), _admit)) as events:
            assert isinstance(await anext(events), TextDelta)
            assert engine.engine.capacity().blocks_free < engine.engine.capacity().blocks_total

    engine.run(scene())

    assert engine.until(engine.is_empty, 1)


def test_cancelling_the_task_frees_its_blocks_within_a_second(engine: EngineInThread) -> None:
    async def scene() -> None:
        task = asyncio.create_task(engine.collect(_long()))
        await engine.wait_running(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    engine.run(scene())

    assert engine.until(engine.is_empty, 1)


def test_a_silent_request_is_aborted_as_well(engine: EngineInThread) -> None:
    async def scene() -> None:
        request = _long(stream=False, n=3, temperature=0.8)
        task = asyncio.create_task(engine.collect(request))
        await engine.wait_running(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    engine.run(scene())

    assert engine.until(engine.is_empty, 1)


def test_aborting_one_leaves_the_others_alone(engine: EngineInThread) -> None:
    prompts = [f"What is number {number}?" for number in range(8)]
    alone = [engine.generate(Requests.chat(prompt, max_tokens=60, ignore_eos=True)).text() for prompt in prompts[:2]]

    async def scene() -> list[str]:
        victims = [asyncio.create_task(engine.collect(_long())) for _ in range(6)]
        kept = [
            asyncio.create_task(engine.collect(Requests.chat(prompt, max_tokens=60, ignore_eos=True)))
            for prompt in prompts
        ]
        await engine.wait_running(6)
        for victim in victims:
            victim.cancel()
        await asyncio.gather(*victims, return_exceptions=True)
        return [outcome.text() for outcome in await asyncio.gather(*kept)]

    texts = engine.run(scene())

    assert texts[:2] == alone
    assert all(texts)


# 4

_HELLO = [{"role": "user", "content": "Hello"}]
FAULTY: dict[str, tuple[str, object, str]] = {
    "no messages": (Endpoint.CHAT, {}, "messages"),
    "messages are text": (Endpoint.CHAT, {"messages": "Hello"}, "messages"),
    "no prompt": (Endpoint.COMPLETIONS, {"max_tokens": 3}, "prompt"),
    "temperature too high": (Endpoint.CHAT, {"messages": _HELLO, "temperature": 9}, "temperature"),
    "temperature is text": (Endpoint.CHAT, {"messages": _HELLO, "temperature": "hot"}, "temperature"),
    "negative temperature": (Endpoint.COMPLETIONS, {"prompt": "x", "temperature": -1}, "temperature"),
    "top_p too high": (Endpoint.CHAT, {"messages": _HELLO, "top_p": 1.5}, "top_p"),
    "negative max_tokens": (Endpoint.CHAT, {"messages": _HELLO, "max_tokens": -1}, "max_tokens"),
    "max_tokens over the context": (Endpoint.CHAT, {"messages": _HELLO, "max_tokens": 99_999}, "max_tokens"),
    "several greedy choices": (Endpoint.CHAT, {"messages": _HELLO, "temperature": 0, "n": 2}, "n"),
    "no choices": (Endpoint.COMPLETIONS, {"prompt": "x", "n": 0}, "n"),
    "unknown model": (Endpoint.CHAT, {"messages": _HELLO, "model": "nobody/knows"}, "model"),
    "not a schema": (
        Endpoint.CHAT,
        {
            "messages": _HELLO,
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}},
        },
        "response_format",
    ),
    "not an object": (Endpoint.CHAT, ["Hello"], "body"),
    "not JSON": (Endpoint.CHAT, b'{"messages": [', "body"),
}


@pytest.mark.parametrize("case", FAULTY)
def test_a_faulty_request_is_rejected_by_field_and_disturbs_no_other(engine: EngineInThread, case: str) -> None:
    endpoint, body, field = FAULTY[case]

    async def scene() -> tuple[Any, Any]:
        good = asyncio.create_task(engine.collect(Requests.chat("Hello", max_tokens=20, ignore_eos=True)))
        bad = asyncio.create_task(engine.collect(Requests.of(endpoint, body)))
        outcomes = await asyncio.gather(good, bad, return_exceptions=True)
        return outcomes[0], outcomes[1]

    good, bad = engine.run(scene())

    assert isinstance(bad, JobRejected), repr(bad)
    assert bad.param is not None
    assert bad.param.split(".")[0] == field, f"{bad.param}: {bad.message}"
    assert bad.message
    assert good.answer.completion_tokens == 20


def test_an_unknown_model_is_404(engine: EngineInThread) -> None:
    with pytest.raises(UnknownModel):
        engine.generate(Requests.chat("Hello", model="nobody/knows"))


def test_the_own_model_name_is_known(engine: EngineInThread) -> None:
    outcome = engine.generate(Requests.chat("Hello", model=engine.models[0], max_tokens=3))

    assert outcome.body["model"] == engine.models[0]


@pytest.mark.parametrize("endpoint", [Endpoint.CHAT, Endpoint.COMPLETIONS])
def test_a_prompt_over_the_context_says_so_with_both_numbers(engine: EngineInThread, endpoint: Endpoint) -> None:
    prompt = "water turbine " * 4000
    make = Requests.chat if endpoint is Endpoint.CHAT else Requests.completion

    with pytest.raises(PromptTooLong, match="2048") as caught:
        engine.generate(make(prompt))

    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param in {"messages", "prompt", "input_tokens"}


# 5


def test_a_dead_engine_ends_every_open_request_and_says_why(mortal_engine: EngineInThread) -> None:
    async def scene() -> tuple[list[Any], str]:
        dead = asyncio.create_task(mortal_engine.engine.wait_dead())
        open_tasks = [asyncio.create_task(mortal_engine.collect(_long())) for _ in range(3)]
        open_tasks.append(asyncio.create_task(mortal_engine.collect(_long(stream=False))))
        if mortal_engine.kind == "vllm":
            # Its stream of chunks tells of an engine's death in a chunk only.
            open_tasks.append(asyncio.create_task(mortal_engine.collect(_long(logprobs=1))))
        await mortal_engine.wait_running(len(open_tasks))
        assert not dead.done()
        if mortal_engine.kind == "vllm":
            for pid in mortal_engine.processes:
                kill(pid)
        else:
            crash = Requests.chat("Hello", simulated={"fail": "crash_engine"})
            open_tasks.append(asyncio.create_task(mortal_engine.collect(crash)))
        ends = await asyncio.wait_for(asyncio.gather(*open_tasks, return_exceptions=True), 30)
        return ends, await asyncio.wait_for(dead, 10)

    ends, reason = mortal_engine.run(scene())

    assert [type(end) for end in ends] == [EngineDied] * len(ends)
    assert reason
    with pytest.raises(EngineDied):
        mortal_engine.generate(Requests.chat("Hello"))


# 6


def test_capacity_is_live_while_something_runs(engine: EngineInThread) -> None:
    async def scene() -> list[int]:
        used: list[int] = []
        async with aclosing(engine.engine.generate(_long(), _admit)) as events:
            tokens = 0
            async for event in events:
                assert isinstance(event, TextDelta)
                tokens += event.tokens
                capacity = engine.engine.capacity()
                assert capacity.running == 1
                used.append(capacity.blocks_total - capacity.blocks_free)
                if tokens > 4 * capacity.block_size:
                    break
        return used

    used = engine.run(scene())

    # A sequence grows block by block.
    assert used == sorted(used)
    assert used[-1] - used[0] >= 3


def test_capacity_is_cheap(engine: EngineInThread) -> None:
    async def scene() -> float:
        began = time.perf_counter()
        for _ in range(1000):
            engine.engine.capacity()
        return (time.perf_counter() - began) / 1000

    assert engine.run(scene()) < 0.001


def test_capacity_tells_the_configured_size(engine: EngineInThread) -> None:
    capacity = engine.engine.capacity()

    assert (capacity.blocks_total, capacity.block_size) == (256, 32)
    assert (capacity.sequences_max, capacity.context_tokens_max) == (64, 2048)


# 7


def test_more_than_the_cache_holds_is_preempted_finished_and_freed(engine: EngineInThread) -> None:
    before = engine.engine.capacity().preemptions
    requests = [
        Requests.completion(f"Story number {number}:", max_tokens=700, ignore_eos=True, stream=number % 2 == 0)
        for number in range(16)
    ]

    outcomes = engine.generate_all(requests)

    assert [outcome.answer.completion_tokens for outcome in outcomes] == [700] * 16
    for outcome in outcomes[::2]:
        assert outcome.streamed() == outcome.text()
    assert engine.engine.capacity().preemptions > before


def test_more_requests_than_sequences_all_finish(engine: EngineInThread) -> None:
    requests = [Requests.chat(f"Question {number}", max_tokens=8, ignore_eos=True) for number in range(150)]

    outcomes = engine.generate_all(requests)

    assert [outcome.answer.completion_tokens for outcome in outcomes] == [8] * 150


# 8


@pytest.mark.parametrize(
    "text", ["What is a penstock?", "请用 JSON 格式列出中国四大名著及其作者", "《西游记》的作者是谁？"]
)
def test_temperature_0_gives_the_same_text_streamed_or_not_alone_or_in_company(
    engine: EngineInThread, text: str
) -> None:
    streamed = engine.generate(Requests.chat(text))
    whole = engine.generate(Requests.chat(text, stream=False))
    company = [Requests.chat(f"Question {number}", max_tokens=30) for number in range(20)]
    crowded = engine.generate_all([*company, Requests.chat(text)])[-1]

    assert streamed.text() == whole.text() == crowded.text()
    assert streamed.streamed() == whole.text()
    assert whole.body["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("text", ["请用 JSON 格式列出中国四大名著及其作者", "Hello", "List some books."])
def test_a_json_schema_is_obeyed(engine: EngineInThread, text: str) -> None:
    response_format = {"type": "json_schema", "json_schema": {"name": "books", "schema": BOOKS}}

    outcome = engine.generate(Requests.chat(text, max_tokens=600, response_format=response_format))

    assert outcome.body["choices"][0]["finish_reason"] == "stop"
    jsonschema.validate(json.loads(outcome.text()), BOOKS)
    assert outcome.streamed() == outcome.text()


def test_an_unknown_engine_argument_is_named(engine: EngineInThread, engine_data_dir: Path) -> None:
    section = EngineSection(kind=engine.kind, arguments={"no_such_setting": 3})  # pyright: ignore[reportArgumentType]

    async def scene() -> None:
        await make_engine(section, engine_data_dir).start()

    with pytest.raises(ConfigError, match=r"no.such.setting"):
        engine.run(scene())


# 9


def test_what_waits_inside_the_engine_goes_by_its_priority(engine: EngineInThread) -> None:
    async def scene() -> None:
        sequences = engine.engine.capacity().sequences_max
        order: list[str] = []

        async def one(name: str, request: EngineRequest) -> None:
            await engine.collect(request)
            order.append(name)

        # So long that all the others are inside before the first of these ends.
        full = [Requests.chat(f"Story {number}", max_tokens=240, ignore_eos=True) for number in range(sequences)]
        running = [asyncio.create_task(one("running", request)) for request in full]
        await engine.wait_running(sequences)
        later = [
            *(
                Requests.chat(f"Bulk {number}", max_tokens=2, ignore_eos=True, priority=2)
                for number in range(2 * sequences)
            ),
            Requests.chat("Urgent", max_tokens=2, ignore_eos=True, priority=0),
        ]
        names = ["bulk"] * 2 * sequences + ["urgent"]
        waiting = [asyncio.create_task(one(name, request)) for name, request in zip(names, later, strict=True)]
        await asyncio.gather(*running, *waiting)

        # Those that finish in the same step may come in any order.
        assert order[: order.index("urgent")].count("bulk") < sequences, order

    engine.run(scene())
