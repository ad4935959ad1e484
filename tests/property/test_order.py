"""What the order of service promises: first come first served within a tenant and prefix, shares, deadlines."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.bench.clairvoyant import could_be_met, fits_beside
from scaler.dispatch.backlog import Backlog, Capacity
from scaler.dispatch.due import BIN_BITS
from schemas.backlog import Ticket
from schemas.config import DispatcherSection
from schemas.dispatch import Quote
from schemas.subjects import Lane

NOW = 1_800_000_000_000
CAPACITY = Capacity(decode_tokens_per_s=100.0)


def a_backlog(**weights: float) -> Backlog:
    return Backlog(DispatcherSection(weights=weights), lambda _tenant, _lane, most: float(most))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(1, 5000)), max_size=120),
    st.lists(st.integers(1, 20), max_size=30),
)
def test_within_a_tenant_and_prefix_it_is_first_come_first_served(jobs: list, picks: list[int]) -> None:
    backlog = a_backlog(a=2.5)
    for seq, (tenant, prefix, tokens) in enumerate(jobs, 1):
        ticket = Ticket(prefix_key=prefix, output_tokens_max=tokens)
        backlog.add(seq, Lane.STANDARD, tenant, ticket, seq, NOW)

    served = [seq for jobs_wanted in [*picks, 1000] for seq in backlog.pick(jobs_wanted, NOW, CAPACITY)]

    assert sorted(served) == list(range(1, len(jobs) + 1))
    for tenant, prefix in itertools.product("abc", range(4)):
        mine = [seq for seq in served if jobs[seq - 1][:2] == (tenant, prefix)]
        assert mine == sorted(mine)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([0.1, 0.5, 1.0, 2.0, 3.0, 10.0]), min_size=2, max_size=6),
    st.lists(st.integers(1, 4000), min_size=1, max_size=50),
    st.integers(1, 300),
    st.integers(1, 300),
)
def test_two_who_both_wait_never_differ_by_more_than_a_job_each(
    weights: list[float], sizes: list[int], skipped: int, stretch: int
) -> None:
    names = [f"t{number}" for number in range(len(weights))]
    backlog = a_backlog(**dict(zip(names, weights, strict=True)))
    tokens: dict[int, tuple[str, int]] = {}
    for number in range(600):
        for name in names:
            seq = len(tokens) + 1
            tokens[seq] = (name, sizes[(number * 7 + len(name)) % len(sizes)])
            backlog.add(seq, Lane.BULK, name, Ticket(output_tokens_max=tokens[seq][1]), seq, NOW)
    backlog.pick(skipped, NOW, CAPACITY)

    had = dict.fromkeys(names, 0.0)
    for seq in backlog.pick(stretch, NOW, CAPACITY):
        name, size = tokens[seq]
        had[name] += size / weights[names.index(name)]

    most = max(sizes)
    for one, other in itertools.combinations(range(len(weights)), 2):
        # The bound of the paper: a job of each, by its weight.
        bound = most / weights[one] + most / weights[other]
        assert abs(had[names[one]] - had[names[other]]) <= bound * 1.001


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 10_000_000), st.sampled_from(list(Lane)[1:])), max_size=80
    )
)
def test_deadlines_under_pressure_go_in_their_order(jobs: list) -> None:
    backlog = a_backlog()
    for seq, (tenant, after_ms, lane) in enumerate(jobs, 1):
        ticket = Ticket(deadline_unix_ms=NOW + 100_000 + after_ms, output_tokens_max=100)
        backlog.add(seq, lane, tenant, ticket, seq, NOW)

    # So slow that nothing is to spare; and what cannot be done is not what this is about.
    served = backlog.pick(1000, NOW, Capacity(decode_tokens_per_s=100.0, ahead_s=20_000.0))

    given_up = backlog.given_up
    bins = [(NOW + 100_000 + jobs[seq - 1][1]) >> BIN_BITS for seq in served]
    in_order = bins[: len(bins) - given_up]
    assert in_order == sorted(in_order)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 200), st.sampled_from("abcd"), st.integers(1, 20), st.integers(60, 7200)), max_size=120
    )
)
def test_with_true_estimates_and_rates_every_promise_is_kept(offers: list) -> None:
    """One server, a job at a time, and tenants without deadlines that always want their turns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scaler.dispatch.demand.DOUBT", 0.0)
        _every_promise_is_kept(offers)


