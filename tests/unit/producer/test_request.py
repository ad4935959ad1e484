from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from producer import ids
from producer.request import Prepared, Request, prepared
from schemas.config import ClientSection
from schemas.errors import BodyTooLarge, DeadlinePassed, JobMalformed, PenstockError, UnknownEndpoint

NOW = 1_800_000_000_000


def made(**fields: Any) -> Prepared:
    everything: dict[str, Any] = {"body": {"prompt": "x"}, **fields}
    request = Request(**everything)
    return prepared(request, ClientSection(), now_unix_ms=NOW, random=b"0123456789", inbox_token="token")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"body": [1]}, "body"),
        ({"body": 7}, "body"),
        ({"body": "{"}, "body"),
        ({"body": "[]"}, "body"),
        ({"body": b'{"a": "\xff"}'}, "body"),
        ({"body": {"x": object()}}, "body"),
        ({"body": {"x": "\ud800"}}, "body"),
        ({"body": {"model": 7}}, "body.model"),
        ({"lane": "fast"}, "lane"),
        ({"lane": 3}, "lane"),
        ({"pool": "a.b"}, "pool"),
        ({"tenant": "a b"}, "tenant"),
        ({"job_id": "a/b"}, "job_id"),
        ({"job_id": 7}, "job_id"),
        ({"idempotency_key": ""}, "idempotency_key"),
        ({"job_id": "a", "idempotency_key": "k"}, "idempotency_key"),
        ({"priority": "high"}, "priority"),
        ({"priority": 2**40}, "priority"),
        ({"deadline_s": "soon"}, "deadline_s"),
        ({"deadline_s": float("nan")}, "deadline_s"),
        ({"deadline": "tomorrow"}, "deadline"),
        ({"deadline": datetime(2030, 1, 1)}, "deadline"),
        ({"deadline": datetime(2100, 1, 1, tzinfo=UTC), "deadline_s": 3}, "deadline"),
        ({"stream": "maybe"}, "stream"),
        ({"custom_id": 5}, "custom_id"),
        ({"endpoint": None}, "endpoint"),
        ({"not_before_s": "soon"}, "not_before_s"),
        ({"not_before": datetime(2030, 1, 1)}, "not_before"),
        ({"not_before": datetime(2100, 1, 1, tzinfo=UTC), "not_before_s": 3}, "not_before"),
        ({"not_before_s": 10, "deadline_s": 5}, "not_before"),
        ({"window": "a b"}, "window"),
        ({"batch": "a,b"}, "batch"),
    ],
)
def test_a_wrong_field_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(JobMalformed) as caught:
        made(**fields)

    assert caught.value.param == param


def test_other_refusals_have_their_own_class() -> None:
    cases: list[tuple[dict[str, Any], type[PenstockError]]] = [
        ({"endpoint": "/v1/x"}, UnknownEndpoint),
        ({"deadline_s": 0}, DeadlinePassed),
        ({"deadline": datetime(2001, 1, 1, tzinfo=UTC)}, DeadlinePassed),
        ({"body": {"prompt": "x" * 2**20}}, BodyTooLarge),
    ]
    for fields, kind in cases:
        with pytest.raises(kind):
            made(**fields)


@pytest.mark.parametrize("body", [{"prompt": "é"}, '{"prompt": "é"}', '{"prompt": "é"}'.encode(), msgspec.Raw(b"{}")])
def test_a_body_may_be_a_mapping_text_bytes_or_raw(body: Any) -> None:
    assert msgspec.json.decode(made(body=body).payload)["id"]


def test_deadlines_are_absolute_on_the_wire() -> None:
    assert made(deadline_s=1.5).job.deadline_unix_ms == NOW + 1500
    assert made(deadline=datetime.fromtimestamp(NOW / 1000 + 9, UTC)).job.deadline_unix_ms == NOW + 9000


def test_replies_go_where_the_request_says() -> None:
    assert made().job.reply_to == "penstock.reply.live.token.default.default"
    assert made(stream=False).job.reply_to == ""
    assert made(stream="kept", job_id="j").job.reply_to == "penstock.reply.kept.default.default.j"


def test_ids_sort_by_time_and_keys_give_the_same_id() -> None:
    assert ids.job_id(1, b"z" * 10) < ids.job_id(2, b"a" * 10)
    assert made(idempotency_key="k").job.id == made(idempotency_key="k").job.id
    assert made(idempotency_key="k").job.id != made(idempotency_key="k", tenant="other").job.id
    assert ids.job_id_of_line("r", "a") != ids.job_id_of_line("s", "a")


def test_odd_texts_never_raise_anything_else() -> None:
    for body in ["", " ", "null", "1", '"x"', "{}{}", "\x00", "{" * 1000]:
        with pytest.raises(PenstockError):
            made(body=body)


@pytest.mark.parametrize(
    ("tier", "lane", "goes"),
    [
        ("priority", "", "interactive"),
        ("default", "", "standard"),
        ("flex", "", "bulk"),
        ("auto", "", "standard"),
        ("priority", "bulk", "bulk"),
        (None, "", "standard"),
    ],
)
def test_the_service_tier_chooses_the_lane_unless_one_was_given(tier: str | None, lane: str, goes: str) -> None:
    assert made(body={"prompt": "x", "service_tier": tier}, lane=lane).lane == goes


def test_a_not_before_that_has_come_already_holds_nothing_back() -> None:
    assert made(not_before_s=-5).why_it_must_wait == ""
    assert made(not_before_s=5).not_before_unix_ms == NOW + 5000
    assert made(not_before_s=5).why_it_must_wait == "not_before"
    assert made(window="night", not_before_s=5).why_it_must_wait == "window"


def test_the_ticket_carries_the_wishes() -> None:
    ticket = made(deadline_s=60, not_before_s=5, window="night", batch="b", best_effort=True).ticket()

    assert (ticket.deadline_unix_ms, ticket.not_before_unix_ms) == (NOW + 60_000, NOW + 5_000)
    assert (ticket.window, ticket.batch) == ("night", "b")


def test_a_deadline_is_firm_unless_best_effort_was_asked_for() -> None:
    assert made(deadline_s=60).is_firm
    assert not made(deadline_s=60, best_effort=True).is_firm
    assert not made().is_firm
