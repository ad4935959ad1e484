from __future__ import annotations

from typing import Any

import pytest

from infra.children import death_of, parsed
from producer.batch.stats import Quantiles, Stats
from schemas.frames import Delta, Started
from schemas.result import ErrorDetail, Result, Status, Timing, Usage


def test_quantiles_are_within_a_percent_or_two() -> None:
    quantiles = Quantiles()
    for number in range(1, 1001):
        quantiles.add(number / 1000)

    assert quantiles.at(0.5) == pytest.approx(0.5, rel=0.02)
    assert quantiles.at(0.99) == pytest.approx(0.99, rel=0.02)
    assert Quantiles().at(0.5) is None


def test_a_summary_counts_what_ended_and_why() -> None:
    stats = Stats(0.0)
    stats.take_event(Started(job="a", seq=0, attempt=1), 1.0)
    stats.take_event(Delta(job="a", seq=1, text="x"), 1.0)
    stats.take_event(Delta(job="a", seq=2, text="y"), 1.1)
    assert stats.tokens == 2
    common: Any = {"pool": "p", "tenant": "t"}
    timing = Timing(queue_s=1.0, engine_ttft_s=0.5)
    usage = Usage(completion_tokens=3)
    stats.take_result(Result(id="a", status=Status.COMPLETED, status_code=200, usage=usage, timing=timing, **common))
    error = ErrorDetail(message="m", code="c")
    stats.take_result(Result(id="b", status=Status.FAILED, status_code=400, error=error, **common))

    summary = stats.summary(2.0, "out")

    assert (summary.done, summary.failed, summary.failed_by_reason) == (1, 1, {"c": 1})
    assert summary.completion_tokens == stats.tokens == 3
    assert summary.tokens_per_s == 1.5
    assert summary.itl_ms is not None
    assert summary.itl_ms.p50 == pytest.approx(100, rel=0.02)
    assert summary.ttft_s is not None
    assert summary.ttft_s.p50 == pytest.approx(1.5, rel=0.02)


def test_a_consumer_is_started_again_with_growing_pauses_but_not_for_ever() -> None:
    waits = [death_of(1, lived_s=5, deaths_before=deaths, was_ready=True).restart_in_s for deaths in (0, 1, 2, 9)]
    assert waits == [1, 2, 4, 30]
    assert death_of(2, lived_s=5, deaths_before=0, was_ready=True).restart_in_s is None
    assert death_of(1, lived_s=5, deaths_before=2, was_ready=False).restart_in_s is None
    assert "signal 9" in death_of(-9, lived_s=5, deaths_before=0, was_ready=True).reason


def test_log_lines_of_ours_are_told_from_others() -> None:
    line = parsed(b'{"ts":"t","level":"info","event":"consumer.ready","logger":"x","pool":"p"}\n')
    assert (line.event, line.fields) == ("consumer.ready", {"pool": "p"})
    for other in (b"plain\n", b"{broken\n", b'{"a": 1}\n', b"\xff\n"):
        assert parsed(other).event == ""
