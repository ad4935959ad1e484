"""The simulated engine: deterministic words instead of a model, but a KV cache that fills, preempts and costs time.

For tests, for chaos, and for the scaler's simulations, where a thousand engine hours must pass on a laptop. One task
makes the steps of all requests; a request wakes only when it has enough tokens to hand over, or is done.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import msgspec

from consumer.engine.port import Admit, Capacity, Engine, EngineEvent, EngineRequest, StepCost, TextDelta
from consumer.engine.simulated_cache import Cache, Sequence, Step
from consumer.engine.simulated_request import Behaviour, Choice, Plan, plan_of
from consumer.engine.simulated_response import answer_of
from consumer.engine.simulated_settings import Settings, settings_of
from infra.life import unix_ms
from schemas.config import EngineSection
from schemas.errors import EngineDied, JobFault
from schemas.job import Endpoint

# Steps shorter than this are made several at a time: timers are no finer.
_TURN_S = 0.0005
_STEPS_PER_TURN_MAX = 64
# A loop that was blocked makes up for so much lost time, as a GPU would have gone on meanwhile.
_LAG_MAX_S = 0.1
# As the vLLM adapter: tokens in a delta grow with what streams at once.
_SMOOTH_BELOW = 16
_INTERVAL_MAX = 8


# Weight of the newest step in the mean.
_STEP_WEIGHT = 0.05


def step_seconds(settings: Settings, step: Step[Any]) -> float:
    """What a step takes on the simulated machine."""
    return (
        settings.step_s
        + settings.per_sequence_s * step.sequences
        + settings.per_prefill_token_s * step.prefilled_tokens
        + settings.per_kv_token_s * step.kv_tokens
    )


def preload() -> None:
    """Nothing: this module is all it takes."""


def make(section: EngineSection, data_dir: Path) -> Engine:  # noqa: ARG001 - it stores nothing
    return SimulatedEngine(settings_of(section), section.model, lambda: unix_ms() // 1000)


class SimulatedEngine:
    """See `consumer.engine.port` for the laws."""

    def __init__(self, settings: Settings, model: str, unix_s: Callable[[], int]) -> None:
        self._settings = settings
        self._model = model
        self._unix_s = unix_s
        self._cache: Cache[_Answering] = Cache(
            blocks=settings.blocks,
            block_size=settings.block_size,
            sequences_max=settings.sequences_max,
            step_tokens_max=settings.step_tokens_max,
            prompt_step_tokens_max=settings.prompt_step_tokens_max,
            watermark=settings.watermark,
            prefix_caching=settings.prefix_caching,
        )
        self._runs: set[_Run] = set()
        self._steps_made = 0
        self._step_s = settings.step_s / settings.time_scale
        self._kv_tokens_each = 0.0
        self._work = asyncio.Event()
        self._died = asyncio.Event()
        self._end_reason = "the simulated engine was not started"
        self._steps: asyncio.Task[None] | None = None

    async def start(self) -> tuple[str, ...]:
        await asyncio.sleep(self._settings.start_s / self._settings.time_scale)
        if self._steps is None:
            self._end_reason = ""
            self._steps = asyncio.create_task(self._make_steps(), name="simulated-engine")
        return (self._model,)

    async def generate(self, request: EngineRequest, admit: Admit) -> AsyncGenerator[EngineEvent, None]:
        self._check_alive()
        plan = plan_of(request, self._model, self._settings)
        run = self._run_of(plan, request)
        await admit(msgspec.structs.replace(plan.need, produced=run.produced))
        self._check_alive()
        self._begin(run)
        try:
            while True:
                await run.woken()
                self._check_alive()
                is_done = run.unfinished == 0
                if run.streams:
                    for index, sequence in enumerate(run.sequences):
                        start, end = sequence.sent, sequence.shown
                        if end > start:
                            sequence.sent = end
                            yield TextDelta(index, plan.choices[index].text.part(start, end), end - start)
                if is_done:
                    break
            if plan.fault is not None:
                raise self._fault(plan.fault)
            yield answer_of(plan, _response_id(request), self._unix_s())
        finally:
            self._runs.discard(run)
            for sequence in run.sequences:
                self._cache.remove(sequence)

    def capacity(self) -> Capacity:
        cache, settings = self._cache, self._settings
        return Capacity(
            blocks_total=settings.blocks,
            blocks_free=cache.blocks_free,
            block_size=settings.block_size,
            sequences_max=settings.sequences_max,
            context_tokens_max=settings.context_tokens,
            running=cache.running,
            waiting=cache.waiting,
            preemptions=cache.preemptions,
            prefix_hit_tokens=cache.hit_tokens,
            prefix_query_tokens=cache.query_tokens,
            step_tokens_max=settings.step_tokens_max,
            prompt_step_tokens_max=settings.prompt_step_tokens_max,
            steps=self._steps_made,
            step_s=self._step_s,
            cost=self._cost(),
        )

    def _cost(self) -> StepCost:
        """What is configured, with what a sequence has in the cache as part of its own cost."""
        cfg = self._settings
        per_sequence_s = cfg.per_sequence_s + cfg.per_kv_token_s * self._kv_tokens_each
        scale = cfg.time_scale
        return StepCost(cfg.step_s / scale, per_sequence_s / scale, cfg.per_prefill_token_s / scale)

    async def wait_dead(self) -> str:
        await self._died.wait()
        return self._end_reason

    async def stop(self) -> None:
        steps, self._steps = self._steps, None
        if steps is not None:
            steps.cancel()
            await asyncio.gather(steps, return_exceptions=True)
        self._end(self._end_reason or "the simulated engine was stopped")

    def _run_of(self, plan: Plan, request: EngineRequest) -> _Run:
        streams = request.stream and plan.endpoint != Endpoint.EMBEDDINGS
        run = _Run(streams=streams, unfinished=len(plan.choices))
        for choice in plan.choices:
            tokens = choice.text.tokens
            if plan.fault is not None:
                tokens = min(tokens, plan.fault.after_tokens)
            run.sequences.append(_Answering(run, choice, tokens, request.priority))
        return run

    def _begin(self, run: _Run) -> None:
        for sequence in run.sequences:
            self._cache.add(sequence)
        self._runs.add(run)
        self._work.set()

    async def _make_steps(self) -> None:
        loop = asyncio.get_running_loop()
        ready_at = loop.time()
        while True:
            if self._cache.is_idle:
                self._work.clear()
                await self._work.wait()
                ready_at = loop.time()
            ready_at = max(ready_at, loop.time() - _LAG_MAX_S)
            finished: list[_Answering] = []
            for _ in range(_STEPS_PER_TURN_MAX):
                step = self._cache.step()
                finished += step.finished
                took_s = self._cost_s(step)
                ready_at += took_s
                self._steps_made += 1
                self._step_s += _STEP_WEIGHT * (took_s - self._step_s)
                self._kv_tokens_each = step.kv_tokens / max(1, step.sequences)
                if self._cache.is_idle or ready_at - loop.time() > _TURN_S:
                    break
            await asyncio.sleep(ready_at - loop.time())
            self._show(finished)

    def _cost_s(self, step: Step[_Answering]) -> float:
        cfg = self._settings
        return step_seconds(cfg, step) / cfg.time_scale

    def _show(self, finished: list[_Answering]) -> None:
        """The turn's time has passed: its tokens may be seen."""
        for sequence in finished:
            sequence.shown = sequence.produced
            sequence.run.unfinished -= 1
            if sequence.run.unfinished == 0:
                sequence.run.wake()
        interval = self._settings.stream_interval or _interval(self._cache.running)
        for sequence in self._cache:
            if sequence.run.streams:
                sequence.shown = sequence.produced
                # The first token at once: somebody measures how long it takes.
                if sequence.shown - sequence.sent >= (interval if sequence.sent else 1):
                    sequence.run.wake()

    def _fault(self, fault: Behaviour) -> Exception:
        if fault.fail == "raise":
            return JobFault("the request asked the simulated engine to fail it")
        self._end("a request asked the simulated engine to crash")
        self._died.set()
        return EngineDied(self._end_reason)

    def _end(self, reason: str) -> None:
        self._end_reason = reason
        for run in self._runs:
            run.wake()

    def _check_alive(self) -> None:
        if self._end_reason:
            raise EngineDied(self._end_reason)


