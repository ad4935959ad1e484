"""One tick, decided: observation → policies → guard → a decision that explains itself. Pure; drivers apply it."""

from __future__ import annotations

import msgspec

from scaler.guard import Guard
from scaler.observation import Observation
from scaler.policies.composed import Composed
from schemas.decision import Decision, Inputs, Wish
from schemas.override import Override


def decide(
    policy: Composed,
    guard: Guard,
    observation: Observation,
    *,
    scaler: str = "",
    woken_by: str = "",
    override: Override | None = None,
    cold_start_p95_s: float = 0.0,
) -> Decision:
    """What is to be done now, and why. What a person asked for goes before all else, also before uncertainty."""
    target, wishes = policy.explained(observation)
    wanted = target.replicas or 0
    asked = override.replicas_at(int(observation.unix_s * 1000)) if override else None
    ruling = guard.rule(wanted, observation) if asked is None else guard.obey(asked, observation)
    decision = Decision(
        pool=observation.pool,
        unix_ms=int(observation.unix_s * 1000),
        scaler=scaler,
        inputs=_inputs(policy, observation, cold_start_p95_s),
        wishes=[Wish(policy=wish.policy, replicas=wish.target.replicas, reason=wish.target.reason) for wish in wishes],
        wanted=wanted,
        guard=ruling.reason,
        woken_by=woken_by,
        override=asked,
        override_until_unix_ms=override.until_unix_ms if override and asked is not None else 0,
    )
    if ruling.is_hold:
        return msgspec.structs.replace(decision, target=ruling.replicas, action="hold")
    return _towards(decision, ruling.replicas)


def within_share(decision: Decision, share: int, gpus: int) -> Decision:
    """The decision where other pools want GPUs too, and this one may have so many consumers of all."""
    if share >= decision.target or decision.action == "hold":
        return decision
    reason = f"of {gpus} GPUs this pool's share is enough for {share}"
    guard = f"{decision.guard} and {reason}" if decision.guard else reason
    return _towards(msgspec.structs.replace(decision, guard=guard), share)


def _towards(decision: Decision, replicas: int) -> Decision:
    change = replicas - decision.inputs.ready - decision.inputs.starting
    action = "none" if change == 0 else "start" if change > 0 else "stop"
    return msgspec.structs.replace(decision, target=replicas, action=action, count=abs(change))


def _inputs(policy: Composed, observation: Observation, cold_start_p95_s: float) -> Inputs:
    parts = [observation.interactive_waiting, *(due.tokens for due in observation.due)]
    earliest = min((due.deadline_unix_s for due in observation.due), default=0.0)
    return Inputs(
        ready=observation.ready,
        starting=len(observation.starting_s),
        draining=observation.draining,
        crash_looping=observation.crash_looping,
        waiting_jobs=observation.waiting_jobs,
        waiting_tokens=int(sum(part.prompt + part.output for part in parts)),
        interactive_waiting_jobs=observation.interactive_waiting.jobs,
        running_jobs=observation.running.jobs,
        earliest_deadline_unix_ms=int(earliest * 1000),
        cold_start_s=round(observation.cold_start_s, 3),
        cold_start_p95_s=round(cold_start_p95_s, 3),
        pace=round(policy.pace, 3),
        interactive_load=round(policy.interactive_load(observation.unix_s), 3),
        interactive_headroom=round(policy.state.forecast.headroom, 3),
        age_s=round(observation.age_s, 3),
    )
