"""What a policy's wish may become: limits, steps, rest between changes, and holding still where nothing is certain.

Pure; the last changes are its state.
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
        replicas, reason = self._stepped(wanted, have, observation)
        reasons = [reason] if reason else []
        # Limits come last: they hold whatever else is said.
        for limited, why in (
            (max(replicas, s.minimum), f"the minimum is {s.minimum}"),
            (min(max(replicas, s.minimum), s.maximum), f"the maximum is {s.maximum}"),
        ):
            if limited != replicas:
                replicas = limited
                reasons.append(why)
        self._note(replicas, have, now_s)
        return Ruling(replicas=replicas, reason=" and ".join(reasons))

    def obey(self, asked: int, observation: Observation) -> Ruling:
        """What a person asked for is not argued with; only remembered as a change."""
        self._note(asked, observation.replicas, observation.unix_s)
        return Ruling(replicas=asked)

    def _note(self, replicas: int, have: int, now_s: float) -> None:
        if replicas > have:
            self.state.up_unix_s = now_s
        elif replicas < have:
            self.state.down_unix_s = now_s

    def _stepped(self, wanted: int, have: int, observation: Observation) -> tuple[int, str]:
        if wanted > have:
            return self._up(wanted, have, observation)
        if wanted < have:
            return self._down(wanted, have, observation.unix_s)
        return wanted, ""

    def _up(self, wanted: int, have: int, observation: Observation) -> tuple[int, str]:
        s, since_s = self.settings, observation.unix_s - self.state.down_unix_s
        if observation.crash_looping > s.crash_looping_max:
            many = observation.crash_looping
            who = "1 consumer dies" if many == 1 else f"{many} consumers die"
            return have, f"{who} again and again, so no more are added"
        if since_s < s.cooldown_up_s:
            return (
                have,
                f"some were stopped {since_s:.0f} s ago, and {s.cooldown_up_s:.0f} s is the rest between changes",
            )
        if s.step_up and wanted > have + s.step_up:
            return have + s.step_up, f"at most {s.step_up} more at once"
        return wanted, ""

    def _down(self, wanted: int, have: int, now_s: float) -> tuple[int, str]:
        s, since_s = self.settings, now_s - self.state.up_unix_s
        if have - wanted <= s.hysteresis:
            return have, f"{have - wanted} fewer is within the hysteresis of {s.hysteresis}"
        if since_s < s.cooldown_down_s:
            return (
                have,
                f"some were started {since_s:.0f} s ago, and {s.cooldown_down_s:.0f} s is the rest between changes",
            )
        if s.step_down and wanted < have - s.step_down:
            return have - s.step_down, f"at most {s.step_down} fewer at once"
        return wanted, ""
