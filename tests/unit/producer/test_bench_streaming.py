from __future__ import annotations

import pytest

from infra.closed_loop import Figures
from producer.bench.streaming import report_of


def round_of(ttft_s: float, *, seconds: float = 1.0, cpu_s: float = 0.0) -> Figures:
    return Figures(
        tokens=1000,
        seconds=seconds,
        ttft_p50_s=ttft_s,
        ttft_p99_s=2 * ttft_s,
        itl_p50_s=0.01,
        itl_p99_s=0.02,
        cpu_s=cpu_s,
    )


def test_the_figures_are_the_worst_concurrency_of_the_median_round() -> None:
    seen = {
        "direct": {1: [round_of(0.010)] * 3, 256: [round_of(0.020, cpu_s=0.001)] * 3},
        "nats": {
            1: [round_of(0.011), round_of(0.012), round_of(0.090)],
            256: [round_of(0.021, seconds=1.25, cpu_s=0.006)] * 3,
        },
        "nats_stream_off": {1: [round_of(1.0)] * 3, 256: [round_of(1.0)] * 3},
    }

    bars = report_of(seen, {}).bars

    assert bars["added_ttft_p50_ms"].value == pytest.approx(2.0)
    assert bars["added_ttft_p99_ms"].value == pytest.approx(4.0)
    assert bars["added_itl_p50_ms"].value == 0.0
    assert bars["stream_on_vs_off"].value == pytest.approx(0.8)
    assert bars["consumer_cpu_us_per_token"].value == pytest.approx(5.0)
