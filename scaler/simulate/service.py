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

    def work_s(self, prompt: Floats, output: Floats) -> Floats:
        """The least replica-seconds of each job."""
        return self.prompt_token_s * prompt + self.output_token_s * output

    def alone_s(self, prompt: Floats, output: Floats) -> Floats:
        """How long each job takes on an idle replica."""
        return self.prompt_token_s * prompt + (self.step_s + self.sequence_s) * output
