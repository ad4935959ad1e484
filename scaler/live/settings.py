"""From the configuration to what policies, guard and observer are made with. Pure."""

from __future__ import annotations

from math import lcm

from scaler.guard import GuardSettings
from scaler.live.observe import ObserverSettings
from scaler.policies.budget import BudgetSettings
from scaler.policies.composed import ComposedSettings
from scaler.policies.schedule import Window
from scaler.quota import Claim, shared
from schemas.scaler_config import GuardSection, ScaledPoolSection

# What a job without a deadline may wait, by lane, in order of service.
WAITS_S = {"interactive": 30.0, "standard": 3600.0, "bulk": 86400.0}


def policy_settings(pool: ScaledPoolSection) -> ComposedSettings:
    return ComposedSettings(
        budget=BudgetSettings(gpu_hours_a_day=pool.gpu_hours_a_day, gpus_per_replica=max(1, pool.gpus_per_replica)),
        windows=[
            Window(
                name=name,
                cron=window.cron,
                tz=window.tz,
                hours=window.hours,
                floor=window.floor,
                ceiling=window.ceiling,
                target=window.target,
                except_on=window.except_on,
                only_on=window.only_on,
            )
            for name, window in pool.windows.items()
        ],
        idle_s=pool.idle_s,
    )


def guard_settings(guard: GuardSection, pool: ScaledPoolSection) -> GuardSettings:
    return GuardSettings(
        minimum=pool.minimum,
        maximum=pool.maximum,
        step_up=guard.step_up,
        step_down=guard.step_down,
        cooldown_up_s=guard.cooldown_up_s,
        cooldown_down_s=guard.cooldown_down_s,
        hysteresis=guard.hysteresis,
        age_max_s=guard.age_max_s,
        crash_looping_max=guard.crash_looping_max,
    )


def observer_settings(name: str, pool: ScaledPoolSection) -> ObserverSettings:
    return ObserverSettings(
        pool=name,
        cold_start_s=pool.cold_start_s,
        waits_s={**WAITS_S, **pool.waits_s},
        gpus_per_replica=pool.gpus_per_replica / pool.consumers_per_gpu,
    )


def shares(pools: dict[str, ScaledPoolSection], wanted: dict[str, int], gpus: int) -> dict[str, int]:
    """How many consumers of what each pool wants it may have; those that need no GPU have what they want."""
    parts = lcm(*(pool.consumers_per_gpu for pool in pools.values()))
    claims = [
        Claim(
            pool=name,
            replicas=wanted[name],
            gpus_per_replica=pool.gpus_per_replica * parts // pool.consumers_per_gpu,
            minimum=pool.minimum,
            weight=pool.weight,
        )
        for name, pool in pools.items()
        if pool.gpus_per_replica and name in wanted
    ]
    return {**wanted, **shared(claims, gpus * parts)}
