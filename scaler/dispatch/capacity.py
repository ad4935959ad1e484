"""How fast a pool works, and what a job costs in that measure. No I/O."""

from __future__ import annotations

import msgspec


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """Measured rates of the whole pool at work; 0 is unknown.

    Prompts are read and answers written at the same time, so one number is kept: an output token costs 1, a prompt
    token `prompt_cost`, and the pool does `decode + prompt_cost * prefill` a second.
    """

    prefill_tokens_per_s: float = 0.0
    decode_tokens_per_s: float = 0.0
    # Used only while no token rate is known.
    jobs_per_s: float = 0.0
    # Seconds of work already moved to READY and not finished: it will be done before anything in the backlog.
    ahead_s: float = 0.0
    # From being moved to being done, for a job of usual size.
    service_s: float = 0.0
    # A prompt token is computed with hundreds of others at once, an output token alone with its neighbours' ones.
    prompt_cost: float = 0.1

    @property
    def cost_per_s(self) -> float:
        """0 where no token rate is known."""
        return self.decode_tokens_per_s + self.prompt_cost * self.prefill_tokens_per_s
