"""The admission bench in virtual time: small, and the same for ever."""

from __future__ import annotations

import pytest

from consumer.bench import policies, workloads
from consumer.bench.outcome import Run
from consumer.bench.virtual import run_virtually
from producer.bench import admission


@pytest.mark.parametrize("policy", policies.NAMES)
def test_every_policy_ends_every_job(policy: str) -> None:
    outcome = run_virtually(Run(workload="w2_long_tail", policy=policy, seed=3, jobs=60))

    tokens = sum(
        piece.output_tokens for piece in workloads.jobs_of("w2_long_tail", workloads.scaled(workloads.SIMULATED, 60), 3)
    )
    assert outcome.tokens_per_s * outcome.seconds == pytest.approx(tokens, rel=1e-3)


def test_scarce_cache_is_preempted_by_everything_at_once_and_not_by_us() -> None:
    ours, everything, worst_case = (
        run_virtually(Run(workload="w2_long_tail", policy=policy, seed=1, jobs=600))
        for policy in (policies.OURS, "everything", "worst_case")
    )

    assert everything.preempted_per_job > 0.2
    assert ours.preempted_per_job < 0.005
    assert ours.tokens_per_s > 1.5 * worst_case.tokens_per_s


def test_fixed_concurrency_is_what_it_says() -> None:
    eight, sixteen = (
        run_virtually(Run(workload="w1_uniform_short", policy=policy, seed=1, jobs=200))
        for policy in ("fixed_8", "fixed_16")
    )

    assert 1.5 < sixteen.tokens_per_s / eight.tokens_per_s < 2


def test_the_report_knows_the_policies_and_workloads_that_are_run() -> None:
    assert set(admission.POLICIES) == set(policies.NAMES)
    assert set(admission.WORKLOADS) == set(workloads.NAMES)


def test_long_tailed_means_ten_times_the_median() -> None:
    pieces = workloads.jobs_of("w2_long_tail", workloads.scaled(workloads.SIMULATED, 5000), 1)
    lengths = sorted(piece.output_tokens for piece in pieces)

    assert lengths[int(0.99 * len(lengths))] >= 9.5 * lengths[len(lengths) // 2]
