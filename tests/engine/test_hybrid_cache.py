"""A model whose layers differ in what they keep: some all tokens, some a sliding window."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

from consumer.engine import tiny_model
from consumer.engine.port import Need
from consumer.forecast import blocks_of
from tests.support.engines import EngineInThread, Requests, running_engine

pytestmark = pytest.mark.engine

WINDOW = 64
JOBS, TOKENS = 12, 400


@pytest.fixture
def hybrid_engine(tmp_path: Path, engine_data_dir: Path) -> Generator[EngineInThread]:
    folder = a_hybrid_model(tmp_path / "hybrid", tiny_model.ensure(engine_data_dir / "models"))
    with running_engine("vllm", engine_data_dir, model=str(folder), load_format="dummy", dtype="float32") as engine:
        yield engine


def a_hybrid_model(folder: Path, tiny: Path) -> Path:
    """Every other layer slides. The words are the tiny model's, the weights none at all."""
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    theirs = json.loads((tiny / "config.json").read_text())
    config = {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "vocab_size": theirs["vocab_size"],
        "eos_token_id": theirs["eos_token_id"],
        "pad_token_id": theirs["pad_token_id"],
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "max_position_embeddings": 2048,
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_what_we_count_covers_what_a_hybrid_cache_holds(hybrid_engine: EngineInThread) -> None:
    groups = hybrid_engine.engine.capacity().groups
    assert sorted(group.blocks_max > 0 for group in groups) == [False, True]

    seen = hybrid_engine.run(held_and_counted(hybrid_engine))

    full = [pair for pair in seen if pair[0]]
    assert len(full) > 5
    for held, counted in full:
        # Read a moment after the engine's report, each sequence may be a block further in each group.
        assert held <= counted + 2 * JOBS, seen
        # What a window frees is not counted: at most its bound of four blocks, and here a sequence has ten others.
        assert held >= counted * 0.5, seen
    assert hybrid_engine.engine.capacity().preemptions == 0


async def held_and_counted(hybrid: EngineInThread) -> list[tuple[int, int]]:
    """Blocks as the engine says, and as we count them from each job's need, while all of the jobs run."""
    needs: list[Need] = []

    async def admit(need: Need) -> None:
        needs.append(need)

    requests = [
        Requests.completion(f"{number} is a number. " * 8, max_tokens=TOKENS, min_tokens=TOKENS, ignore_eos=True)
        for number in range(JOBS)
    ]
    jobs = [asyncio.create_task(hybrid.collect(request, admit)) for request in requests]
    await hybrid.wait_running(JOBS)
    seen: list[tuple[int, int]] = []
    while not any(job.done() for job in jobs):
        await asyncio.sleep(0.05)
        capacity = hybrid.engine.capacity()
        if capacity.running == JOBS:
            counted = sum(blocks_of(need.prompt_tokens + need.produced(), capacity.groups) for need in needs)
            seen.append((capacity.blocks_total - capacity.blocks_free, counted))
    await asyncio.gather(*jobs)
    return seen
