"""One tick, decided: observation → policies → guard → a decision that explains itself. Pure; drivers apply it."""

from __future__ import annotations

from typing import Literal

from scaler.guard import Guard, Ruling
from scaler.observation import Observation
from scaler.policies.composed import Composed
from schemas.decision import Decision, Inputs, Wish


def decide(
    policy: Composed, guard: Guard, observation: Observation, *, scaler: str = "", woken_by: str = ""
) -> Decision:
    """What is to be done now, and why."""
    target, wishes = policy.explained(observation)
    wanted = target.replicas or 0
    ruling = guard.rule(wanted, observation)
    change = ruling.replicas - observation.replicas
    return Decision(
        pool=observation.pool,
        unix_ms=int(observation.unix_s * 1000),
        scaler=scaler,
        inputs=_inputs(policy, observation),
        wishes=[Wish(policy=wish.policy, replicas=wish.target.replicas, reason=wish.target.reason) for wish in wishes],
        wanted=wanted,
        target=ruling.replicas,
        guard=ruling.reason,
        action=_action(ruling, change),
        count=abs(change),
        woken_by=woken_by,
    )


def _action(ruling: Ruling, change: int) -> Literal["none", "start", "stop", "hold"]:
    if ruling.is_hold:
        return "hold"
    if change == 0:
        return "none"
    return "start" if change > 0 else "stop"


def _inputs(policy: Composed, observation: Observation) -> Inputs:
    parts = [observation.interactive_waiting, *(due.tokens for due in observation.due)]
    earliest = min((due.deadline_unix_s for due in observation.due), default=0.0)
    return Inputs(
        ready=observation.ready,
        starting=len(observation.starting_s),
        draining=observation.draining,
        waiting_jobs=observation.waiting_jobs,
        waiting_tokens=int(sum(part.prompt + part.output for part in parts)),
        interactive_waiting_jobs=observation.interactive_waiting.jobs,
        running_jobs=observation.running.jobs,
        earliest_deadline_unix_ms=int(earliest * 1000),
        cold_start_s=observation.cold_start_s,
        pace=round(policy.pace, 3),
        interactive_load=round(policy.interactive_load(observation.unix_s), 3),
        interactive_headroom=round(policy.state.forecast.headroom, 3),
        age_s=observation.age_s,
    )
