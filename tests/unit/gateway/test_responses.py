"""What a Responses request becomes as a chat, and a chat's answer as OpenAI's events, read by OpenAI's own client."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from openai._models import construct_type_unchecked
from openai._types import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from producer.events import Restarted
from producer.gateway.responses.asking import asked_in, chat_body, view_of
from producer.gateway.responses.ending import ending_of, view_at_end
from producer.gateway.responses.script import script_of
from producer.gateway.responses.teller import Teller, error_of
from producer.gateway.responses.wire import Wire, error_event
from schemas.errors import JobMalformed
from schemas.frames import Chunk, Delta, Finished, Started
from schemas.openai_responses import ResponseRecord, decode_record
from schemas.result import ErrorDetail, Result, Status, Timing, Usage

TOOL = {"type": "function", "name": "find", "parameters": {"type": "object"}, "strict": True, "description": None}


def chat_of(**fields: Any) -> dict[str, Any]:
    return json.loads(chat_body(asked_in(json.dumps({"model": "m", **fields}).encode(), "job")))


def a_record(**fields: Any) -> ResponseRecord:
    asked = asked_in(json.dumps({"input": "x", **fields}).encode(), "job")
    view = view_of(asked, response_id="resp_job", model="m", created_at=1)
    return ResponseRecord(tenant="default", pool="default", job="job", view=view, input=asked.input)


def a_result(finish: str = "stop", *, status: Status = Status.COMPLETED, **message: Any) -> Result:
    body = {"choices": [{"index": 0, "finish_reason": finish, "message": message}]}
    return Result(
        id="job",
        status=status,
        status_code=200,
        pool="default",
        tenant="default",
        body=msgspec.Raw(json.dumps(body).encode()),
        usage=Usage(prompt_tokens=3, completion_tokens=5, cached_tokens=2),
        timing=Timing(finished_unix_ms=5000),
        attempt=1,
    )


def read(data: bytes) -> list[dict[str, Any]]:
    """Server-sent events, whose names are their types."""
    events: list[dict[str, Any]] = []
    for block in data.decode().split("\n\n")[:-1]:
        name, _, text = block.partition("\n")
        events.append(json.loads(text.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def told(record: ResponseRecord, result: Result) -> list[dict[str, Any]]:
    ending = ending_of(result)
    steps = script_of(ending, is_background=record.view.background)
    return read(Wire(record).events(list(enumerate(steps)), ending))


def test_everything_a_request_says_is_said_to_the_engine_in_a_chats_words() -> None:
    chat = chat_of(
        input=[
            {"role": "developer", "content": "Be brief"},
            {"role": "user", "content": [{"type": "input_text", "text": "Who "}, {"type": "input_text", "text": "?"}]},
            {"type": "reasoning", "summary": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me look"}]},
            {"type": "function_call", "call_id": "c1", "name": "find", "arguments": "{}"},
            {"type": "function_call", "call_id": "c2", "name": "find", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "Ann"},
            {"role": "user", "content": [{"type": "input_image", "image_url": "http://x/y.png", "detail": "low"}]},
        ],
        instructions="You are kind",
        max_output_tokens=7,
        temperature=0,
        top_p=0.5,
        reasoning={"effort": "low"},
        text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}},
        tools=[TOOL],
        tool_choice={"type": "function", "name": "find"},
        parallel_tool_calls=False,
        top_logprobs=2,
        service_tier="flex",
        background=True,
        seed=4,
        top_k=9,
    )

    call = {"type": "function", "function": {"name": "find", "arguments": "{}"}}
    assert chat == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "You are kind"},
            {"role": "system", "content": "Be brief"},
            {"role": "user", "content": "Who ?"},
            {"role": "assistant", "content": "Let me look", "tool_calls": [{"id": "c1", **call}, {"id": "c2", **call}]},
            {"role": "tool", "tool_call_id": "c1", "content": "Ann"},
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png", "detail": "low"}}],
            },
        ],
        "max_completion_tokens": 7,
        "temperature": 0,
        "top_p": 0.5,
        "reasoning_effort": "low",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
        },
        "tools": [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}, "strict": True}}],
        "tool_choice": {"type": "function", "function": {"name": "find"}},
        "parallel_tool_calls": False,
        "logprobs": True,
        "top_logprobs": 2,
        "service_tier": "flex",
        "stream": True,
        "seed": 4,
        "top_k": 9,
    }


def test_null_means_not_given() -> None:
    fields = ("temperature", "tools", "tool_choice", "text", "reasoning", "metadata", "conversation", "background")

    assert chat_of(input="x", **dict.fromkeys(fields)) == {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
    }


@pytest.mark.parametrize("body", [b"", b"[]", b'{"input": "\xff"}', b'{"input":' + b"[" * 100_000, b'{"model": "m"}'])
def test_what_is_no_request_is_malformed_and_nothing_worse(body: bytes) -> None:
    with pytest.raises(JobMalformed):
        asked_in(body, "job")


def test_an_answer_with_thoughts_words_and_calls_is_told_as_openais_client_expects_it() -> None:
    calls = [{"id": f"call-{n}", "function": {"name": "find", "arguments": '{"who": "Ann"}'}} for n in range(2)]
    record = a_record(background=True, tools=[TOOL], instructions="Be kind", metadata={"a": "b"})
    result = a_result("tool_calls", content="Let me look.", reasoning=" Hm. ", tool_calls=calls)

    events = told(record, result)

    # Every event is one of OpenAI's own types, by its strict reading, and they add up in its client.
    state = ResponseStreamState(input_tools=omit, text_format=omit)
    for event in events:
        TypeAdapter(ResponseStreamEvent).validate_python(event)
        state.handle_event(construct_type_unchecked(value=event, type_=ResponseStreamEvent))
    final = state._completed_response
    assert final is not None
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call", "function_call"]
    assert final.output_text == "Let me look."
    assert final.usage is not None
    assert (final.usage.input_tokens, final.usage.input_tokens_details.cached_tokens) == (3, 2)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert items == events[-1]["response"]["output"]
    arguments = "".join(
        event["delta"]
        for event in events
        if event["type"] == "response.function_call_arguments.delta" and event["item_id"] == "fc_job_1"
    )
    assert arguments == '{"who": "Ann"}'
    Response.model_validate(json.loads(msgspec.json.encode(view_at_end(record, ending_of(result)))))


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (a_result("length", content="Let me"), "incomplete"),
        (a_result("length", reasoning="Hm"), "incomplete"),
        (a_result("stop", content=""), "completed"),
        (a_result("stop", content=" \n"), "completed"),
    ],
)
def test_every_end_is_one_that_the_client_knows(result: Result, status: str) -> None:
    events = told(a_record(), result)

    for event in events:
        TypeAdapter(ResponseStreamEvent).validate_python(event)
    assert events[-1]["type"] == f"response.{status}"
    items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert items == events[-1]["response"]["output"]


def test_a_failure_after_words_has_the_number_after_them_also_for_whom_frames_are_gone() -> None:
    detail = ErrorDetail(message="the engine died", code="attempts_spent")
    failed = msgspec.structs.replace(a_result(status=Status.DEAD), error=detail, status_code=500)
    words = [Started(job="job", seq=0, attempt=1), Delta(job="job", seq=1, text="12345678")]
    first, late = Teller(is_background=True), Teller(is_background=True, after=6)
    for one in [*words, failed]:
        first.take(one)
    late.take(failed)

    events = read(Wire(a_record(background=True)).events(first.due(), first.ending))
    last = read(Wire(a_record(background=True)).events(late.due(), late.ending))

    assert [event["sequence_number"] for event in events] == list(range(8))
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["error"] == {"code": "attempts_spent", "message": "the engine died", "param": None}
    assert last == events[-1:]


def test_before_its_job_begins_only_the_queue_is_told_of() -> None:
    teller = Teller(is_background=True)

    assert [step.kind for _, step in teller.due()] == ["created", "queued"]
    assert teller.due() == []
    teller.take(Started(job="job", seq=0, attempt=1))
    assert [step.kind for _, step in teller.due()] == ["in_progress"]


def test_a_reader_who_had_none_of_what_differs_goes_on_and_one_who_had_it_is_told_so() -> None:
    said = [
        Started(job="job", seq=0, attempt=1),
        Delta(job="job", seq=1, text="12345678abcd"),
        Started(job="job", seq=0, attempt=2),
        Delta(job="job", seq=1, text="12345678EFGHIJKL"),
    ]
    # Numbers 0 to 4 open the message, 5 and 6 are what both said, 7 is what differs.
    had_common, had_more = Teller(is_background=True, after=6), Teller(is_background=True, after=7)
    for one in said:
        had_common.take(one)
        had_more.take(one)

    assert [(number, step.text) for number, step in had_common.due()] == [(7, "EFGH"), (8, "IJKL")]
    assert had_more.due() == []
    (error,) = read(error_event(error_of(had_more, "resp_job")))
    assert (error["code"], error["sequence_number"], error["error"]["code"]) == ("stream_broken", 8, "stream_broken")


def test_whoever_comes_back_when_frames_are_gone_hears_the_rest_only_where_it_is_sure_to_be_the_rest() -> None:
    twice = msgspec.structs.replace(a_result(content="12345678"), attempt=2)
    unsure = Teller(is_background=True, after=6)
    sure = Teller(is_background=True, after=6, is_repeatable=True)
    fresh = Teller(is_background=True)
    for teller in (unsure, sure, fresh):
        teller.take(twice)

    assert unsure.broken
    assert not sure.broken
    assert [number for number, _ in sure.due()] == [7, 8, 9, 10]
    assert len(fresh.due()) == 11


def test_blank_space_that_only_the_stream_has_does_not_break_it() -> None:
    calls = [{"id": "c", "function": {"name": "find", "arguments": "{}"}}]
    result = a_result(content="Look", reasoning="Hm", tool_calls=calls)
    teller = Teller(is_background=True)
    teller.take(Started(job="job", seq=0, attempt=1))
    for seq, (kind, text) in enumerate(
        [("reasoning", "\n"), ("reasoning", "Hm\n"), ("content", "Look"), ("content", "\n\n")], 1
    ):
        chunk = json.dumps({"choices": [{"index": 0, "delta": {kind: text}}]}).encode()
        teller.take(Chunk(job="job", seq=seq, chunk=msgspec.Raw(chunk)))
    live = teller.due()
    teller.take(Finished(job="job", seq=5, result=result))

    whole = list(enumerate(script_of(ending_of(result), is_background=True)))
    assert [*live, *teller.due()] == whole
    assert [step.text for _, step in live if step.kind.endswith("delta")] == ["Hm", "Look"]


def test_a_mended_feed_may_join_and_begin_again() -> None:
    teller = Teller(is_background=False, is_mended=True)
    teller.take(Started(job="job", seq=0, attempt=1))
    teller.take(Delta(job="job", seq=9, text="1234"))
    first = teller.due()
    teller.take(Restarted(job="job", attempt=2))
    teller.take(Delta(job="job", seq=1, text="12345678"))
    teller.take(a_result(content="12345678"))

    whole = list(enumerate(script_of(ending_of(a_result(content="12345678")), is_background=False)))
    assert [*first, *teller.due()] == whole


def test_a_record_is_read_as_it_was_written() -> None:
    record = a_record(background=True, tools=[TOOL], tool_choice={"type": "function", "name": "find"}, top_logprobs=3)

    assert decode_record(msgspec.json.encode(record)) == record


def test_a_second_attempt_whose_start_was_lost_is_not_taken_for_the_rest_of_the_first() -> None:
    first = [Started(job="job", seq=0, attempt=1), *_words(1, "abcd", "efgh")]
    second = [Started(job="job", seq=0, attempt=2), *_words(1, "abcd", "EFGH", "IJKL")]
    teller = Teller(is_background=True)
    for one in [*first, *second[2:]]:
        teller.take(one)

    assert [step.text for _, step in teller.due() if step.kind == "message.delta"] == ["abcd", "efgh"]
    assert teller.has_gap
    for one in [*first, *second]:
        teller.take(one)
    assert "something else" in teller.broken


def _words(seq: int, *texts: str) -> list[Delta]:
    return [Delta(job="job", seq=number, text=text) for number, text in enumerate(texts, seq)]
