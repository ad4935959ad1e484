"""Runs a policy on the simulated engine's cache without waiting for time to pass: hours of a GPU in seconds, and what a
noisy CPU would take if it were not noisy.
"""

from __future__ import annotations

import msgspec

from consumer.bench.outcome import Life, Outcome, Run, outcome_of
from consumer.bench.policies import OURS, length_seen, policy_of, watermark_of
from consumer.bench.workloads import SCALES, Piece, jobs_of, scaled
from consumer.engine.port import Capacity, Need
from consumer.engine.simulated import step_seconds
from consumer.engine.simulated_cache import Cache, Sequence
from consumer.engine.simulated_settings import Settings, settings_of
from consumer.lengths import OutputLengths
from consumer.waiting import Rank, Waiting
from schemas.config import EngineSection


class _Job(Sequence):
    """A sequence that knows whose it is."""

    __slots__ = ("life", "name")

    def __init__(self, name: str, piece: Piece, block_size: int) -> None:
        keys = tuple(hash((piece.family, block)) for block in range(piece.shared_tokens // block_size))
        super().__init__(piece.prompt_tokens, piece.output_tokens, 0, keys)
        self.name = name
        self.life = Life()


# Added to a seed: the same traffic on an earlier day.
_BEFORE = 1000


def run_virtually(run: Run) -> Outcome:
    """One policy on one workload, with the workload's share of the machine's cache."""
    if run.policy != OURS:
        return _run(run, OutputLengths())
    lengths = OutputLengths()
    _run(msgspec.structs.replace(run, seed=run.seed + _BEFORE), lengths)
    kept = OutputLengths()
    kept.recall(lengths.learned())
    return _run(run, kept)


def _run(run: Run, lengths: OutputLengths) -> Outcome:
    scale = scaled(SCALES[run.machine], run.jobs)
    arguments = {"machine": run.machine, "context_tokens_max": scale.context_tokens}
    if scale.blocks:
        arguments["blocks"] = scale.blocks[run.workload]
    machine = settings_of(
        EngineSection(kind="simulated", arguments={**arguments, "watermark": watermark_of(run.policy)})
    )
    cache: Cache[_Job] = Cache(
        blocks=machine.blocks,
        block_size=machine.block_size,
        sequences_max=machine.sequences_max,
        step_tokens_max=machine.step_tokens_max,
        prompt_step_tokens_max=machine.prompt_step_tokens_max,
        watermark=machine.watermark,
    )
    policy = policy_of(run.policy, _capacity(machine, cache, 0), lengths)
    jobs: dict[str, _Job] = {}
    for number, piece in enumerate(jobs_of(run.workload, scale, run.seed)):
        job = jobs[str(number)] = _Job(str(number), piece, machine.block_size)
        policy.line.push(Waiting(Rank(1, 0, number), job.name, _need_of(job, *length_seen(run.policy, piece))))
    now_s, steps, kv_use = 0.0, 0, 0.0
    while len(policy.line) or not cache.is_idle:
        for one in policy.line.admit(_capacity(machine, cache, steps)):
            cache.add(jobs[one.job_id])
        step = cache.step()
        took_s = step_seconds(machine, step)
        now_s += took_s
        steps += 1
        kv_use += (1 - cache.blocks_free / machine.blocks) * took_s
        for job in cache:
            if job.produced and not job.life.first_token_s:
                job.life.first_token_s = now_s
        for job in step.finished:
            job.life = Life(job.life.first_token_s or now_s, now_s, job.produced)
            policy.finish(job.name, job.produced)
            policy.line.leave(job.name)
    return outcome_of(
        run,
        [job.life for job in jobs.values()],
        seconds=now_s,
        preemptions=cache.preemptions,
        recomputed_tokens=cache.recomputed_tokens,
        kv_use=kv_use / now_s,
        deviations=policy.budget.deviations if policy.budget else 0.0,
    )


def _need_of(job: _Job, least: int, most: int) -> Need:
    return Need(
        prompt_tokens=job.prompt_tokens,
        output_tokens_max=most,
        output_tokens_min=least,
        block_keys=job.keys,
        produced=lambda: job.produced,
    )


def _capacity(machine: Settings, cache: Cache[_Job], steps: int) -> Capacity:
    return Capacity(
        blocks_total=machine.blocks,
        blocks_free=cache.blocks_free,
        block_size=machine.block_size,
        sequences_max=machine.sequences_max,
        context_tokens_max=machine.context_tokens,
        running=cache.running,
        waiting=cache.waiting,
        preemptions=cache.preemptions,
        steps=steps,
    )
