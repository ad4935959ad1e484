"""What a policy's wish may become: limits, steps, rest between changes, and holding still where nothing is certain.

Pure; the last changes are its state. An override by a person comes in as `minimum` = `maximum`.
"""

from __future__ import annotations

import msgspec

from scaler.observation import Observation


class GuardSettings(msgspec.Struct, frozen=True, kw_only=True):
    minimum: int = 0
    maximum: int = 8
    # At most so many more, or fewer, at once; 0: no limit. A backlog is answered in one step.
    step_up: int = 0
    step_down: int = 0
    # After a change upwards, no change downwards for so long, and the other way round; starts are never delayed
    # by earlier starts.
    cooldown_down_s: float = 0.0
    cooldown_up_s: float = 0.0
    # A wish to be smaller by no more than this is not worth a drain.
    hysteresis: int = 0
    # Older observations decide nothing.
    age_max_s: float = 30.0
    # Replicas that die as soon as they start: so many are left to try, and no more are added.
    crash_looping_max: int = 0


class GuardState(msgspec.Struct, kw_only=True):
    up_unix_s: float = -1e18
    down_unix_s: float = -1e18


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """`reason` is empty where the wish was left as it was; `is_hold` where nothing could be decided."""

    replicas: int
    reason: str = ""
    is_hold: bool = False


class Guard:
    def __init__(self, settings: GuardSettings, state: GuardState | None = None) -> None:
        self.settings = settings
        self.state = state or GuardState()

    def rule(self, wanted: int, observation: Observation) -> Ruling:
        s, have, now_s = self.settings, observation.replicas, observation.unix_s
        if observation.age_s > s.age_max_s:
            reason = f"what is known is {observation.age_s:.0f} s old, more than {s.age_max_s:.0f} s, so {have} stay"
            return Ruling(replicas=have, reason=reason, is_hold=True)
        replicas, reasons = wanted, list[str]()

        def at(value: int, reason: str) -> None:
            nonlocal replicas
            if value != replicas:
                replicas = value
                reasons.append(reason)

        if have < replicas:
            if observation.crash_looping > s.crash_looping_max:
                at(have, f"{observation.crash_looping} consumers die as they start, so no more are added")
            elif now_s - self.state.down_unix_s < s.cooldown_up_s:
                at(have, f"some were stopped {now_s - self.state.down_unix_s:.0f} s ago")
            elif s.step_up:
                at(min(replicas, have + s.step_up), f"at most {s.step_up} more at once")
        elif have > replicas:
            if have - replicas <= s.hysteresis:
                at(have, f"{have - replicas} fewer is within the hysteresis of {s.hysteresis}")
            elif now_s - self.state.up_unix_s < s.cooldown_down_s:
                at(have, f"some were started {now_s - self.state.up_unix_s:.0f} s ago, and {s.cooldown_down_s:.0f} s is the rest")
            elif s.step_down:
                at(max(replicas, have - s.step_down), f"at most {s.step_down} fewer at once")
        # Limits come last: they hold whatever else is said.
        at(max(replicas, s.minimum), f"the minimum is {s.minimum}")
        at(min(replicas, s.maximum), f"the maximum is {s.maximum}")
        if replicas > have:
            self.state.up_unix_s = now_s
        elif replicas < have:
            self.state.down_unix_s = now_s
        return Ruling(replicas=replicas, reason=" and ".join(reasons))
