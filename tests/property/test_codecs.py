"""Every decoder over bytes that anybody may publish, and old and new programs reading each other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import subjects
from schemas.batch_line import BatchLine, decode_line, decode_output
from schemas.errors import JobMalformed, PenstockError
from schemas.frames import Chunk, Delta, Event, Finished, Started, decode_frame, encode_frame
from schemas.job import Endpoint, Job, decode_job, encode_job
from schemas.result import ErrorDetail, Result, Status, Timing, Usage, decode_result, encode_result
from schemas.subjects import Lane

# No surrogates: JSON text holds none, and msgspec refuses to write one.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
names = st.text("abcXYZ019_-", min_size=1, max_size=64)
counts = st.integers(0, 2**31)
times = st.integers(0, 2**53 - 1)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
bodies = st.dictionaries(texts.filter(lambda key: key != "model"), json_values, max_size=4)
raws = bodies.map(lambda body: msgspec.Raw(msgspec.json.encode(body)))

jobs = st.builds(
    Job,
    id=names,
    body=raws,
    endpoint=st.sampled_from([endpoint.value for endpoint in Endpoint]),
    reply_to=st.just("") | names.map(lambda name: subjects.live_reply(name, "p", "t")),
    deadline_unix_ms=times,
    submitted_unix_ms=times,
    priority=st.integers(-(2**31), 2**31 - 1),
    custom_id=texts,
)
results = st.builds(
    Result,
    id=names,
    status=st.sampled_from(Status),
    status_code=st.integers(100, 599),
    pool=names,
    tenant=names,
    endpoint=texts,
    custom_id=texts,
    body=raws,
    error=st.none() | st.builds(ErrorDetail, message=texts, code=texts, type=texts, param=st.none() | texts),
    usage=st.builds(Usage, prompt_tokens=counts, completion_tokens=counts, cached_tokens=counts),
    timing=st.builds(Timing, submitted_unix_ms=times, started_unix_ms=times, finished_unix_ms=times),
    attempt=counts,
    consumer=texts,
)
events: st.SearchStrategy[Event] = (
    st.builds(Started, job=names, seq=counts, attempt=counts, consumer=texts)
    | st.builds(Delta, job=names, seq=counts, text=texts, tokens=counts, choice=counts)
    | st.builds(Chunk, job=names, seq=counts, chunk=raws, tokens=counts)
    | st.builds(Finished, job=names, seq=counts, result=st.none() | results)
)
DEEP = b"[" * 100_000 + b"]" * 100_000


def same(one: object, other: object) -> bool:
    """Equal by what they say on the wire; `Raw` compares by identity of its buffer otherwise."""
    return msgspec.json.encode(one) == msgspec.json.encode(other)


@given(st.binary(max_size=300))
def test_a_job_of_random_bytes_raises_only_our_own_errors(payload: bytes) -> None:
    with contextlib.suppress(PenstockError):
        decode_job(payload)


@given(st.dictionaries(st.sampled_from(Job.__struct_fields__), json_values))
def test_a_job_with_fields_of_any_type_raises_only_our_own_errors(fields: dict[str, Any]) -> None:
    with contextlib.suppress(PenstockError):
        decode_job(msgspec.json.encode(fields))


@given(jobs, st.data())
def test_a_job_with_one_byte_changed_raises_only_our_own_errors(job: Job, data: st.DataObject) -> None:
    payload = bytearray(encode_job(job))
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))

    with contextlib.suppress(PenstockError):
        decode_job(bytes(payload))


@given(jobs, st.data())
def test_a_job_cut_short_is_malformed(job: Job, data: st.DataObject) -> None:
    payload = encode_job(job)

    with pytest.raises(JobMalformed):
        decode_job(payload[: data.draw(st.integers(0, len(payload) - 1))])


@given(st.binary(max_size=300))
def test_results_frames_and_outputs_of_random_bytes_raise_only_decode_errors(payload: bytes) -> None:
    for decode in (decode_result, decode_frame, decode_output):
        with contextlib.suppress(msgspec.DecodeError):
            decode(payload)


@given(st.binary(max_size=300))
def test_a_batch_line_of_random_bytes_raises_only_our_own_errors(text: bytes) -> None:
    with contextlib.suppress(JobMalformed):
        decode_line(text)


@given(jobs)
def test_a_job_comes_back_as_it_was(job: Job) -> None:
    assert same(decode_job(encode_job(job)), job)


@given(results)
def test_a_result_comes_back_as_it_was(result: Result) -> None:
    assert same(decode_result(encode_result(result)), result)


@given(st.lists(events, max_size=5))
def test_a_frame_comes_back_as_it_was(frame: list[Event]) -> None:
    back = decode_frame(encode_frame(frame))

    assert [type(event) for event in back] == [type(event) for event in frame]
    assert same(back, frame)


@given(jobs, results, texts, json_values)
def test_what_a_newer_program_adds_is_ignored(job: Job, result: Result, field: str, value: Any) -> None:
    def with_more(payload: bytes) -> bytes:
        return msgspec.json.encode({f"new_{field}": value, **msgspec.json.decode(payload)})

    assert same(decode_job(with_more(encode_job(job))), job)
    assert same(decode_result(with_more(encode_result(result))), result)


@given(names, raws)
def test_a_job_of_only_what_must_be_there_is_read_with_defaults(job_id: str, body: msgspec.Raw) -> None:
    job = decode_job(msgspec.json.encode({"id": job_id, "body": body}))

    assert same(job, Job(id=job_id, body=body))


@given(names, st.sampled_from(Lane), names)
def test_a_ready_subject_comes_back_as_it_was(pool: str, lane: Lane, tenant: str) -> None:
    assert subjects.parse_ready(subjects.ready(pool, lane, tenant)) == (pool, lane, tenant)


@given(st.text(max_size=80))
def test_any_text_is_a_subject_of_ours_or_malformed(text: str) -> None:
    checks: list[Callable[[str], object]] = [
        subjects.parse_ready,
        subjects.checked_reply,
        subjects.ready_of_pool,
        lambda name: subjects.live_reply("token", name, "t"),
        lambda name: subjects.live_reply("token", "p", name),
        subjects.checked_job_id,
    ]
    for check in checks:
        try:
            found = check(text)
        except JobMalformed:
            continue
        assert not set(str(found)) & set(" \t\r\n*")


@pytest.mark.parametrize(
    "where", [b'{"id":"a","body":%s}', b'{"id":"a","body":{"x":%s}}', b'{"id":"a","y":%s,"body":{}}']
)
def test_a_job_nested_without_end_is_malformed(where: bytes) -> None:
    with pytest.raises(JobMalformed, match="nested too deeply"):
        decode_job(where % DEEP)


def test_a_batch_line_nested_without_end_is_malformed() -> None:
    with pytest.raises(JobMalformed, match="nested too deeply"):
        decode_line(b'{"custom_id":"a","url":"/v1/completions","body":%s}' % DEEP)


def test_a_frame_nested_without_end_is_a_decode_error() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_frame(b'[{"type":"chunk","job":"a","seq":0,"chunk":%s}]' % DEEP)


@given(texts.filter(bool), raws)
def test_a_batch_line_comes_back_as_it_was(custom_id: str, body: msgspec.Raw) -> None:
    line = BatchLine(custom_id=custom_id, url="/v1/completions", body=body)

    assert same(decode_line(msgspec.json.encode(line)), line)