def _every_promise_is_kept(offers: list) -> None:
    backlog, due, now_ms, busy_until = a_backlog(), {}, NOW, NOW
    for seq in range(1, 301):
        backlog.add(seq, Lane.STANDARD, "whale", Ticket(output_tokens_max=2000), seq, NOW)
    seq = 300
    # A bin's length, and a job that could not be interrupted.
    grace_ms = (1 << BIN_BITS) + 20_000

    def serve_until(time_ms: int) -> None:
        nonlocal busy_until
        while busy_until <= time_ms:
            picked = backlog.pick(1, busy_until, CAPACITY)
            if not picked:
                busy_until = time_ms + 1
                return
            job = backlog.waiting(picked[0])
            assert job is not None
            busy_until += job.output_tokens * 10
            assert busy_until <= due.pop(job.seq, busy_until)
            backlog.moved(picked)

    for gap_s, tenant, seconds, within_s in offers:
        now_ms += gap_s * 1000
        serve_until(now_ms)
        ahead = Capacity(decode_tokens_per_s=100.0, ahead_s=max(0, busy_until - now_ms) / 1000)
        deadline = now_ms + within_s * 1000
        quote = Quote(tenant=tenant, output_tokens=seconds * 100, deadline_unix_ms=deadline)
        if backlog.quote(quote, now_ms, ahead).is_accepted:
            seq += 1
            due[seq] = deadline + grace_ms
            ticket = Ticket(deadline_unix_ms=deadline + grace_ms, output_tokens_max=seconds * 100)
            backlog.add(seq, Lane.BULK, tenant, ticket, seq, now_ms)
    serve_until(now_ms + 10_000_000)
    assert not due
    assert backlog.given_up == 0


works = st.tuples(st.integers(0, 20), st.integers(1, 6), st.integers(1, 25)).map(
    lambda work: (float(work[0]), float(work[1]), float(work[0] + work[2]))
)


@given(st.lists(works, max_size=7), works)
def test_the_clairvoyant_judge_agrees_with_every_interval(kept: list, refused: tuple) -> None:
    """By the other known criterion: no stretch of time has more work wholly within it than its length."""

    def is_feasible(jobs: list) -> bool:
        starts, ends = {job[0] for job in jobs}, {job[2] for job in jobs}
        return all(
            sum(job[1] for job in jobs if job[0] >= start and job[2] <= end) <= end - start + 1e-9
            for start in starts
            for end in ends
            if end > start
        )

    if is_feasible(kept):
        assert could_be_met(kept, [refused]) == [is_feasible([*kept, refused])]


def test_the_judge_counts_only_what_takes_its_room() -> None:
    import numpy as np

    left, due = np.array([5.0, 5.0]), np.array([20.0, 8.0])

    assert fits_beside(left, due, (0.0, 10.0, 30.0))
    assert not fits_beside(left, due, (0.0, 4.0, 6.0))


def test_memory_stays_bounded_over_a_long_life() -> None:
    backlog, seq = a_backlog(), 0
    for turn in range(60):
        for number in range(1000):
            seq += 1
            ticket = Ticket(output_tokens_max=50, deadline_unix_ms=NOW + turn * 60_000 + number * 1000 + 10_000_000)
            backlog.add(seq, Lane.BULK, f"tenant-{seq % 5000}", ticket, seq, NOW)
        now_ms = NOW + turn * 60_000
        while len(backlog) > 200:
            backlog.moved(backlog.pick(100, now_ms, CAPACITY))

    assert backlog.bytes_held < 8_000_000
