"""Bursts of chats and three batches for `penstock bench interference`. Pure: the same seed gives the same jobs."""

from __future__ import annotations

import math
import random

import msgspec

from consumer.bench.workloads import Piece

INTERACTIVE, BULK = 0, 2


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """How much of it, and how large."""

    # Interactive jobs come so long; the first part of it is not counted, so that nobody is measured cold.
    seconds: float
    warm_up_s: float
    bursts_per_s: float
    # Chats in a burst, Poisson above the first, and how far apart.
    burst_jobs: float
    within_burst_s: float
    prompt_tokens: int
    output_tokens: int
    # Jobs of each of the three batches; prompts and answers of the largest.
    batch_jobs: int
    bulk_prompt_tokens: int
    bulk_output_tokens: int
    context_tokens: int


class Arrival(msgspec.Struct, frozen=True):
    at_s: float
    lane: int
    piece: Piece
    # Which burst, or which batch.
    group: int = 0


Rng = random.Random


def chats_of(traffic: Traffic, seed: int) -> list[Arrival]:
    """The interactive jobs, in order of arrival."""
    rng = random.Random(f"chats {seed}")  # noqa: S311
    arrivals: list[Arrival] = []
    at_s, burst = rng.expovariate(traffic.bursts_per_s), 0
    while at_s < traffic.seconds:
        one_s = at_s
        for _ in range(1 + _poisson(rng, traffic.burst_jobs - 1)):
            arrivals.append(Arrival(one_s, INTERACTIVE, _chat(rng, traffic), burst))
            one_s += rng.expovariate(1 / traffic.within_burst_s)
        at_s += rng.expovariate(traffic.bursts_per_s)
        burst += 1
    return sorted(arrivals, key=lambda arrival: arrival.at_s)


def batches_of(traffic: Traffic, seed: int) -> list[Arrival]:
    """Three batches, as a dispatcher mixes them: long prompts with short answers, the reverse, and short of both with a
    shared beginning. All wait from the start.
    """
    rng = random.Random(f"batches {seed}")  # noqa: S311
    long, answer, most = traffic.bulk_prompt_tokens, traffic.bulk_output_tokens, traffic.context_tokens // 2
    arrivals: list[Arrival] = []
    for _ in range(traffic.batch_jobs):
        summary = Piece(
            prompt_tokens=_lognormal(rng, long, 0.5, most),
            output_tokens=_lognormal(rng, answer // 3, 0.5, answer * 2),
            output_tokens_max=answer * 2,
        )
        story = Piece(
            prompt_tokens=_lognormal(rng, max(8, long // 8), 0.5, most),
            output_tokens=_lognormal(rng, answer, 0.7, answer * 4),
            output_tokens_max=answer * 4,
        )
        shared = long // 2
        label = Piece(
            prompt_tokens=shared + rng.randint(8, max(9, long // 10)),
            shared_tokens=shared,
            family=1,
            output_tokens=rng.randint(4, max(8, answer // 8)),
            output_tokens_max=max(8, answer // 4),
        )
        arrivals += [Arrival(0.0, BULK, piece, batch) for batch, piece in enumerate((summary, story, label))]
    return arrivals


def _chat(rng: Rng, traffic: Traffic) -> Piece:
    return Piece(
        prompt_tokens=_lognormal(rng, traffic.prompt_tokens, 0.4, traffic.prompt_tokens * 4),
        output_tokens=_lognormal(rng, traffic.output_tokens, 0.5, traffic.output_tokens * 4),
        output_tokens_max=traffic.output_tokens * 4,
    )


def _lognormal(rng: Rng, median: int, sigma: float, most: int) -> int:
    return max(1, min(most, round(rng.lognormvariate(math.log(max(1, median)), sigma))))


def _poisson(rng: Rng, mean: float) -> int:
    """Knuth's way; means are small."""
    limit, count, product = math.exp(-mean), 0, rng.random()
    while product > limit:
        count += 1
        product *= rng.random()
    return count


# What one H200 serves beside its batches: a tenth of its time. Its cache is cut to what larger models leave.
H200 = Traffic(
    seconds=80.0,
    warm_up_s=20.0,
    bursts_per_s=2.0,
    burst_jobs=4.0,
    within_burst_s=0.002,
    prompt_tokens=300,
    output_tokens=100,
    batch_jobs=3000,
    bulk_prompt_tokens=1000,
    bulk_output_tokens=360,
    context_tokens=8192,
)
H200_BLOCKS = 20_000
# A model of a few MB on two cores.
CPU = Traffic(
    seconds=30.0,
    warm_up_s=6.0,
    bursts_per_s=1.0,
    burst_jobs=4.0,
    within_burst_s=0.005,
    prompt_tokens=200,
    output_tokens=40,
    batch_jobs=1000,
    bulk_prompt_tokens=240,
    bulk_output_tokens=96,
    context_tokens=2048,
)
