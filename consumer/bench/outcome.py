"""What one run of one policy came to."""

from __future__ import annotations

import msgspec
import numpy as np

from consumer.bench.workloads import H200


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What to run: a workload's jobs of one seed, all waiting at time zero."""

    workload: str
    policy: str
    seed: int
    # 0: as many as the workload has.
    jobs: int = 0
    # In virtual time: one of `workloads.SCALES`.
    machine: str = H200


class Life(msgspec.Struct):
    """One job's, in seconds since the start."""

    first_token_s: float = 0.0
    last_token_s: float = 0.0
    tokens: int = 0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    workload: str
    policy: str
    seed: int
    seconds: float
    tokens_per_s: float
    preempted_per_job: float
    # Tokens computed once more, per output token; -1 where the engine does not say.
    recomputed_per_token: float
    kv_use: float
    # From the start, so it counts the wait; milliseconds between one's tokens.
    ttft_p50_s: float
    ttft_p99_s: float
    tpot_p50_ms: float
    tpot_p99_ms: float
    # The margin that ours ended with; 0 for others.
    deviations: float = 0.0


def outcome_of(
    run: Run,
    lives: list[Life],
    *,
    seconds: float,
    preemptions: int,
    recomputed_tokens: int,
    kv_use: float,
    deviations: float,
) -> Outcome:
    tokens = sum(life.tokens for life in lives)
    firsts = [life.first_token_s for life in lives]
    gaps = [(life.last_token_s - life.first_token_s) / (life.tokens - 1) for life in lives if life.tokens > 1] or [0.0]
    ttft, tpot = np.percentile(firsts, [50, 99]).tolist(), np.percentile(gaps, [50, 99]).tolist()
    return Outcome(
        workload=run.workload,
        policy=run.policy,
        seed=run.seed,
        seconds=round(seconds, 3),
        tokens_per_s=round(tokens / seconds, 1),
        preempted_per_job=round(preemptions / len(lives), 5),
        recomputed_per_token=round(recomputed_tokens / tokens, 4) if recomputed_tokens >= 0 else -1.0,
        kv_use=round(kv_use, 3),
        ttft_p50_s=round(ttft[0], 3),
        ttft_p99_s=round(ttft[1], 3),
        tpot_p50_ms=round(tpot[0] * 1000, 3),
        tpot_p99_ms=round(tpot[1] * 1000, 3),
        deviations=round(deviations, 2),
    )
