from __future__ import annotations

import json

import pytest

from producer import ids
from producer.batch.ledger import Ledger, Rejected, Todo, numbered, written
from schemas.batch_line import encode_output, rejected_output
from schemas.errors import ConfigError, JobMalformed


def line(custom_id: object, **more) -> bytes:
    return json.dumps({"custom_id": custom_id, "url": "/v1/completions", "body": {"prompt": "x"}, **more}).encode()


def answer(line_id: str) -> bytes:
    return encode_output(rejected_output(line_id, "c", JobMalformed("no")))


def test_every_line_gets_a_job_of_its_own_and_the_same_again() -> None:
    first = [Ledger("run").take(1, line("a")), Ledger("run").take(9, line("a"))]

    assert all(isinstance(todo, Todo) for todo in first)
    assert first[0].job_id == first[1].job_id == ids.job_id_of_line("run", "a")


def test_what_is_written_is_not_asked_for_again() -> None:
    ledger = Ledger("run", [ids.job_id_of_line("run", "a"), ids.line_id("run", 3)])

    assert ledger.take(1, line("a")) is None
    assert isinstance(ledger.take(2, line("b")), Todo)
    assert ledger.take(3, b"{") is None
    assert ledger.skipped == 2


@pytest.mark.parametrize(
    ("text", "param", "says"),
    [
        (b"{", "line", "line 4 is not JSON"),
        (b"\xff", "line", "line 4 is not UTF-8"),
        (b"[]", "line", "line 4: Expected"),
        (b"{}", "custom_id", "line 4: .*custom_id"),
        (line(""), "custom_id", "must not be empty"),
        (line("a", url="/v1/other"), "url", "/v1/other"),
        (line("a", method="GET"), "method", "POST"),
        (line(7), "custom_id", "Expected"),
    ],
)
def test_a_malformed_line_is_rejected_by_number_and_field(text, param, says) -> None:
    decision = Ledger("run").take(4, text)

    assert isinstance(decision, Rejected)
    assert decision.error.param == param
    with pytest.raises(JobMalformed, match=says):
        raise decision.error


def test_a_custom_id_used_twice_is_rejected_the_second_time() -> None:
    ledger = Ledger("run")
    ledger.take(1, line("a"))

    decision = ledger.take(2, line("a"))

    assert isinstance(decision, Rejected)
    assert (decision.error.code, decision.custom_id) == ("duplicate_custom_id", "a")


def test_a_torn_last_line_is_cut_off() -> None:
    whole = [answer("r-1"), answer("r-2")]

    found = written([*whole, answer("r-3")[:20]])

    assert found.ids == {"r-1", "r-2"}
    assert found.length == sum(map(len, whole))
    assert found.failed == 2


def test_a_whole_last_line_without_line_end_is_torn_too() -> None:
    assert written([answer("r-1"), answer("r-2").rstrip()]).ids == {"r-1"}


def test_a_foreign_file_is_not_truncated() -> None:
    with pytest.raises(ConfigError, match="line 1"):
        written([b"my,precious,table\n", answer("r-1")])


def test_line_ends_and_byte_order_marks_of_other_systems_are_taken() -> None:
    assert list(numbered([b"\xef\xbb\xbfa\r\n", b"b"])) == [(1, b"a"), (2, b"b")]
