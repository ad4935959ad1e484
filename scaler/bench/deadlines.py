"""`deadlines`: how many promises of a busy day are kept, and whether what was refused could have been kept."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from infra.report import Bar, Report, bar, this_machine
from scaler.bench.clairvoyant import Work, could_be_met, fits_beside
from scaler.bench.pool import Ended, Fifo, Ours, Pool
from scaler.bench.workday import BATCHERS, Arrival, a_day

LOAD = 0.95
_SAMPLE = 300
# Jobs of the weighted tenants over which their shares are compared.
_STRETCH = 2000


def deadlines(*, is_quick: bool, rounds: int) -> Report:
    """Each round is a day of its own, from another seed."""
    jobs, places = (40_000, 10) if is_quick else (100_000, 24)
    days = [_round(seed, jobs=jobs, places=places) for seed in range(1, rounds + 1)]
    accepted, sampled = (sum(day[name] for day in days) for name in ("accepted", "refused_sampled"))
    # Over all days together: most days have none of either, and the median would hide the others.
    bars = {name: _pooled([day[name] for day in days], accepted) for name in ("missed", "fifo_missed", "eta_held")}
    for name in ("wrongly_refused", "refused_but_for_fairness"):
        bars[name] = _pooled([day[name] for day in days], sampled)
    bars = {f"{name}_share": one for name, one in bars.items()}
    if errors := [error for day in days for error in day["weight_errors"]]:
        bars["weight_error"] = bar(errors, "share")
    detail = {"load": LOAD, "jobs_a_day": jobs, "refused_sampled": sampled, "days": days}
    return Report(bench="deadlines", machine=this_machine(), bars=bars, detail=detail)


def _pooled(counts: list[int], of: int) -> Bar:
    share = sum(counts) / of if of else 0.0
    spread = (max(counts) - min(counts)) * len(counts) / sum(counts) if sum(counts) else 0.0
    return Bar(value=round(share, 6), unit="share", n=len(counts), spread=round(spread, 4))


def _round(seed: int, *, jobs: int, places: int) -> dict[str, Any]:
    arrivals, rate = a_day(seed, jobs=jobs, load=LOAD)
    ours = Pool(arrivals, Ours(), tokens_per_s=rate, places=places)
    ours.run()
    fifo = Pool(arrivals, Fifo(ours.lives), tokens_per_s=rate, places=places)
    fifo.run()
    accepted = [number for number, life in enumerate(ours.lives) if life.is_accepted]
    refused = [number for number, life in enumerate(ours.lives) if not life.is_accepted]
    missed = [number for number in accepted if _is_missed(arrivals[number], ours.lives[number])]
    late_s = sorted(ours.lives[number].finished_s - arrivals[number].deadline_s for number in missed)
    sample = random.Random(seed).sample(refused, min(_SAMPLE, len(refused)))  # noqa: S311 - a simulation
    works = [_work(arrivals[number], rate) for number in sample]
    from_dawn = could_be_met([_work(arrivals[number], rate) for number in accepted], works)
    within = [number for number in accepted if ours.lives[number].finished_s <= ours.lives[number].latest_s]
    return {
        "seed": seed,
        "accepted": len(accepted),
        "refused": len(refused),
        "missed": len(missed),
        "missed_share": len(missed) / len(accepted),
        "missed_late_s_p50": late_s[len(late_s) // 2] if late_s else 0.0,
        "fifo_missed": sum(_is_missed(arrivals[n], fifo.lives[n]) for n in accepted),
        "refused_sampled": len(sample),
        # From the moment of refusal on, in any order: what a promise is about.
        "wrongly_refused": sum(_could_be_met_from_then(arrivals, ours.lives, rate, sample)),
        # Had it been known in the morning what would come, and nobody been given a turn: what fairness costs.
        "refused_but_for_fairness": sum(from_dawn),
        "eta_held": len(within),
        "weight_errors": _weight_errors(arrivals, ours),
    }


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
        left[is_running] *= (finished[is_running] - now_s) / (finished[is_running] - started[is_running])
        fits.append(fits_beside(left[open_], due[open_], _work(arrivals[number], rate)))
    return fits


def _is_missed(arrival: Arrival, life: Ended) -> bool:
    return life.finished_s > arrival.deadline_s


def _work(arrival: Arrival, rate: float) -> Work:
    return arrival.at_s, arrival.cost / rate, arrival.deadline_s


def _weight_errors(arrivals: list[Arrival], pool: Pool) -> list[float]:
    """For each stretch of jobs in which all weighted tenants had work waiting, and turns were taken: the worst share
    against its due, in tokens as they were estimated.
    """
    waiting = dict.fromkeys(BATCHERS, 0)
    served = dict.fromkeys(BATCHERS, 0.0)
    errors: list[float] = []
    in_stretch, total = 0, sum(BATCHERS.values())
    for number, is_pick in pool.events:
        tenant = arrivals[number].tenant
        if tenant not in waiting:
            continue
        waiting[tenant] += -1 if is_pick else 1
        if is_pick:
            served[tenant] += pool.lives[number].tokens
            in_stretch += 1
        if min(waiting.values()) == 0:
            in_stretch, served = 0, dict.fromkeys(BATCHERS, 0.0)
        elif in_stretch == _STRETCH:
            all_served = sum(served.values())
            errors.append(max(abs(served[one] / all_served / (due / total) - 1) for one, due in BATCHERS.items()))
            in_stretch, served = 0, dict.fromkeys(BATCHERS, 0.0)
    return errors