class _Run:
    """One open `generate`."""

    __slots__ = ("_waiter", "_was_woken", "sequences", "streams", "unfinished")

    def __init__(self, *, streams: bool, unfinished: int) -> None:
        self.streams = streams
        self.unfinished = unfinished
        self.sequences: list[_Answering] = []
        self._was_woken = False
        self._waiter: asyncio.Future[None] | None = None

    def produced(self) -> int:
        return sum(sequence.produced for sequence in self.sequences)

    def wake(self) -> None:
        self._was_woken = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def woken(self) -> None:
        """Since the last call; what happened meanwhile counts."""
        if not self._was_woken:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._was_woken = False


class _Answering(Sequence):
    """A sequence, and how much of it was handed out."""

    __slots__ = ("run", "sent", "shown")

    def __init__(self, run: _Run, choice: Choice, length: int, priority: int) -> None:
        super().__init__(choice.prompt_tokens, length, priority, choice.block_keys)
        self.run = run
        # Tokens whose time has come, and tokens handed over.
        self.shown = 0
        self.sent = 0


def _interval(running: int) -> int:
    return max(1, min(_INTERVAL_MAX, running // _SMOOTH_BELOW))


def _response_id(request: EngineRequest) -> str:
    # Hashed: a request id names the tenant, and a body is shown to others.
    return hashlib.blake2b(request.request_id.encode(), digest_size=12).hexdigest()
