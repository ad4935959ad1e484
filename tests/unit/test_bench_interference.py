"""The interference bench in virtual time: small, and the same for ever."""

from __future__ import annotations

import pytest

from consumer.bench import lane_outcome
from consumer.bench.lane_outcome import LaneOutcome, LaneRun
from consumer.bench.lane_virtual import run_lanes_virtually
from producer.bench import interference

SCALE = 0.05


def outcome(system: str, slowdown_max: float = 1.4, scale: float = SCALE) -> LaneOutcome:
    return run_lanes_virtually(LaneRun(system=system, seed=0, slowdown_max=slowdown_max, scale=scale))


@pytest.mark.parametrize("system", lane_outcome.SYSTEMS)
def test_every_system_ends_every_job(system: str) -> None:
    one = outcome(system, scale=0.0)

    assert (one.interactive_finished, one.bulk_finished) == (1.0, 1.0)


def test_bulk_alone_takes_as_long_with_protection_as_without() -> None:
    without, strict = (outcome(lane_outcome.BULK_ALONE, slowdown_max, scale=0.0) for slowdown_max in (0.0, 1.0))

    assert strict == LaneOutcome(
        **{name: getattr(without, name) for name in LaneOutcome.__struct_fields__ if name != "slowdown_max"},
        slowdown_max=1.0,
    )


def test_chats_hardly_feel_bulk_that_others_make_them_wait_for() -> None:
    alone, ours, fixed = (
        outcome(name) for name in (lane_outcome.ALONE, lane_outcome.OURS, lane_outcome.FIXED_PRIORITY)
    )

    assert ours.ttft_p99_s < 2 * alone.ttft_p99_s
    assert fixed.ttft_p99_s > ours.ttft_p99_s
    assert ours.bulk_tokens_per_s > 0.4 * fixed.bulk_tokens_per_s


def test_the_plot_shows_each_system_where_it_belongs() -> None:
    rows = [
        {"system": "interactive_alone", "p99_vs_alone": 0.0, "bulk_vs_leftover": 0.0},
        {"system": "penstock 1.4", "p99_vs_alone": 1.2, "bulk_vs_leftover": 0.9},
        {"system": "unprotected", "p99_vs_alone": 700.0, "bulk_vs_leftover": 1.1},
    ]

    lines = interference.plot(rows).splitlines()

    assert "U" in lines[1]
    assert "a" in lines[13]
    assert "a penstock 1.4" in lines[-1]
