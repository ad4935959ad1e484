"""The service model: how long a replica's steps take, what it holds, and what a job costs at the least."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class ServiceModel(msgspec.Struct, frozen=True, kw_only=True):
    """One step = `step_s` + `sequence_s` for each running sequence + `prompt_token_s` for each token prefilled.

    Assumed, not fitted, until `penstock` has measured real consumers; the defaults are the ones every figure uses.
    """

    step_s: float = 0.040
    sequence_s: float = 0.0004
    prompt_token_s: float = 0.0005
    sequences_max: int = 128
    kv_tokens: int = 160_000
    # Prompt tokens that one step takes in; a longer prompt is taken alone.
    step_prompt_tokens_max: int = 2048
    # Slots and cache that only interactive jobs may fill.
    interactive_share: float = 0.10
    # A job holds its prompt and, over its life, half of its answer; admission by the predicted peak comes close to it.
    held_output_share: float = 0.6

    @property
    def output_token_s(self) -> float:
        """The least time of a replica that one token can cost: in a full batch."""
        return self.sequence_s + self.step_s / self.sequences_max

    def held(self, prompt: Floats, output: Floats) -> Floats:
        """Tokens of cache that each job fills on average."""
        held = prompt + self.held_output_share * output
        return np.minimum(held, self.kv_tokens * (1 - self.interactive_share))

    def work_s(self, prompt: Floats, output: Floats) -> Floats:
        """Replica-seconds of each job; no schedule needs less for all of them.

        A step is shared by what runs in it: each job pays for its sequence's part of the slots, or all of them pay for
        their part of the cache. Either sum is a lower bound, and the larger one is taken.
        """
        least = self.prompt_token_s * prompt + self.sequence_s * output
        by_slot = self.step_s / self.sequences_max * output
        by_cache = self.step_s * self.held(prompt, output) / self.kv_tokens * output
        return least + (by_cache if by_cache.sum() > by_slot.sum() else by_slot)

    def alone_s(self, prompt: Floats, output: Floats) -> Floats:
        """How long each job takes on an idle replica."""
        return self.prompt_token_s * prompt + (self.step_s + self.sequence_s) * output


def measured(prefill_tokens_per_s: float, decode_tokens_per_s: float, model: ServiceModel) -> ServiceModel:
    """The service model of a replica whose rates alone were measured: steps keep their shape and are scaled.

    `decode_tokens_per_s` is that of a full batch with nothing prefilled.
    """
    scale = (1 / decode_tokens_per_s) / model.output_token_s
    return msgspec.structs.replace(
        model,
        prompt_token_s=1 / prefill_tokens_per_s,
        step_s=model.step_s * scale,
        sequence_s=model.sequence_s * scale,
    )
