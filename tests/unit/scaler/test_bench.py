"""The simulated day, a small one."""

from __future__ import annotations

import pytest

from scaler.bench.deadlines import deadlines
from scaler.bench.pool import Ours, Pool
from scaler.bench.workday import a_day


def test_a_day_is_the_same_for_the_same_seed_and_has_the_load_it_should() -> None:
    arrivals, rate = a_day(3, jobs=2000, load=0.5)

    assert a_day(3, jobs=2000, load=0.5) == (arrivals, rate)
    assert sum(one.cost for one in arrivals) == pytest.approx(0.5 * 86_400 * rate)


def test_a_day_at_half_load_keeps_every_promise() -> None:
    arrivals, rate = a_day(4, jobs=3000, load=0.4)
    pool = Pool(arrivals, Ours(), tokens_per_s=rate, places=4)

    pool.run()

    late = [one for one, life in zip(arrivals, pool.lives, strict=True) if life.finished_s > one.deadline_s]
    assert len(late) <= 3


def test_the_report_has_the_figures_of_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaler.bench.deadlines.QUICK", (2000, 4))

    report = deadlines(is_quick=True, rounds=1)

    assert report.bench == "deadlines"
    assert {"missed_share", "fifo_missed_share", "wrongly_refused_share"} <= set(report.bars)
    assert report.bars["missed_share"].value <= report.bars["fifo_missed_share"].value
