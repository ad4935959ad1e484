"""How fast a pool works, and what jobs cost in that measure. No I/O."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Cost(NamedTuple):
    """What a prompt token, an output token and a job cost, and how much of it the pool does a second (0: unknown)."""

    prompt: float
    output: float
    job: float
    per_s: float

    def seconds(self, jobs: float, prompt_tokens: float, output_tokens: float) -> float:
        """0 while the rate is unknown."""
        if not self.per_s:
            return 0.0
        return (self.prompt * prompt_tokens + self.output * output_tokens + self.job * jobs) / self.per_s


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
    # A prompt token is computed with hundreds of others in one pass, an output token needs a pass of its own.
    prompt_cost: float = 0.1

    def cost(self) -> Cost:
        rate = self.decode_tokens_per_s + self.prompt_cost * self.prefill_tokens_per_s
        if rate > 0:
            return Cost(self.prompt_cost, 1.0, 0.0, rate)
        return Cost(0.0, 0.0, 1.0, self.jobs_per_s)
