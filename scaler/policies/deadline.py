"""The least number of replicas with which every deadline holds: demand lies under capacity, cold starts counted in."""

from __future__ import annotations

import math

import msgspec

from scaler.observation import Observation
from scaler.policies.port import Target


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """Replicas (not rounded) and the deadline that asks for them."""

    replicas: float
    in_s: float = 0.0
    work_s: float = 0.0


class DeadlineSettings(msgspec.Struct, frozen=True, kw_only=True):
    # The part of a replica's time that is counted on.
    efficiency: float = 0.95
    # A deadline is moved forward by this share of its window: what was predicted may be wrong.
    margin_share: float = 0.05
    # So much of the usual service time passes before the work is half done.
    service_share: float = 0.5
    # No deadline nearer than this many cold starts is chased: a new replica would come too late for it.
    horizon_cold_starts: float = 1.5


def need(observation: Observation, factor: float, interactive: float, settings: DeadlineSettings) -> Need:
    """`factor` scales predicted to real seconds; `interactive` is that lane's load in replicas, served first."""
    worst = Need(replicas=0.0)
    work_s = factor * (
        observation.seconds_of(observation.running) + observation.seconds_of(observation.interactive_waiting)
    )
    for due in observation.due:
        work_s += factor * observation.seconds_of(due.tokens)
        left_s = due.deadline_unix_s - observation.unix_s
        horizon_s = left_s - settings.service_share * observation.service_p95_s - settings.margin_share * due.window_s
        horizon_s = max(horizon_s, settings.horizon_cold_starts * observation.cold_start_s)
        replicas = _replicas(observation, work_s / settings.efficiency + interactive * horizon_s, horizon_s)
        if replicas > worst.replicas:
            worst = Need(replicas=replicas, in_s=left_s, work_s=work_s)
    return worst


def _replicas(observation: Observation, work_s: float, horizon_s: float) -> float:
    """So many that their time until the horizon is `work_s`; each new one loses its cold start."""
    ready_s = observation.ready * horizon_s
    if work_s <= ready_s:
        return work_s / horizon_s
    replicas, capacity_s = float(observation.ready), ready_s
    for age_s in sorted(observation.starting_s, reverse=True):
        each_s = max(1.0, horizon_s - max(0.0, observation.cold_start_s - age_s))
        if work_s <= capacity_s + each_s:
            return replicas + (work_s - capacity_s) / each_s
        capacity_s += each_s
        replicas += 1
    return replicas + (work_s - capacity_s) / max(1.0, horizon_s - observation.cold_start_s)


def target(found: Need, settings: DeadlineSettings) -> Target:
    """Rounded up, but a second or further replica is not asked for a hundredth of one."""
    if found.replicas == 0:
        return Target(replicas=0, reason="nothing waits that must be done by a time")
    reason = (
        f"{found.work_s:,.0f} s of one consumer's work are due within {found.in_s:,.0f} s, "
        f"which takes {found.replicas:.2f} consumers that are busy {settings.efficiency:.0%} of the time"
    )
    return Target(replicas=max(1, math.ceil(found.replicas - 0.01)), reason=reason)
