"""What the engine says of itself at every step, in this process: the live truth behind `capacity`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase

from consumer.engine.port import Capacity, KvGroup
from consumer.engine.step_times import StepTimes


class _Rank:
    """The latest of one data-parallel rank's engine."""

    def __init__(self) -> None:
        self.usage = 0.0
        self.running = 0
        self.waiting = 0


class Tap(StatLoggerBase):
    """vLLM calls `record` after each engine step. While idle it does not; the last record then shows nothing held.

    `kv_cache_usage` counts cached but evictable blocks as free and a shared prefix once, so that what is left is what
    can be had. With data parallelism every rank reports by itself; its blocks are an equal part of the total.
    """

    def __init__(self, vllm_config: Any, engine_index: int = 0, *, clock: Callable[[], float]) -> None:  # noqa: ARG002
        self._config = vllm_config
        self._clock = clock
        self._blocks_total = 0
        self._groups: tuple[KvGroup, ...] = ()
        self._ranks: dict[int, _Rank] = {}
        self._times = StepTimes()
        self._preemptions = 0
        self._hit_tokens = 0
        self._query_tokens = 0

    def engine_is_ready(self, vllm_config: Any, groups: tuple[KvGroup, ...] = ()) -> None:
        """The cache's size is known only now."""
        self._config = vllm_config
        self._groups = groups
        # One block of each rank is vLLM's own null block, never given to a request.
        self._blocks_total = (vllm_config.cache_config.num_gpu_blocks or 1) - self._ranks_count
        self._ranks = {rank: _Rank() for rank in range(self._ranks_count)}

    @property
    def _ranks_count(self) -> int:
        count: int = self._config.parallel_config.data_parallel_size
        return max(1, count)

    def capacity(self) -> Capacity:
        ranks = self._ranks.values()
        usage = sum(rank.usage for rank in ranks) / max(1, len(ranks))
        scheduler = self._config.scheduler_config
        return Capacity(
            blocks_total=self._blocks_total,
            blocks_free=self._blocks_total - round(usage * self._blocks_total),
            block_size=self._config.cache_config.block_size,
            sequences_max=scheduler.max_num_seqs * self._ranks_count,
            context_tokens_max=self._config.model_config.max_model_len,
            running=sum(rank.running for rank in ranks),
            waiting=sum(rank.waiting for rank in ranks),
            preemptions=self._preemptions,
            prefix_hit_tokens=self._hit_tokens,
            prefix_query_tokens=self._query_tokens,
            groups=self._groups,
            step_tokens_max=scheduler.max_num_batched_tokens,
            prompt_step_tokens_max=scheduler.long_prefill_token_threshold,
            steps=self._times.steps,
            step_s=self._times.mean_s,
            cost=self._times.cost,
        )

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,  # noqa: ARG002
        engine_idx: int = 0,
    ) -> None:
        rank = self._ranks.setdefault(engine_idx, _Rank())
        prefill_tokens = 0
        if iteration_stats is not None:
            self._preemptions += iteration_stats.num_preempted_reqs
            prefill_tokens = iteration_stats.num_prompt_tokens
        if scheduler_stats is None:
            return
        rank.usage = scheduler_stats.kv_cache_usage
        rank.running = scheduler_stats.num_running_reqs
        rank.waiting = scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs
        self._hit_tokens += scheduler_stats.prefix_cache_stats.hits
        self._query_tokens += scheduler_stats.prefix_cache_stats.queries
        # Ranks step together, so one of them tells the time.
        if engine_idx == min(self._ranks):
            self._times.record(self._clock(), rank.running, prefill_tokens)
            if not rank.running and not rank.waiting:
                self._times.idle()

    def log_engine_initialized(self) -> None:
        """Nothing to say: the consumer logs when it is ready."""


def kv_groups(metadata: list[dict[str, Any]], context_tokens_max: int, step_tokens_max: int) -> tuple[KvGroup, ...]:
    """The cache's groups, from what vLLM's engine says of them.

    A sliding window keeps the blocks of its last tokens and those just computed; a state-space layer keeps its state.
    """
    groups: list[KvGroup] = []
    for one in metadata:
        size = int(one["block_size"])
        kind, window = str(one["kind"]), one.get("sliding_window")
        blocks_max = 0
        if "mamba" in kind:
            blocks_max = 1
        elif window:
            kept = min(context_tokens_max, int(window) - 1 + min(step_tokens_max, size))
            blocks_max = -(-kept // size) + 1
        groups.append(KvGroup(size, blocks_max))
    return tuple(groups)
