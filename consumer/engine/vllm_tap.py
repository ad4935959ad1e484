"""What the engine says of itself at every step, in this process: the live truth behind `capacity`."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase

from consumer.engine.port import Capacity

# Of the latest step in the moving average of their time.
_STEP_WEIGHT = 0.05


class Tap(StatLoggerBase):
    """vLLM calls `record` after each engine step. While idle it does not; the last record then shows nothing held."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:  # noqa: ARG002
        self._config = vllm_config
        self._blocks_total = 0
        self._usage = 0.0
        self.running = 0
        self._waiting = 0
        self._preemptions = 0
        self._hit_tokens = 0
        self._query_tokens = 0
        self._recorded_at = 0.0
        self._step_s = 0.0

    def engine_is_ready(self, vllm_config: Any) -> None:
        """The cache's size is known only now."""
        self._config = vllm_config
        # One block is vLLM's own null block, never given to a request.
        self._blocks_total = (vllm_config.cache_config.num_gpu_blocks or 1) - 1

    def capacity(self) -> Capacity:
        held = round(self._usage * self._blocks_total)
        return Capacity(
            blocks_total=self._blocks_total,
            blocks_free=self._blocks_total - held,
            block_size=self._config.cache_config.block_size,
            sequences_max=self._config.scheduler_config.max_num_seqs,
            context_tokens_max=self._config.model_config.max_model_len,
            running=self.running,
            waiting=self._waiting,
            preemptions=self._preemptions,
            step_s=self._step_s,
            prefix_hit_tokens=self._hit_tokens,
            prefix_query_tokens=self._query_tokens,
        )

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,  # noqa: ARG002
        engine_idx: int = 0,  # noqa: ARG002
    ) -> None:
        now, before = perf_counter(), self._recorded_at
        self._recorded_at = now
        # A gap that began with nothing running was idleness, not a step.
        if self.running:
            self._step_s += (now - before - self._step_s) * (_STEP_WEIGHT if self._step_s else 1.0)
        if scheduler_stats is not None:
            self._usage = scheduler_stats.kv_cache_usage
            self.running = scheduler_stats.num_running_reqs
            self._waiting = scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs
            self._hit_tokens += scheduler_stats.prefix_cache_stats.hits
            self._query_tokens += scheduler_stats.prefix_cache_stats.queries
        if iteration_stats is not None:
            self._preemptions += iteration_stats.num_preempted_reqs

    def log_engine_initialized(self) -> None:
        """Nothing to say: the consumer logs when it is ready."""
