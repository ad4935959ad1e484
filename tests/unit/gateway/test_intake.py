from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.gateway.callers import check_caller, cors_headers
from producer.gateway.generate import allowed_s_of
from producer.gateway.intake import deadline_of, wanted_of
from producer.gateway.jobs import jobs_in
from producer.gateway.refusals import Forbidden
from schemas.errors import JobMalformed
from schemas.subjects import Lane

CHAT = "/v1/chat/completions"


def wanted(body: dict[str, Any], **headers: str) -> Any:
    raw = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return wanted_of(CHAT, json.dumps({"messages": [{}], **body}).encode(), raw)


@pytest.mark.parametrize(
    ("tier", "lane"),
    [("priority", Lane.INTERACTIVE), ("default", Lane.STANDARD), ("flex", Lane.BULK), ("auto", None), (None, None)],
)
def test_a_service_tier_is_a_lane_and_auto_leaves_it_to_the_gateway(tier: str | None, lane: Lane | None) -> None:
    assert wanted({"service_tier": tier}).lane is lane


def test_a_header_wins_over_the_body_and_the_body_over_the_tier() -> None:
    body = {"service_tier": "flex", "penstock": {"lane": "standard", "deadline": "2h", "pool": "b"}}

    assert wanted(body).lane is Lane.STANDARD
    assert wanted(body, x_penstock_lane="interactive").lane is Lane.INTERACTIVE
    assert wanted(body, x_penstock_deadline="30").deadline_s == 30
    assert wanted(body).deadline_s == 7200
    assert wanted(body, x_penstock_pool="a").pool == "a"


def test_whoever_names_an_idempotency_key_finds_the_job_again_although_the_line_was_cut() -> None:
    assert not wanted({}).is_background
    assert wanted({}, idempotency_key="k").is_background
    assert wanted({"penstock": {"background": True}}).is_background


@pytest.mark.parametrize(
    ("text", "seconds"), [(30, 30), ("30", 30), ("1.5s", 1.5), ("250ms", 0.25), ("2m", 120), ("1d", 86400), ("-1", -1)]
)
def test_a_deadline_in_seconds(text: float | str, seconds: float) -> None:
    assert deadline_of(text) == (seconds, None)


def test_a_deadline_as_a_moment() -> None:
    assert deadline_of("2030-01-31T12:00:00Z") == (None, datetime(2030, 1, 31, 12, tzinfo=UTC))


@pytest.mark.parametrize("text", ["", "soon", "nan", "1e5", "inf", "٣", "2030-01-31T12:00:00", "1_0", float("inf")])
def test_what_is_no_deadline_is_refused(text: float | str) -> None:
    with pytest.raises(JobMalformed) as refused:
        deadline_of(text)

    assert refused.value.param == "deadline"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", "body"),
        (b"[]", "body"),
        (b"{}", "messages"),
        (b'{"messages":[],"stream":"yes"}', "stream"),
        (b'{"messages":[],"n":0}', "n"),
        (b'{"messages":[],"n":1000}', "n"),
        (b'{"messages":[],"penstock":{"lanes":"x"}}', "penstock"),
        (b'{"messages":' + b"[" * 100_000, "body"),
        (b'{"messages":[],"model":"\xff"}', "body"),
    ],
    ids=lambda value: str(value[:30]),
)
def test_a_wrong_field_is_named(body: bytes, param: str) -> None:
    with pytest.raises(JobMalformed) as refused:
        wanted_of(CHAT, body, {})

    assert refused.value.param == param


def test_a_caller_waits_no_longer_than_the_gateway_and_its_own_deadline_allow() -> None:
    assert allowed_s_of(wanted({}), 600, 0) == 600
    assert allowed_s_of(wanted({}, x_penstock_deadline="5"), 600, 0) == 5
    assert allowed_s_of(wanted({}, x_penstock_deadline="1970-01-01T00:01:00Z"), 600, 10_000) == 50


def test_one_job_or_many() -> None:
    assert jobs_in(b'{"body":{}}', 10)[1] is False
    many, is_many = jobs_in(b'{"jobs":[{"body":{}},{"body":{}}]}', 10)
    assert (len(many), is_many) == (2, True)
    with pytest.raises(JobMalformed, match="the limit is 1"):
        jobs_in(b'{"jobs":[{"body":{}},{"body":{}}]}', 1)


def test_without_keys_only_pages_of_this_machine_or_of_allowed_origins_may_call() -> None:
    def check(host: str, origin: str | None = None, origins: tuple[str, ...] = ()) -> None:
        headers = {b"host": host.encode(), **({b"origin": origin.encode()} if origin else {})}
        check_caller(headers, list(origins), is_open=True)

    check("127.0.0.1:8000")
    check("localhost:8000", "http://localhost:8000")
    check("[::1]:8000")
    check("127.0.0.1", "https://a.example", ("https://a.example",))
    for host, origin in (("evil.example", None), ("127.0.0.1:8000", "http://127.0.0.1:9000"), ("localhost", "null")):
        with pytest.raises(Forbidden):
            check(host, origin)


def test_with_keys_any_host_is_right_and_cors_is_off_unless_set() -> None:
    headers = {b"host": b"api.example", b"origin": b"https://a.example"}

    check_caller(headers, [], is_open=False)
    assert cors_headers(headers, []) == []
    assert (b"access-control-allow-origin", b"https://a.example") in cors_headers(headers, ["*"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = [
    *("model", "messages", "prompt", "input", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens"),
    *("service_tier", "penstock", "body", "jobs", "endpoint", "lane", "deadline", "custom_id", "priority"),
]


@settings(max_examples=300)
@given(
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6).map(lambda tree: json.dumps(tree).encode())
    | st.binary(max_size=64),
    st.dictionaries(
        st.sampled_from([b"x-penstock-lane", b"x-penstock-deadline", b"x-penstock-background", b"idempotency-key"]),
        st.binary(max_size=20),
        max_size=3,
    ),
)
def test_intake_raises_nothing_but_our_own_errors(body: bytes, headers: dict[bytes, bytes]) -> None:
    for endpoint in (CHAT, "/v1/completions", "/v1/embeddings"):
        with contextlib.suppress(JobMalformed):
            wanted_of(endpoint, body, headers)
    with contextlib.suppress(JobMalformed):
        jobs_in(body, 10)
