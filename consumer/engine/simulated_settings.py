"""What `--engine.kind simulated` understands under `engine.*`, and that nothing else slips through."""

from __future__ import annotations

import difflib
from typing import Annotated

import msgspec

from schemas.config import EngineSection, Positive, Seconds
from schemas.errors import ConfigError
from schemas.job import field_of

_CONTEXT_TOKENS = 4096


# Whole machines, by `engine.machine`. Anything else that is set is set on top.
#
# Qwen2.5-7B in bf16 on one H200, from the data sheets, not from a run: 15.2 GB of weights and 57,344 bytes of KV a
# token (28 layers x 4 KV heads x 128 x K and V x 2 bytes) are read at 80% of 4.8 TB/s; a prompt token costs 2 x 7.6e9
# operations at 60% of 989 TFLOPS; vLLM's own scheduling and sampling is taken as 1 ms a step and 10 us a sequence. 90%
# of 139 GiB less weights and 4 GB of activations leave 115 GB: 2.0 million tokens. Prompts are split as by our vLLM
# adapter.
#
# The model `tiny-wide` on two cores: what vLLM's steps took there (two shared cores, x86-64, a fit of the steps of 150
# long-tailed jobs at 8, 32 and 64 at a time), with the cache that `penstock bench admission` gives it.
MACHINES: dict[str, dict[str, float]] = {
    "h200-qwen2.5-7b": {
        "blocks": 125_000,
        "block_size": 16,
        "sequences_max": 1024,
        "context_tokens_max": 32_768,
        "prompt_step_tokens_max": 1024,
        "step_s": 0.001 + 15.2e9 / (0.8 * 4.8e12),
        "per_sequence_s": 10e-6,
        "per_prefill_token_s": 2 * 7.6e9 / (0.6 * 989e12),
        "per_kv_token_s": 57_344 / (0.8 * 4.8e12),
    },
    "two-cores-tiny-wide": {
        "blocks": 256,
        "block_size": 32,
        "sequences_max": 256,
        "context_tokens_max": 2048,
        "prompt_step_tokens_max": 1024,
        "step_s": 0.0036,
        "per_sequence_s": 0.0002,
        "per_prefill_token_s": 0.000_104,
    },
}


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An engine's size and what its steps cost. The defaults are fast: they test a queue, not a GPU."""

    # The KV cache: `blocks` of `block_size` tokens.
    blocks: Positive = 4096
    block_size: Positive = 16
    sequences_max: Positive = 256
    # 0: 4096, or the whole cache where that is smaller.
    context_tokens_max: Annotated[int, msgspec.Meta(ge=0)] = 0
    # Tokens one step computes; a longer prompt is prefilled over several steps, beside the others' decoding.
    step_tokens_max: Positive = 8192
    # Of one prompt, while anything else runs or waits; 0: no less. As vLLM's `long_prefill_token_threshold`.
    prompt_step_tokens_max: Annotated[int, msgspec.Meta(ge=0)] = 0
    # Full blocks are found again by whoever has the same prompt.
    prefix_caching: bool = True
    # This share of the cache stays free when a waiting sequence joins others, as vLLM's `watermark`.
    watermark: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    # One step takes step_s + per_sequence_s * sequences it runs + per_prefill_token_s * prompt tokens it computes
    # + per_kv_token_s * tokens that all it runs have in the cache.
    step_s: Seconds = 0.001
    per_sequence_s: Seconds = 0.000_002
    per_prefill_token_s: Seconds = 0.000_001
    per_kv_token_s: Seconds = 0.0
    # So many simulated seconds pass in one.
    time_scale: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    # How long `start` takes, in simulated seconds.
    start_s: Seconds = 0.0
    # Answers that end by themselves are this long on average, with an exponential tail.
    output_tokens_mean: Positive = 64
    # Tokens in one delta; 0: one while few sequences run, up to eight when many do.
    stream_interval: Annotated[int, msgspec.Meta(ge=0)] = 0
    embedding_dimensions: Positive = 16

    def __post_init__(self) -> None:
        if self.context_tokens_max > self.blocks * self.block_size:
            # It would preempt itself for ever.
            raise ValueError(
                f"context_tokens_max {self.context_tokens_max} must fit the cache: {self.blocks} blocks of "
                f"{self.block_size} hold {self.blocks * self.block_size} tokens"
            )

    @property
    def context_tokens(self) -> int:
        """The longest prompt and answer together."""
        return self.context_tokens_max or min(_CONTEXT_TOKENS, self.blocks * self.block_size)


def settings_of(section: EngineSection) -> Settings:
    """
    Raises:
        ConfigError: unknown key, wrong type or impossible value; names `engine.<key>`.
    """
    arguments = {key.replace("-", "_"): value for key, value in section.arguments.items()}
    machine = arguments.pop("machine", "")
    if machine:
        if not isinstance(machine, str) or machine not in MACHINES:
            known = ", ".join(MACHINES)
            raise ConfigError(f"engine.machine: {machine!r} is not known; there is {known}", param="engine.machine")
        arguments = {**MACHINES[machine], **arguments}
    for key in arguments:
        if key not in Settings.__struct_fields__:
            near = difflib.get_close_matches(key, Settings.__struct_fields__, n=1)
            hint = f"; did you mean engine.{near[0]}?" if near else ""
            raise ConfigError(f"engine.{key}: the simulated engine has no such setting{hint}", param=f"engine.{key}")
    try:
        return msgspec.convert(arguments, Settings)
    except msgspec.ValidationError as error:
        key = field_of(error) or "context_tokens_max"
        raise ConfigError(f"engine.{key}: {str(error).partition(' - at')[0]}", param=f"engine.{key}") from error
