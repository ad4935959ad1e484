"""The kinds of traffic that admission is measured with. Pure: the same seed gives the same jobs."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import msgspec

_HERE = Path(__file__).parent


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """One job: how long it is, and what of that may be known beforehand."""

    prompt_tokens: int
    # Of these the first are the same in all jobs of the family.
    shared_tokens: int = 0
    family: int = 0
    # What nobody knows, and the `max_tokens` that everybody does.
    output_tokens: int
    output_tokens_max: int


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How large the jobs of all workloads are, and how many."""

    jobs: int
    context_tokens: int
    # Of the simulated cache, so that KV is scarce where the workload says so; empty: all that the machine has.
    blocks: dict[str, int]
    # Median of long-tailed outputs; prompts go along.
    output_median: int
    shared_tokens: int
    # Traces are divided by this.
    trace_divisor: int = 1


Rng = random.Random
Workload = Callable[[Rng, Scale], Piece]


def uniform_short(rng: Rng, _: Scale) -> Piece:
    return Piece(prompt_tokens=rng.randint(20, 60), output_tokens=rng.randint(24, 40), output_tokens_max=64)


def long_tail(rng: Rng, scale: Scale) -> Piece:
    """Outputs lognormal with p99 10.2 times the median; KV is scarce."""
    most = scale.context_tokens // 2
    return Piece(
        prompt_tokens=rng.randint(scale.output_median // 4, 2 * scale.output_median),
        output_tokens=_lognormal(rng, scale.output_median, 1.0, most),
        output_tokens_max=most,
    )


def shared_prefixes(rng: Rng, scale: Scale) -> Piece:
    """Eight system prompts, and a little of one's own."""
    most = scale.output_median * 4
    return Piece(
        prompt_tokens=scale.shared_tokens + rng.randint(16, 64),
        shared_tokens=scale.shared_tokens,
        family=rng.randrange(8),
        output_tokens=_lognormal(rng, scale.output_median // 2, 0.7, most),
        output_tokens_max=most,
    )


def mixed_prompts(rng: Rng, scale: Scale) -> Piece:
    """Most prompts have 16 tokens, the others nearly fill the context."""
    most = scale.context_tokens // 20
    is_short = rng.random() < 0.7
    return Piece(
        prompt_tokens=16 if is_short else rng.randint(int(scale.context_tokens * 0.75), scale.context_tokens - most),
        output_tokens=_lognormal(rng, most // 4, 0.8, most),
        output_tokens_max=most,
    )


WORKLOADS: dict[str, Workload] = {
    "w1_uniform_short": uniform_short,
    "w2_long_tail": long_tail,
    "w3_shared_prefixes": shared_prefixes,
    "w4_mixed_prompts": mixed_prompts,
}
TRACES = {"w5_azure_conv": "azure_conv.csv", "w5_azure_code": "azure_code.csv"}
NAMES = (*WORKLOADS, *TRACES)

# One H200's share of KV, a twentieth to a sixtieth of it, so that a few hundred jobs fill it.
SIMULATED = Scale(
    jobs=2000,
    context_tokens=8192,
    blocks={
        "w1_uniform_short": 2000,
        "w2_long_tail": 6000,
        "w3_shared_prefixes": 3000,
        "w4_mixed_prompts": 8000,
        "w5_azure_conv": 8000,
        "w5_azure_code": 8000,
    },
    output_median=256,
    shared_tokens=2048,
)
# What a model of a few MB on two cores does in seconds; every workload in the same 8,192 tokens of cache.
CPU = Scale(
    jobs=200,
    context_tokens=2048,
    blocks={},
    output_median=80,
    shared_tokens=512,
    trace_divisor=4,
)

# The machines that are simulated, as `consumer/engine/simulated_settings.py` names them.
H200 = "h200-qwen2.5-7b"
SCALES = {H200: SIMULATED, "two-cores-tiny-wide": CPU}


def scaled(scale: Scale, jobs: int) -> Scale:
    """With so many jobs; 0: as many as it has."""
    return msgspec.structs.replace(scale, jobs=jobs) if jobs else scale


def jobs_of(name: str, scale: Scale, seed: int) -> list[Piece]:
    """The jobs of a workload, in order of arrival."""
    rng = random.Random(f"{name} {seed}")  # noqa: S311
    if name in TRACES:
        return _of_trace(TRACES[name], scale, rng)
    return [WORKLOADS[name](rng, scale) for _ in range(scale.jobs)]


def _of_trace(file: str, scale: Scale, rng: Rng) -> list[Piece]:
    rows = [tuple(map(int, line.split(","))) for line in (_HERE / file).read_text(encoding="ascii").splitlines()]
    first = rng.randrange(len(rows) - scale.jobs)
    most = scale.context_tokens // 4
    pieces: list[Piece] = []
    for prompt, output in rows[first : first + scale.jobs]:
        prompt_tokens = max(1, min(prompt // scale.trace_divisor, scale.context_tokens - most))
        output_tokens = max(1, min(output // scale.trace_divisor, most))
        pieces.append(Piece(prompt_tokens=prompt_tokens, output_tokens=output_tokens, output_tokens_max=most))
    return pieces


def _lognormal(rng: Rng, median: int, sigma: float, most: int) -> int:
    return max(1, min(most, round(rng.lognormvariate(math.log(median), sigma))))
