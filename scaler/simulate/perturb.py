"""The same trace in other shapes, to see whether a policy was tuned to one of them."""

from __future__ import annotations

import msgspec
import numpy as np

from scaler.simulate.workload import Trace


def thinned(trace: Trace, share: float, seed: int = 0) -> Trace:
    """Each request kept with probability `share`."""
    kept = np.random.default_rng(seed).random(len(trace.arrival_s)) < share
    if not kept.any():
        kept[0] = True
    return Trace(
        name=f"{trace.name}-thin{share:g}",
        arrival_s=trace.arrival_s[kept] - trace.arrival_s[kept][0],
        prompt=trace.prompt[kept],
        output=trace.output[kept],
    )


def stretched(trace: Trace, factor: float) -> Trace:
    """The same requests over a longer or shorter time."""
    return msgspec.structs.replace(trace, name=f"{trace.name}-time{factor:g}", arrival_s=trace.arrival_s * factor)


def shuffled(trace: Trace, block_s: float = 300.0, seed: int = 0) -> Trace:
    """Blocks of time in another order; within a block nothing changes."""
    block = (trace.arrival_s / block_s).astype(int)
    place = np.random.default_rng(seed).permutation(int(block.max()) + 1)
    arrival = trace.arrival_s + (place[block] - block) * block_s
    order = np.argsort(arrival, kind="stable")
    return Trace(
        name=f"{trace.name}-shuffled{seed}",
        arrival_s=arrival[order] - arrival[order][0],
        prompt=trace.prompt[order],
        output=trace.output[order],
    )
