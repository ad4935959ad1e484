"""A limit of GPU-hours a day, spread over what is left of the day so that it never runs dry before evening."""

from __future__ import annotations

import math

import msgspec

from scaler.observation import Observation
from scaler.policies.port import Target


class BudgetSettings(msgspec.Struct, frozen=True, kw_only=True):
    # 0: no limit.
    gpu_hours_a_day: float = 0.0
    gpus_per_replica: int = 1
    # Early in the day more than an even share may be used: up to so many times.
    ahead: float = 2.0


class Budget:
    """A ceiling. `observation.gpu_hours_today` counts from midnight UTC."""

    name = "budget"

    def __init__(self, settings: BudgetSettings | None = None) -> None:
        self.settings = settings or BudgetSettings()

    def decide(self, observation: Observation) -> Target:
        s = self.settings
        if s.gpu_hours_a_day <= 0:
            return Target(replicas=None, reason="no budget is set")
        left_hours = max(0.0, s.gpu_hours_a_day - observation.gpu_hours_today)
        day_left_hours = max(0.25, 24 - observation.unix_s % 86400 / 3600)
        most = math.floor(s.ahead * left_hours / day_left_hours / s.gpus_per_replica)
        if left_hours > 0 and most == 0:
            most = 1
        return Target(
            replicas=most,
            reason=(
                f"{observation.gpu_hours_today:.1f} of {s.gpu_hours_a_day:g} GPU-hours are used with "
                f"{day_left_hours:.1f} h of the day to come, so at most {most}"
            ),
        )
