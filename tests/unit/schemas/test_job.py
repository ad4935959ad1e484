from __future__ import annotations

import pytest

from schemas import subjects
from schemas.errors import JobMalformed, PenstockError, UnknownEndpoint
from schemas.job import decode_job


@pytest.mark.parametrize(
    ("payload", "param"),
    [
        (b"", "job"),
        (b"[]", "job"),
        (b'{"id":"a","body":{}', "job"),
        (b"\x81\xa2id\xa1a", "job"),
        (b'{"id":"a","body":{"prompt":"\xff"}}', "job"),
        (b'{"body":{}}', "id"),
        (b'{"id":"a"}', "body"),
        (b'{"id":"a b","body":{}}', "id"),
        (b'{"id":"","body":{}}', "id"),
        (b'{"id":"a","body":null}', "body"),
        (b'{"id":"a","body":[1]}', "body"),
        (b'{"id":"a","body":{"model":5}}', "body.model"),
        (b'{"id":"a","body":{},"deadline_unix_ms":"soon"}', "deadline_unix_ms"),
        (b'{"id":"a","body":{},"deadline_unix_ms":-1}', "deadline_unix_ms"),
        (b'{"id":"a","body":{},"deadline_unix_ms":%d}' % 2**53, "deadline_unix_ms"),
        (b'{"id":"a","body":{},"submitted_unix_ms":-1}', "submitted_unix_ms"),
        (b'{"id":"a","body":{},"priority":2147483648}', "priority"),
        (b'{"id":"a","body":{},"reply_to":"somewhere.else"}', "reply_to"),
        (b'{"id":"a","body":{},"reply_to":"penstock.ready.p.bulk.t"}', "reply_to"),
        (b'{"id":"a","body":{},"reply_to":"penstock.reply.>"}', "reply_to"),
    ],
)
def test_a_malformed_job_names_the_field_at_fault(payload: bytes, param: str) -> None:
    with pytest.raises(JobMalformed) as caught:
        decode_job(payload)

    assert caught.value.param == param


def test_an_endpoint_nobody_serves_is_named_with_those_that_are() -> None:
    with pytest.raises(UnknownEndpoint, match=r"/v1/audio.*/v1/chat/completions"):
        decode_job(b'{"id":"a","body":{},"endpoint":"/v1/audio"}')


def test_the_body_travels_untouched() -> None:
    body = b'{ "prompt" : "\\u4f60\xe5\xa5\xbd", "temperature": 0.10 }'

    job = decode_job(b'{"id":"a","body":%s}' % body)

    assert bytes(job.body) == body


@pytest.mark.parametrize("name", ["", "a.b", "a b", "a*", ">", "模型", "x" * 65, "a\n"])
def test_a_name_that_nats_would_split_is_refused_not_rewritten(name: str) -> None:
    with pytest.raises(JobMalformed):
        subjects.checked_name(name, "pool")


def test_every_subject_fits_in_what_nats_advises() -> None:
    longest = subjects.result("p" * 64, "t" * 64, "j" * 96)

    assert len(longest) < 256


def test_results_are_announced_beside_where_they_are_stored() -> None:
    stored, announced = subjects.result("p", "t", "j"), subjects.done("p", "t", "j")

    assert stored.removeprefix(subjects.RESULTS_ALL[:-1]) == announced.removeprefix(subjects.DONE_ALL[:-1])


def test_every_error_has_a_code_a_client_can_read() -> None:
    def below(cls: type[PenstockError]) -> list[type[PenstockError]]:
        return [cls, *(deeper for child in cls.__subclasses__() for deeper in below(child))]

    assert all(cls.code.replace("_", "").islower() and 400 <= cls.status_code < 600 for cls in below(PenstockError))
