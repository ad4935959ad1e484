"""What a policy is. Laws, which `tests/unit/scaler_policies` holds every policy to:

- `decide` is a function of the observation and of `state`: same inputs, same target. No clock, no randomness, no I/O.
- `state` is a msgspec struct that says everything the policy remembers; setting a copy of it on a new policy continues
  where the old one was.
- The reason is one sentence with the numbers that decided.
- `replicas` is never negative; `None` means "no wish".
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from scaler.observation import Observation


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A wish. `floor` and `ceiling`: bounds for others, where the policy sets any."""

    replicas: int | None
    reason: str


class Policy(Protocol):
    @property
    def name(self) -> str: ...

    def decide(self, observation: Observation) -> Target: ...
