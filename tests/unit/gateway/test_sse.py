from __future__ import annotations

import json
from typing import Any

import msgspec

from producer.events import Event, Restarted
from producer.gateway.sse import Writer
from schemas.frames import Chunk, Delta, Finished, Started
from schemas.result import ErrorDetail, Result, Status, Usage

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def writer(endpoint: str = CHAT, **more: Any) -> Writer:
    return Writer(job="j1", endpoint=endpoint, model='odd "name"', created=7, **more)


def delta(text: str, choice: int = 0) -> Delta:
    return Delta(job="j1", seq=1, text=text, choice=choice)


def finished(body: dict[str, Any] | None = None, **more: Any) -> Finished:
    fields: dict[str, Any] = {"status": Status.COMPLETED, "status_code": 200, "usage": Usage(prompt_tokens=3), **more}
    raw = msgspec.Raw(json.dumps(body).encode())
    return Finished(job="j1", seq=9, result=Result(id="j1", pool="p", tenant="t", body=raw, **fields))


def said(events: list[Event], one: Writer) -> list[Any]:
    lines = one.take(events).decode().split("\n\n")
    assert lines.pop() == ""
    texts = [line.removeprefix("data: ") for line in lines]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


ANSWER = {"choices": [{"index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": "a\nb"}}]}


def test_a_chat_says_who_speaks_then_text_then_why_it_ended() -> None:
    chunks = said([Started(job="j1", seq=0, attempt=1), delta("a\n"), delta('"b"'), finished(ANSWER)], writer())

    choices = [chunk["choices"][0] for chunk in chunks[:-1]]
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": ""},
        {"content": "a\n"},
        {"content": '"b"'},
        {},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "length"]
    assert {(chunk["id"], chunk["model"], chunk["created"]) for chunk in chunks[:-1]} == {
        ("chatcmpl-j1", 'odd "name"', 7)
    }
    assert "usage" not in chunks[0]
    assert chunks[-1] == "[DONE]"


def test_with_usage_every_chunk_has_the_field_and_the_last_the_figures_of_the_stored_answer() -> None:
    body = {**ANSWER, "usage": {"prompt_tokens": 3, "total_tokens": 5, "details": {"cached": 1}}}
    chunks = said([delta("a"), finished(body)], writer(wants_usage=True))

    assert [chunk["usage"] for chunk in chunks[:-2]] == [None] * 3
    assert (chunks[-2]["choices"], chunks[-2]["usage"]) == ([], body["usage"])


def test_choices_of_a_completion_are_told_apart() -> None:
    body = {"choices": [{"index": n, "text": str(n), "finish_reason": "stop"} for n in range(2)]}
    chunks = said([delta("one", 1), delta("zero", 0), finished(body)], writer(COMPLETIONS, choices=2))

    texts = [(chunk["choices"][0]["index"], chunk["choices"][0]["text"]) for chunk in chunks[:-1]]
    assert texts == [(1, "one"), (0, "zero"), (0, ""), (1, "")]
    assert chunks[0]["id"] == "cmpl-j1"
    assert chunks[0]["object"] == "text_completion"


def test_an_answer_without_any_text_is_a_stream_too() -> None:
    chunks = said([finished(ANSWER)], writer())

    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[1]["choices"][0]["finish_reason"] == "length"


def test_the_engines_own_chunks_keep_what_they_hold_and_get_the_streams_name() -> None:
    call = [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "c"}]}, "logprobs": {"content": []}}]
    end = [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]
    raw = [
        msgspec.Raw(json.dumps({"id": "other", "model": "x", "choices": one}, separators=(",", ":")).encode())
        for one in (call, end)
    ]
    events: list[Event] = [Chunk(job="j1", seq=n, chunk=one) for n, one in enumerate(raw)]
    chunks = said([*events, finished(ANSWER)], writer(wants_usage=True))

    assert [chunk["choices"] for chunk in chunks[:2]] == [call, end]
    assert {chunk["id"] for chunk in chunks[:-1]} == {"chatcmpl-j1"}
    assert [chunk["usage"] for chunk in chunks[:2]] == [None, None]
    assert chunks[-1] == "[DONE]"


def test_chunks_that_were_lost_on_the_way_end_in_an_error_and_not_in_silence() -> None:
    chunk = Chunk(job="j1", seq=1, chunk=msgspec.Raw(b'{"choices":[{"index":0,"delta":{"content":"a"}}]}'))
    chunks = said([chunk, finished(ANSWER)], writer())

    assert chunks[-2]["error"]["code"] == "stream_broken"
    assert "/v1/jobs/j1" in chunks[-2]["error"]["message"]


def test_an_attempt_that_says_something_else_breaks_the_stream_only_if_something_was_said() -> None:
    again = Restarted(job="j1", attempt=2)

    fresh = said([again, delta("b"), finished(ANSWER)], writer())
    broken = said([delta("a"), again, delta("b"), finished(ANSWER)], writer())

    assert fresh[1]["choices"][0]["delta"] == {"content": "b"}
    assert broken[-2]["error"]["code"] == "stream_broken"
    assert broken[-1] == "[DONE]"
    assert len(broken) == 4


def test_a_job_that_failed_ends_its_stream_with_its_own_error() -> None:
    error = ErrorDetail(message="no", code="attempts_spent", param="x")
    chunks = said([delta("a"), finished(status=Status.DEAD, status_code=500, error=error)], writer())

    assert chunks[-2]["error"] == {"message": "no", "type": "server_error", "param": "x", "code": "attempts_spent"}


def test_a_stored_answer_can_be_streamed_as_a_whole_with_its_tool_calls() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function"}], "refusal": None}
    body = {"choices": [{"index": 0, "message": message, "logprobs": {"content": []}, "finish_reason": "tool_calls"}]}
    one = writer()
    result = finished(body).result
    assert result is not None
    chunks = [json.loads(text[6:]) for text in one.whole(result).decode().split("\n\n")[:-2]]

    assert chunks[0]["choices"][0]["delta"]["tool_calls"] == [{"index": 0, "id": "c", "type": "function"}]
    assert chunks[0]["choices"][0]["logprobs"] == {"content": []}
    assert chunks[1]["choices"][0]["finish_reason"] == "tool_calls"
    assert one.is_done
