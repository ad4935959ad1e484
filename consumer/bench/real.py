"""Runs a policy on a real engine of this process. Nothing but admission differs: one door, one adapter, one client."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing

import msgspec

from consumer.bench.outcome import Life, Outcome, Run, outcome_of
from consumer.bench.policies import OURS, length_seen, policy_of
from consumer.bench.workloads import CPU, Piece, jobs_of, scaled
from consumer.door import Door
from consumer.engine.port import Engine, EngineRequest, Need, TextDelta
from consumer.lengths import OutputLengths
from consumer.waiting import Rank
from schemas.job import Endpoint

_SAMPLE_S = 0.01
_DOOR_TICK_S = 0.05
# Below every vocabulary's special tokens, and above what is left of them.
_TOKENS = range(100, 400)


class RealRuns:
    """`run` one after the other on a started engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._runs = 0
        # What `penstock` has learned of each workload.
        self._lengths: dict[str, OutputLengths] = {}

    async def run(self, run: Run) -> Outcome:
        if run.policy != OURS:
            return await self._run(run, OutputLengths())
        if run.workload not in self._lengths:
            self._lengths[run.workload] = OutputLengths()
            await self._run(msgspec.structs.replace(run, seed=-1), self._lengths[run.workload])
        return await self._run(run, self._lengths[run.workload])

    async def _run(self, run: Run, lengths: OutputLengths) -> Outcome:
        scale = scaled(CPU, run.jobs)
        before = self._engine.capacity()
        policy = policy_of(run.policy, before, lengths)
        door = Door(policy.line, self._engine.capacity, wait_s=3600)
        loop = asyncio.get_running_loop()
        # Other tokens in every run: none may find another's blocks.
        self._runs += 1
        prompt_of = prompts(random.Random(f"{run.seed} {self._runs}"))  # noqa: S311
        begun = loop.time()

        async def live(number: int, piece: Piece) -> Life:
            name, life = f"{self._runs}-{number}", Life()
            body = {
                "prompt": prompt_of(piece),
                "max_tokens": piece.output_tokens,
                "min_tokens": piece.output_tokens,
                "ignore_eos": True,
                "temperature": 0,
            }
            request = EngineRequest(request_id=name, endpoint=Endpoint.COMPLETIONS, body=msgspec.json.encode(body))

            async def admit(need: Need) -> None:
                # The engine was told the answer's length, but not every policy.
                least, most = length_seen(run.policy, piece)
                seen = msgspec.structs.replace(need, output_tokens_min=least, output_tokens_max=most)
                await door.enter(name, seen, Rank(1, 0, number))

            try:
                async with aclosing(self._engine.generate(request, admit)) as events:
                    async for event in events:
                        if isinstance(event, TextDelta):
                            life.last_token_s = loop.time() - begun
                            life.first_token_s = life.first_token_s or life.last_token_s
                            life.tokens += event.tokens
                policy.finish(name, life.tokens)
            finally:
                door.leave(name)
            return life

        async with asyncio.TaskGroup() as group:
            use = group.create_task(self._watch(door))
            lives = await asyncio.gather(
                *(live(number, piece) for number, piece in enumerate(jobs_of(run.workload, scale, run.seed)))
            )
            seconds = loop.time() - begun
            use.cancel()
        after = self._engine.capacity()
        return outcome_of(
            run,
            lives,
            seconds=seconds,
            preemptions=after.preemptions - before.preemptions,
            recomputed_tokens=-1,
            kv_use=self._use,
            deviations=policy.budget.deviations if policy.budget else 0.0,
        )

    async def _watch(self, door: Door) -> None:
        """The mean use of the cache; and looks at the door as a consumer does."""
        samples, total, since_look = 0, 0.0, 0.0
        while True:
            capacity = self._engine.capacity()
            samples += 1
            total += 1 - capacity.blocks_free / capacity.blocks_total
            self._use = total / samples
            since_look += _SAMPLE_S
            if since_look >= _DOOR_TICK_S:
                since_look = 0.0
                door.let_in()
            await asyncio.sleep(_SAMPLE_S)


def prompts(rng: random.Random) -> Callable[[Piece], list[int]]:
    """Random tokens; a family's prompts begin alike."""
    families: dict[int, list[int]] = {}

    def prompt_of(piece: Piece) -> list[int]:
        shared = families.setdefault(piece.family, rng.choices(_TOKENS, k=piece.shared_tokens))
        return shared + rng.choices(_TOKENS, k=piece.prompt_tokens - piece.shared_tokens)

    return prompt_of
