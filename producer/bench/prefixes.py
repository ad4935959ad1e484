"""`penstock bench prefixes`: what it is worth that the dispatcher puts jobs with the same beginning side by side.

Fifty system prompts, many times what the KV cache can keep, and jobs that use them in turn: in the order of arrival
every job finds its prompt's blocks gone. Two pools on equal engines, one with a dispatcher and one without, take the
same jobs in turn, round by round; whose turn it is not is stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from infra import settings
from producer import stored
from producer.bench.processes import paused
from producer.bench.report import Report, bar, show, this_machine
from producer.client import Client
from producer.local.fleet import Fleet, Spec
from producer.request import Request
from schemas import subjects
from schemas.config import Config
from schemas.errors import EngineFailed

# By the way they take: the pool of that name.
_GROUPED, _ARRIVAL = "grouped", "arrival"
_PROMPTS = 50
_SYSTEM_WORDS = 250
_OUTPUT_TOKENS = 16
_VLLM = {"block_size": 32, "num_gpu_blocks_override": 257, "max_num_seqs": 64, "max_model_len": 1024}
# With what a step costs a CPU, or computing a prompt again would cost nothing.
_SIMULATED = {
    "block_size": 32,
    "blocks": 256,
    "sequences_max": 64,
    "context_tokens_max": 1024,
    "step_s": 0.01,
    "per_sequence_s": 0.0005,
    "per_prefill_token_s": 0.0001,
}
_WORDS = ("river", "water", "gate", "turbine", "stream", "queue", "power", "mill", "stone", "light", "road", "wheel")
_ANSWER_WITHIN_S = 2.0


class Round(msgspec.Struct, frozen=True):
    seconds: float
    prompt_tokens: int
    tokens: int
    hit_rate: float

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds


class _Cache(msgspec.Struct):
    prefix_hit_tokens: int = 0
    prefix_query_tokens: int = 0


class _Answer(msgspec.Struct):
    capacity: _Cache


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="penstock bench prefixes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--each", type=int, default=12, metavar="N", help="jobs with each of the 50 prompts")
    parser.add_argument("--quick", action="store_true", help="one minute: simulated engine, one round, fewer jobs")
    parser.add_argument("--json", action="store_true")
    settings.add_config_options(parser)
    options, extra = parser.parse_known_args(arguments)
    environment = dict(os.environ)  # noqa: TID251 - this is a main()
    words = [*(["--engine.kind", "simulated"] if options.quick else []), *extra]
    kind = settings.load_config(options.config, words, environment).engine.kind
    defaults = _SIMULATED if kind == "simulated" else _VLLM
    words = [word for key, value in defaults.items() for word in (f"--engine.{key}", str(value))] + words
    cfg = settings.load_config(options.config, words, environment)
    rounds, each = (1, 6) if options.quick else (options.rounds, options.each)
    seen = uvloop.run(measure(cfg, words, environment, rounds=rounds, each=each))
    show(_report(seen, cfg, each), as_json=options.json)
    return 0


async def measure(
    cfg: Config, words: list[str], environment: dict[str, str], *, rounds: int, each: int
) -> dict[str, list[Round]]:
    pools = (_GROUPED, _ARRIVAL)
    environment = {**environment, "PENSTOCK__DATA_DIR": str(settings.data_dir(cfg, environment))}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        spec = Spec(
            config=cfg,
            consumers=len(pools),
            consumer_arguments=words,
            each_arguments=[["--consumer.pool", pool] for pool in pools],
            has_dispatcher=True,
            dispatcher_arguments=["--dispatcher.pools", f'["{_GROUPED}"]'],
            environment=environment,
            broker_dir=folder,
        )
        fleet = await stack.enter_async_context(Fleet(spec))
        await fleet.wait_ready()
        client = await stack.enter_async_context(Client(fleet.url, config=cfg))
        pids = dict(zip(pools, fleet.consumer_pids, strict=True))
        seen: dict[str, list[Round]] = {pool: [] for pool in pools}
        # Round -1 is for warming up.
        for number in range(-1, rounds):
            for pool in pools if number % 2 else pools[::-1]:
                with paused([pid for other, pid in pids.items() if other != pool]):
                    measured = await _round(client, pool, _bodies(each if number >= 0 else 1, seed=number))
                if number >= 0:
                    seen[pool].append(measured)
    return seen


async def _round(client: Client, pool: str, bodies: list[dict[str, Any]]) -> Round:
    loop = asyncio.get_running_loop()
    before = await _cache(client, pool)
    begun = loop.time()
    prompt_tokens = tokens = 0
    requests = [Request(body=body, pool=pool, lane="bulk", stream=False) for body in bodies]
    handles = await client.submit_many(requests)
    for handle in handles:
        result = await handle.result()
        if not result.is_completed:
            raise EngineFailed(f"a job ended {result.status}: {result.error}")
        prompt_tokens += result.usage.prompt_tokens
        tokens += result.usage.completion_tokens
    seconds = loop.time() - begun
    after = await _cache(client, pool)
    queried = after.prefix_query_tokens - before.prefix_query_tokens
    hit = after.prefix_hit_tokens - before.prefix_hit_tokens
    return Round(seconds, prompt_tokens, tokens, hit / queried if queried else 0.0)


async def _cache(client: Client, pool: str) -> _Cache:
    """
    Raises:
        EngineFailed: the pool's consumer did not answer.
    """
    answers = await stored.gathered(
        client.session.broker, subjects.control_jobs(pool), b"{}", within_s=_ANSWER_WITHIN_S, enough=1
    )
    if not answers:
        raise EngineFailed(f"the consumer of pool {pool} did not say what its cache holds")
    return msgspec.json.decode(answers[0], type=_Answer).capacity


def _bodies(each: int, seed: int) -> list[dict[str, Any]]:
    """In the order of arrival: every prompt once, shuffled, then every prompt again. New prompts for every seed."""
    rng = random.Random(seed)  # noqa: S311
    systems = [" ".join(rng.choices(_WORDS, k=_SYSTEM_WORDS)) for _ in range(_PROMPTS)]
    bodies: list[dict[str, Any]] = []
    for number in range(each):
        for system in rng.sample(systems, len(systems)):
            messages = [
                {"role": "system", "content": system},
                {"role": "user", "content": f"{number} {rng.choice(_WORDS)}?"},
            ]
            bodies.append(
                {
                    "messages": messages,
                    "max_tokens": _OUTPUT_TOKENS,
                    "min_tokens": _OUTPUT_TOKENS,
                    "ignore_eos": True,
                    "temperature": 0,
                }
            )
    return bodies


def _report(seen: dict[str, list[Round]], cfg: Config, each: int) -> Report:
    pairs = list(zip(seen[_GROUPED], seen[_ARRIVAL], strict=True))
    bars = {
        "tokens_per_s_vs_arrival": bar([ours.tokens_per_s / theirs.tokens_per_s for ours, theirs in pairs], "ratio"),
        "hit_rate": bar([ours.hit_rate for ours, _ in pairs], "share"),
        "hit_rate_arrival": bar([theirs.hit_rate for _, theirs in pairs], "share"),
    }
    detail: dict[str, Any] = {
        "jobs": _PROMPTS * each,
        "prompts": _PROMPTS,
        "prompt_tokens_each": round(statistics.mean(one.prompt_tokens for one in seen[_GROUPED]) / (_PROMPTS * each)),
        "engine": {"kind": cfg.engine.kind, "model": cfg.engine.model, **cfg.engine.arguments},
        "seconds": {pool: [round(one.seconds, 3) for one in rounds] for pool, rounds in seen.items()},
    }
    return Report(bench="prefixes", machine=this_machine(), bars=bars, detail=detail)
