"""What a batch is made of, without anything that waits: its life, its survey, its form, its pages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from producer.gateway.batches import life
from producer.gateway.batches.answer_pages import AnswerPages
from producer.gateway.batches.answers import answer_of
from producer.gateway.batches.create import window_s_of
from producer.gateway.batches.life import NotCancellable, Step
from producer.gateway.batches.multipart import Form
from producer.gateway.batches.record import BatchRecord, Ending, LostBatch, Segment
from producer.gateway.batches.split import Line
from producer.gateway.batches.survey import EMBEDDING_INPUTS_MAX, ERRORS_MAX, Survey
from producer.gateway.batches.tally import Tally, pause_s
from producer.gateway.batches.views import Page, cut, page_of
from producer.stored import Found
from schemas.errors import JobMalformed, UnknownModel
from schemas.result import ErrorDetail, Result, Status


def a_record(**changes: Any) -> BatchRecord:
    fresh = BatchRecord(
        id="batch_1",
        tenant="ann",
        input_file_id="file-1",
        endpoint="/v1/chat/completions",
        completion_window="24h",
        created_at=100,
        expires_at=200,
        runner="one",
        turn=1,
    )
    return replace(fresh, **changes)


def begun(**changes: Any) -> BatchRecord:
    record = life.began(a_record(), total=3, pools={"m": "p"}, model="m", cursor=7, now_s=101)
    return replace(record, **changes)


def test_a_cancel_that_came_first_wins_over_whatever_comes_next() -> None:
    cancelling = life.cancel_asked(a_record(), 102)

    assert life.began(cancelling, total=3, pools={}, model="", cursor=7, now_s=103).status == "cancelling"
    assert life.refused(cancelling, [], 103).status == "cancelled"
    closed = life.closed(life.cancel_asked(begun(), 102), "completed", 103)
    assert (closed.status, closed.ending) == ("cancelling", "cancelled")
    assert life.ended(closed, 104).cancelled_at == 104


def test_a_cancel_that_comes_too_late_changes_nothing() -> None:
    closing = life.closed(begun(), "completed", 103)
    assert life.cancel_asked(closing, 104) == closing
    ended = life.ended(closing, 104)
    with pytest.raises(NotCancellable):
        life.cancel_asked(ended, 105)
    cancelled = life.ended(life.closed(life.cancel_asked(begun(), 102), "cancelled", 103), 104)
    assert life.cancel_asked(cancelled, 105) == cancelled


@pytest.mark.parametrize(
    ("answered", "now_s", "is_cancelling", "expected"),
    [
        (0, 150, False, ""),
        (3, 150, False, "completed"),
        (3, 250, False, "completed"),
        (2, 200, False, "expired"),
        (1, 150, True, "cancelled"),
        (3, 250, True, "cancelled"),
    ],
)
def test_how_a_batch_ends(answered: int, now_s: int, is_cancelling: bool, expected: str) -> None:
    ending = life.ending_of(begun(), answered=answered, now_s=now_s, is_cancelling=is_cancelling)
    assert ending == expected


def test_a_runner_that_was_replaced_changes_nothing() -> None:
    taken = life.claimed(a_record(), "two", "one")
    with pytest.raises(LostBatch):
        life.mine(taken, "one", 1)
    with pytest.raises(LostBatch):
        life.claimed(taken, "three", "one")
    # Nor does one that lost it and had it back in between: what it remembers is old.
    back = life.claimed(taken, "one", "two")
    with pytest.raises(LostBatch):
        life.mine(back, "one", 1)
    assert life.mine(back, "one", 3) == back


def test_steps_add_up_and_positions_never_go_back() -> None:
    first = Step(completed=2, input_tokens=5, cursor=20, poured_lines=3, poured_bytes=90, output=Segment("a", 1))
    record = life.progressed(begun(), first)
    record = life.progressed(record, Step(failed=1, cursor=19, error=Segment("b", 2)))

    assert (record.completed, record.failed, record.answered, record.input_tokens) == (2, 1, 3, 5)
    assert (record.cursor, record.poured_lines, record.poured_bytes) == (20, 3, 90)
    assert (record.output, record.error) == ([Segment("a", 1)], [Segment("b", 2)])


def test_answers_go_to_the_file_that_openai_puts_them_in() -> None:
    def of(status: Status, body: bytes, error: ErrorDetail | None = None, code: int = 200) -> dict[str, Any]:
        import msgspec

        result = Result(
            id="j",
            status=status,
            status_code=code,
            pool="p",
            tenant="t",
            custom_id="c",
            body=msgspec.Raw(body),
            error=error,
        )
        answer = answer_of(result)
        return {"side": answer.side, **json.loads(answer.line)}

    detail = ErrorDetail(message="no", code="bad")
    done = of(Status.COMPLETED, b'{"x":1}')
    assert (done["side"], done["response"]["status_code"], done["error"]) == ("output", 200, None)
    failed = of(Status.FAILED, b'{"error":{}}', detail, 400)
    assert (failed["side"], failed["response"]["body"], failed["error"]) == ("error", {"error": {}}, None)
    for status, code in ((Status.CANCELLED, "batch_cancelled"), (Status.EXPIRED, "batch_expired")):
        unexecuted = of(status, b'{"error":{}}', detail, 499)
        assert (unexecuted["response"], unexecuted["error"]["code"]) == (None, code)
    dead = of(Status.DEAD, b"null", detail, 500)
    assert (dead["side"], dead["response"], dead["error"]["code"]) == ("error", None, "bad")


@pytest.mark.parametrize(
    ("status", "ending", "code"),
    [
        (Status.CANCELLED, "expired", "batch_expired"),
        (Status.EXPIRED, "expired", "batch_expired"),
        (Status.CANCELLED, "cancelled", "batch_cancelled"),
        # Its own deadline came first, whatever was asked for afterwards.
        (Status.EXPIRED, "cancelled", "batch_expired"),
    ],
)
def test_a_job_that_the_end_of_its_batch_cancelled_ends_as_the_batch_does(
    status: Status, ending: Ending, code: str
) -> None:
    result = Result(id="j", status=status, status_code=499, pool="p", tenant="t", custom_id="c")

    line = json.loads(answer_of(result, ending).line)

    assert line["error"]["code"] == code


def a_survey(*, route_of: Callable[[str], str] = lambda _: "p", **changes: Any) -> Survey:
    settings: dict[str, Any] = {"lines_max": 1000, "mixed_models": False, "line_bytes_max": 1000, **changes}
    endpoint = settings.pop("endpoint", "/v1/chat/completions")
    return Survey("batch_1", endpoint, route_of=route_of, **settings)


def a_line(number: int, *, url: str = "/v1/chat/completions", **body: Any) -> Line:
    whole = {"custom_id": f"c{number}", "method": "POST", "url": url, "body": {"model": "m", **body}}
    return Line(number, 0, json.dumps(whole).encode())


def test_a_survey_stops_at_so_many_errors() -> None:
    survey = a_survey()
    for number in range(1, ERRORS_MAX + 50):
        survey.take(Line(number, 0, b"{"))
    assert survey.is_hopeless
    assert [error.line for error in survey.errors] == list(range(1, ERRORS_MAX + 1))


def test_mixed_models_go_to_their_own_pools_where_that_is_allowed() -> None:
    survey = a_survey(mixed_models=True, route_of=lambda model: f"pool-of-{model}")
    survey.take(a_line(1))
    survey.take(a_line(2, model="n"))
    assert survey.pools == {"m": "pool-of-m", "n": "pool-of-n"}
    assert not survey.errors


def test_a_model_without_a_pool_may_have_one_later() -> None:
    pools: dict[str, str] = {}

    def route_of(model: str) -> str:
        if model not in pools:
            raise UnknownModel("nobody serves it", param="model")
        return pools[model]

    survey = a_survey(route_of=route_of)
    survey.take(a_line(3))
    survey.route_again()
    assert survey.unrouted
    pools["m"] = "p"
    survey.route_again()
    assert (survey.unrouted, survey.pools, survey.errors) == ({}, {"m": "p"}, [])

    late = a_survey(route_of=lambda model: route_of(f"no-{model}"))
    late.take(a_line(3))
    late.give_up()
    assert [(error.code, error.line) for error in late.errors] == [("model_not_found", 3)]


def test_embedding_inputs_are_counted_over_all_lines() -> None:
    survey = a_survey(endpoint="/v1/embeddings", line_bytes_max=10**9)
    survey.take(a_line(1, url="/v1/embeddings", input=["x"] * EMBEDDING_INPUTS_MAX))
    assert not survey.errors
    # A list of tokens is one input.
    survey.take(a_line(2, url="/v1/embeddings", input=[1, 2, 3]))
    assert [(error.code, error.line) for error in survey.errors] == [("too_many_tasks", 2)]


@pytest.mark.parametrize("text", ["24h", "2h", "90m", "45s", "1d"])
def test_windows_that_are_times(text: str) -> None:
    assert window_s_of(text, 7 * 86400) == {"24h": 86400, "2h": 7200, "90m": 5400, "45s": 45, "1d": 86400}[text]


@pytest.mark.parametrize("text", ["", "24", "h", "0h", "-1h", "8d", "infh", "2030-01-01T00:00:00Z", "1e3h", "٣h"])
def test_windows_that_are_none(text: str) -> None:
    with pytest.raises(JobMalformed) as error:
        window_s_of(text, 7 * 86400)
    assert error.value.param == "completion_window"


FORM = (
    b'--x\r\ncontent-disposition: form-data; name="file"; filename="\xc3\xa4.jsonl"\r\n'
    b"content-type: text/plain\r\n\r\n--x\nline\r\n--xy\r\n--x\r\n"
    b'Content-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--x--\r\n'
)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_form_is_read_however_its_bytes_come(size: int) -> None:
    form = Form(b"multipart/form-data; boundary=x")

    found = b"".join(part for at in range(0, len(FORM), size) for part in form.feed(FORM[at : at + size]))

    assert (found, form.filename, form.fields, form.is_whole) == (
        b"--x\nline\r\n--xy",
        "ä.jsonl",
        {"purpose": "batch"},
        True,
    )


@pytest.mark.parametrize(
    "form",
    [
        b"nothing",
        FORM.replace(b"purpose", b"file"),
        FORM.replace(b"batch", b"b" * 20_000),
        b'--x\r\ncontent-disposition: form-data; name="a"\r\n' + b"h: v\r\n" * 100 + b"\r\n",
    ],
)
def test_what_is_no_form_is_refused(form: bytes) -> None:
    with pytest.raises(JobMalformed):
        Form(b"multipart/form-data; boundary=x").feed(form)


class Thing:
    def __init__(self, name: str) -> None:
        self.id = name


def test_pages_follow_each_other_also_when_their_last_thing_is_gone() -> None:
    things = [Thing(f"t{n}") for n in range(5)]
    first, has_more = cut(things, Page(2))
    assert ([one.id for one in first], has_more) == (["t4", "t3"], True)
    rest, has_more = cut([one for one in things if one.id != "t3"], Page(10, after="t3"))
    assert ([one.id for one in rest], has_more) == (["t2", "t1", "t0"], False)
    oldest, has_more = cut(things, Page(2, after="t1", is_ascending=True))
    assert ([one.id for one in oldest], has_more) == (["t2", "t3"], True)
    with pytest.raises(JobMalformed):
        page_of({"order": "up"}, most=10, default=5)


def test_lines_wait_a_second_at_first_and_half_a_minute_at_most() -> None:
    assert [pause_s(running) for running in (0, 10, 100, 86400)] == [1.0, 1.0, 2.0, 30.0]


def test_a_tally_that_only_moved_its_cursor_is_worth_storing() -> None:
    tally = Tally(cursor=5)
    assert tally.is_empty
    tally.cursor = 6
    assert not tally.is_empty
    assert tally.next().is_empty


def test_batches_that_have_read_equally_far_share_what_one_of_them_asked_for() -> None:
    stream = [Found(f"r.{seq}", seq, b"x" * 100, "") for seq in range(1, 6)]
    asked: list[tuple[str, int]] = []

    async def read(tenant: str, start_seq: int) -> list[Found]:
        asked.append((tenant, start_seq))
        await asyncio.sleep(0)
        return stream[start_seq - 1 : start_seq + 1]

    async def read_all(pages: AnswerPages) -> list[int]:
        cursor, seen = 1, []
        while page := await pages.page("ann", cursor):
            seen += [found.seq for found in page]
            cursor = page[-1].seq + 1
        return seen

    async def story() -> None:
        pages = AnswerPages(read)
        quitter = asyncio.create_task(pages.page("ann", 1))
        readers = [asyncio.create_task(read_all(pages)) for _ in range(3)]
        await asyncio.sleep(0)
        quitter.cancel()
        assert [await reader for reader in readers] == [[1, 2, 3, 4, 5]] * 3
        assert asked == [("ann", 1), ("ann", 3), ("ann", 5), ("ann", 6)]
        # The end is asked for each time: something may have come.
        await pages.page("ann", 6)
        assert asked[-2:] == [("ann", 6)] * 2

    asyncio.run(story())
