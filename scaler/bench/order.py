"""`order`: what the index costs (processor time), how even shares are, with a million jobs of ten thousand tenants."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.report import Report, bar, this_machine
from scaler.dispatch.backlog import Backlog, Capacity
from scaler.dispatch.settings import DispatchSettings
from schemas.backlog import Ticket
from schemas.config import DispatcherSection
from schemas.dispatch import Quote
from schemas.subjects import Lane

_NOW_MS = 1_800_000_000_000
_WHALE = "whale"
# By the last digit of a tenant's number.
_WEIGHTS = (3.0, 2.0, 1.0, 1.0)
_CAPACITY = Capacity(prefill_tokens_per_s=100_000.0, decode_tokens_per_s=50_000.0, ahead_s=2.0, service_s=10.0)
_STRETCH = 3000


def order(*, is_quick: bool, rounds: int) -> Report:
    jobs, tenants = (100_000, 1_000) if is_quick else (1_000_000, 10_000)
    details = [_round(jobs, tenants, seed) for seed in range(1, rounds + 1)]
    units = {
        "weight_error": "share",
        "weight_error_many": "share",
        "bytes_per_job": "bytes",
        "add_us": "µs",
        "pick_us": "µs",
        "newcomer_position": "jobs",
        "cancel_half_s": "s",
        "quote_us": "µs",
    }
    bars = {name: bar([one[name] for one in details], unit) for name, unit in units.items()}
    return Report(
        bench="order", machine=this_machine(), bars=bars, detail={"jobs": jobs, "tenants": tenants, "rounds": details}
    )


def _round(jobs: int, tenants: int, seed: int) -> dict[str, Any]:
    rng = random.Random(seed)  # noqa: S311 - a simulation
    names = [f"tenant-{number}" for number in range(tenants)]
    weights = {name: _WEIGHTS[number % 4] for number, name in enumerate(names)}
    tickets = _tickets(rng, 4096)
    backlog = Backlog(DispatcherSection(weights=weights), lambda _tenant, _lane, most: most / 2 or 200.0)
    gc.collect()
    before, begin = _resident_bytes(), time.process_time()
    for number in range(jobs):
        tenant = _WHALE if number % 2 else names[(number // 2) % tenants]
        # Any spread of 64 bits does for a key.
        key = (number * 0x9E3779B97F4A7C15) % 2**64
        backlog.add(number + 1, Lane.BULK, tenant, tickets[number % 4096], key, _NOW_MS)
    added_s = time.process_time() - begin
    detail: dict[str, Any] = {
        "add_us": added_s / jobs * 1e6,
        "bytes_per_job": (_resident_bytes() - before) / jobs,
        "bytes_computed_per_job": backlog.bytes_held / jobs,
        "weight_error": _weight_error_of_four(seed),
    }
    detail |= _picks(backlog, weights, jobs // 20)
    detail["newcomer_position"] = _newcomer(backlog, jobs)
    detail |= _commands(backlog)
    return detail


def _tickets(rng: random.Random, many: int) -> list[Ticket]:
    """Half of them with deadlines far enough, two in three with one of fifty prefixes."""
    return [
        Ticket(
            prompt_tokens=int(rng.lognormvariate(6.5, 1.0)) + 1,
            output_tokens_max=int(rng.lognormvariate(6.0, 0.7)) + 1,
            deadline_unix_ms=_NOW_MS + rng.randint(30, 60) * 86_400_000 if rng.random() < 0.5 else 0,
            prefix_key=rng.choice((0, 1, 1)) * rng.randint(1, 50),
            batch=f"batch-{rng.randint(1, 20)}",
        )
        for _ in range(many)
    ]


def _picks(backlog: Backlog, weights: dict[str, float], jobs: int) -> dict[str, float]:
    """Time of a pick with its `moved`, 64 jobs at a time; and the shares of the weights among ten thousand, after each
    has had its first turn.
    """
    served = dict.fromkeys((3.0, 2.0, 1.0), 0.0)
    counts = {weight: sum(1 for one in weights.values() if one == weight) for weight in served}
    picked, spent_s = 0, 0.0
    while picked < jobs:
        begin = time.process_time()
        seqs = backlog.pick(64, _NOW_MS + picked // 64 * 43, _CAPACITY)
        spent_s += time.process_time() - begin
        for seq in seqs:
            job = backlog.waiting(seq)
            if job and job.tenant != _WHALE and picked > len(weights):
                served[weights[job.tenant]] += job.prompt_tokens + job.output_tokens
        begin = time.process_time()
        backlog.moved(seqs)
        spent_s += time.process_time() - begin
        picked += len(seqs)
    due = {weight: weight * counts[weight] for weight in served}
    return {
        "pick_us": spent_s / picked * 1e6,
        "weight_error_many": _error(served, due),
    }


def _newcomer(backlog: Backlog, jobs: int) -> int:
    """How many jobs were served before somebody's first."""
    backlog.add(jobs + 1, Lane.BULK, "newcomer", Ticket(prompt_tokens=500), 1, _NOW_MS)
    seqs = backlog.pick(512, _NOW_MS + 100_000, _CAPACITY)
    backlog.moved(seqs)
    return seqs.index(jobs + 1)


def _commands(backlog: Backlog) -> dict[str, float]:
    quote = Quote(tenant="tenant-1", jobs=10, prompt_tokens=5000, deadline_unix_ms=_NOW_MS + 40 * 86_400_000)
    now_ms, timings = _NOW_MS + 200_000, dict[str, float]()
    begin = time.process_time()
    for number in range(500):
        backlog.quote(quote, now_ms + number, _CAPACITY)
    timings["quote_us"] = (time.process_time() - begin) / 500 * 1e6
    acts = {
        "first_100_s": lambda: backlog.first("*", 100, now_ms, _CAPACITY),
        "amounts_s": lambda: backlog.amounts(now_ms),
        "pause_s": lambda: backlog.change(DispatchSettings(paused_tenants=frozenset(["tenant-1"]))),
        "pause_batch_s": lambda: backlog.change(DispatchSettings(paused_batches=frozenset(["batch-1"]))),
        "cancel_half_s": lambda: backlog.cancel_tenant(_WHALE),
    }
    for name, act in acts.items():
        begin = time.process_time()
        act()
        timings[name] = time.process_time() - begin
    return timings


def _weight_error_of_four(seed: int) -> float:
    """The worst share of one of four tenants that always wait, over any stretch of three thousand jobs, against its
    due: the worst stretch.
    """
    rng = random.Random(seed)  # noqa: S311 - a simulation
    weights = {f"four-{number}": weight for number, weight in enumerate(_WEIGHTS)}
    backlog = Backlog(DispatcherSection(weights=weights), lambda _tenant, _lane, most: most / 2)
    tickets = _tickets(rng, 1000)
    for number in range(60_000):
        backlog.add(number + 1, Lane.STANDARD, f"four-{number % 4}", rng.choice(tickets), number + 1, _NOW_MS)
    worst = 0.0
    for _ in range(8):
        served = dict.fromkeys(weights, 0.0)
        for seq in backlog.pick(_STRETCH, _NOW_MS, _CAPACITY):
            job = backlog.waiting(seq)
            assert job is not None
            served[job.tenant] += job.prompt_tokens + job.output_tokens
        worst = max(worst, _error(served, weights))
    return worst


def _error(served: Mapping[Any, float], due: Mapping[Any, float]) -> float:
    """The largest deviation of a share from what is due, as a part of it."""
    all_served, all_due = sum(served.values()), sum(due.values())
    return max(abs(served[one] / all_served / (due[one] / all_due) - 1) for one in due)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
