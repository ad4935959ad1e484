"""What one run of `penstock bench interference` came to."""

from __future__ import annotations

import msgspec
import numpy as np

from consumer.bench.lane_traffic import INTERACTIVE, Arrival, Traffic
from consumer.bench.outcome import Life

# Interactive jobs, and nothing else; all of them at once, as if they were a batch; the batches, and nothing else.
ALONE = "interactive_alone"
SATURATED = "interactive_saturated"
BULK_ALONE = "bulk_alone"
OURS = "penstock"
# One queue, first come first served; and the engine's own priorities, with no door before it.
UNPROTECTED = "unprotected"
FIXED_PRIORITY = "fixed_priority"
SYSTEMS = (ALONE, SATURATED, BULK_ALONE, OURS, UNPROTECTED, FIXED_PRIORITY)


_MOST_TOKENS = 0.9


class LaneRun(msgspec.Struct, frozen=True, kw_only=True):
    """What to run."""

    system: str
    seed: int
    slowdown_max: float = 1.4
    # Of the engine's own traffic, this share of the time and of the batches.
    scale: float = 1.0


class LaneOutcome(msgspec.Struct, frozen=True, kw_only=True):
    system: str
    slowdown_max: float
    seed: int
    # Until everything was done; how long interactive jobs came; and what all tokens take at the pace of a full engine:
    # the time of the first nine tenths, without the last answers that run on alone.
    seconds: float
    offered_s: float
    full_s: float
    interactive: int
    # First tokens of those that came after the warm-up, and of the very first burst.
    ttft_p50_s: float
    ttft_p99_s: float
    first_burst_ttft_s: float
    interactive_finished: float
    # Tokens of bulk answers, those thrown away not counted, each second of the counted time.
    bulk_tokens_per_s: float
    bulk_finished: float
    preemptions: int
    displaced: int


def outcome_of(
    run: LaneRun,
    traffic: Traffic,
    jobs: list[tuple[Arrival, Life]],
    *,
    seconds: float,
    bulk_tokens: float,
    counted_s: float,
    preemptions: int,
    displaced: int,
) -> LaneOutcome:
    """`bulk_tokens`: those made within the counted time."""
    chats = [(arrival, life) for arrival, life in jobs if arrival.lane == INTERACTIVE]
    bulk = [life for arrival, life in jobs if arrival.lane != INTERACTIVE]
    waits = [life.first_token_s - arrival.at_s for arrival, life in chats if arrival.at_s >= traffic.warm_up_s] or [0.0]
    first = [life.first_token_s - arrival.at_s for arrival, life in chats if arrival.group == 0] or [0.0]
    p50, p99 = np.percentile(waits, [50, 99]).tolist()
    return LaneOutcome(
        system=run.system,
        slowdown_max=run.slowdown_max,
        seed=run.seed,
        seconds=round(seconds, 3),
        offered_s=traffic.seconds,
        full_s=round(_full_s([life for _, life in jobs], seconds), 3),
        interactive=len(chats),
        ttft_p50_s=round(p50, 5),
        ttft_p99_s=round(p99, 5),
        first_burst_ttft_s=round(max(first), 5),
        interactive_finished=_finished([life for _, life in chats]),
        bulk_tokens_per_s=round(bulk_tokens / counted_s, 1) if counted_s else 0.0,
        bulk_finished=_finished(bulk),
        preemptions=preemptions,
        displaced=displaced,
    )


def scaled(traffic: Traffic, scale: float) -> Traffic:
    """A shorter run of the same traffic; the warm-up stays."""
    counted_s = (traffic.seconds - traffic.warm_up_s) * scale
    seconds = traffic.warm_up_s + counted_s
    return msgspec.structs.replace(
        traffic, seconds=seconds, batch_jobs=max(8, int(traffic.batch_jobs * seconds / traffic.seconds))
    )


def _full_s(lives: list[Life], seconds: float) -> float:
    tokens = np.array([life.tokens for life in lives], dtype=float)
    first = np.array([life.first_token_s for life in lives])
    last = np.maximum(np.array([life.last_token_s for life in lives]), first + 1e-9)
    low, high = 0.0, seconds
    for _ in range(40):
        middle = (low + high) / 2
        made = tokens @ np.clip((middle - first) / (last - first), 0.0, 1.0)
        low, high = (low, middle) if made >= _MOST_TOKENS * tokens.sum() else (middle, high)
    return high / _MOST_TOKENS


def _finished(lives: list[Life]) -> float:
    return sum(life.last_token_s > 0 for life in lives) / len(lives) if lives else 1.0
