"""What a pool taught us: cold starts, lengths of jobs by lane, how fast its consumers are. No I/O, no clock."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

from scaler.live.reports import LaneWork, Report

# So many starts are remembered.
_STARTS_KEPT = 50
# A mean looks back on so many jobs.
_MEAN_OVER = 1000.0
# What is assumed of a job of which nothing is known.
PROMPT_TOKENS, OUTPUT_TOKENS = 500.0, 250.0
_DAY_S = 86400


class Mean(msgspec.Struct, kw_only=True):
    """Of jobs that left: the newest thousand count."""

    jobs: float = 0.0
    prompt: float = PROMPT_TOKENS
    output: float = OUTPUT_TOKENS

    def add(self, jobs: int, prompt: float, output: float) -> None:
        self.jobs = min(self.jobs + jobs, _MEAN_OVER)
        part = min(1.0, jobs / self.jobs)
        self.prompt += part * (prompt / jobs - self.prompt)
        self.output += part * (output / jobs - self.output)


class Learned(msgspec.Struct, kw_only=True):
    """Of one pool; kept in NATS."""

    cold_starts_s: list[float] = []
    lanes: dict[str, Mean] = {}
    # One consumer with a full engine and nothing else to do; 0 while unknown.
    prefill_tokens_per_s: float = 0.0
    decode_tokens_per_s: float = 0.0
    service_p95_s: float = 0.0
    # GPU-seconds of the day (UTC, counted since 1970).
    gpu_day: int = 0
    gpu_s: float = 0.0

    def cold_start_s(self, prior_s: float) -> float:
        """The median; the prior while none was measured."""
        return statistics.median(self.cold_starts_s) if self.cold_starts_s else prior_s

    def cold_start_p95_s(self, prior_s: float) -> float:
        starts = sorted(self.cold_starts_s)
        return starts[int(0.95 * len(starts))] if starts else prior_s

    def note_cold_start(self, seconds: float) -> None:
        self.cold_starts_s.append(round(seconds, 3))
        del self.cold_starts_s[:-_STARTS_KEPT]

    def note_jobs(self, lane: str, before: LaneWork, now: LaneWork) -> None:
        if now.left > before.left:
            self.lanes.setdefault(lane, Mean()).add(
                now.left - before.left,
                now.prompt_tokens - before.prompt_tokens,
                now.output_tokens - before.output_tokens,
            )

    def note_rates(self, reports: Sequence[Report]) -> None:
        """From what their steps cost; those that have made none yet say nothing."""
        rates = [rates_of(report, self._tokens_a_job()) for report in reports]
        known = [rate for rate in rates if rate is not None]
        if known:
            self.prefill_tokens_per_s = statistics.mean(prefill for prefill, _ in known)
            self.decode_tokens_per_s = statistics.mean(decode for _, decode in known)
        times = [report.worked.service_p95_s for report in reports if report.worked.service_p95_s]
        if times:
            self.service_p95_s = max(times)

    def note_gpus(self, gpus: float, seconds: float, now_s: float) -> None:
        day = int(now_s // _DAY_S)
        if day != self.gpu_day:
            self.gpu_day, self.gpu_s = day, 0.0
        self.gpu_s += gpus * seconds

    def _tokens_a_job(self) -> float:
        jobs = sum(mean.jobs for mean in self.lanes.values())
        if not jobs:
            return PROMPT_TOKENS + OUTPUT_TOKENS
        return sum(mean.jobs * (mean.prompt + mean.output) for mean in self.lanes.values()) / jobs


def rates_of(report: Report, tokens_a_job: float) -> tuple[float, float] | None:
    """Prefill and decode tokens a second of a full engine that does only the one; None while its steps are unknown."""
    engine = report.capacity
    if engine.step_s <= 0 or not engine.sequences_max:
        return None
    in_cache = engine.blocks_total * engine.block_size / max(1.0, tokens_a_job)
    sequences = max(1.0, min(float(engine.sequences_max), in_cache))
    cost = engine.cost
    step_s = cost.base_s + cost.per_sequence_s * sequences
    if step_s <= 0:
        # Not learned yet: what steps take now, whatever is in them.
        step_s = engine.step_s
    prompt_tokens = max(1, engine.step_tokens_max)
    prompt_step_s = cost.base_s + cost.per_prefill_token_s * prompt_tokens
    prefill = prompt_tokens / (prompt_step_s if prompt_step_s > 0 else step_s)
    return prefill, sequences / step_s
