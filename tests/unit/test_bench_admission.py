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


def test_the_report_knows_the_policies_workloads_and_machines_that_are_run() -> None:
    assert set(admission.POLICIES) == set(policies.NAMES)
    assert set(admission.WORKLOADS) == set(workloads.NAMES)
    assert set(admission.SIMULATED.values()) == set(workloads.SCALES)


@pytest.mark.parametrize("machine", workloads.SCALES)
def test_whoever_knows_the_lengths_preempts_nobody_and_is_faster_than_worst_case_reservation(machine: str) -> None:
    oracle, worst_case = (
        run_virtually(Run(workload="w2_long_tail", policy=policy, seed=1, jobs=200, machine=machine))
        for policy in (policies.ORACLE, "worst_case")
    )

    assert oracle.preempted_per_job == 0
    assert oracle.tokens_per_s > 1.2 * worst_case.tokens_per_s


def test_the_best_fixed_concurrency_is_chosen_by_the_other_rounds() -> None:
    # The one of 16 is better but for one lucky round of the one of 8.
    speeds = {"penstock": [100, 100, 100], "fixed_8": [80, 80, 200], "fixed_16": [100, 125, 100]}
    plan = admission.Plan(rounds=3, policies=tuple(speeds), workloads=("w1_uniform_short",))
    outcomes = {
        ("w1_uniform_short", policy): [_outcome(policy, float(speed)) for speed in rounds]
        for policy, rounds in speeds.items()
    }

    figure = admission.report_of(plan, {"somewhere": outcomes}).bars["worst_vs_best_fixed"]

    # Chosen for the rounds: 8 (by 80 and 200), 8 (likewise), 16 (by 100 and 125).
    assert figure.value == pytest.approx(100 / 80)
    assert figure.n == 3


def _outcome(policy: str, tokens_per_s: float) -> admission.Outcome:
    return admission.Outcome(
        workload="w1_uniform_short",
        policy=policy,
        tokens_per_s=tokens_per_s,
        preempted_per_job=0,
        recomputed_per_token=0,
        kv_use=0.5,
        ttft_p50_s=1,
        ttft_p99_s=1,
        tpot_p50_ms=1,
        tpot_p99_ms=1,
    )


def test_long_tailed_means_ten_times_the_median() -> None:
    pieces = workloads.jobs_of("w2_long_tail", workloads.scaled(workloads.SIMULATED, 5000), 1)
    lengths = sorted(piece.output_tokens for piece in pieces)

    assert lengths[int(0.99 * len(lengths))] >= 9.5 * lengths[len(lengths) // 2]
