"""Starts cost a cold start each: which are worth waiting for, and which replicas are worth keeping."""

from __future__ import annotations

import math

import msgspec

from scaler.observation import Observation
from scaler.policies.port import Target


class HoldSettings(msgspec.Struct, frozen=True, kw_only=True):
    # A fleet of none starts for waiting work worth so many cold starts, or when slack is nearly gone.
    start_cold_starts: float = 9.0
    # "Nearly gone": so many cold starts of slack, beside the time the work takes.
    pressing_cold_starts: float = 2.0
    # Fewer replicas only when none more were wanted for so many cold starts.
    down_cold_starts: float = 1.25
    # The load of lanes with short windows is kept covered, as its mean over this time says; where starts are quick,
    # over so many of them, for what is stopped too early is soon there again.
    short_mean_s: float = 600.0
    short_cold_starts: float = 10 / 3

    def short_s(self, cold_start_s: float) -> float:
        return min(self.short_mean_s, max(60.0, self.short_cold_starts * cold_start_s))


class HoldState(msgspec.Struct, kw_only=True):
    # (when, wanted) of the time that "slowly down" looks back on.
    wanted: list[tuple[float, int]] = []


class Hold:
    def __init__(self, settings: HoldSettings | None = None, state: HoldState | None = None) -> None:
        self.settings = settings or HoldSettings()
        self.state = state or HoldState()

    def kept(self, observation: Observation, waiting_s: float, forecast: float, short: float, day: float) -> Target:
        """Of the replicas there are, those that would soon be started again; loads are in replicas."""
        busy = waiting_s / (2 * observation.cold_start_s) + forecast
        worth = min(float(observation.replicas), busy, day)
        return Target(
            replicas=math.floor(min(float(observation.replicas), max(worth, short)) + 0.01),
            reason=(
                f"what came lately and may not wait long keeps {short:.2f} consumers busy, and what waits keeps "
                f"{busy:.2f} busy for longer than a stop and a start would take"
            ),
        )

    def patient(self, observation: Observation, wanted: int, waiting_s: float, slack_s: float) -> Target:
        s, cold_s = self.settings, observation.cold_start_s
        if waiting_s >= s.start_cold_starts * cold_s:
            return Target(
                replicas=wanted, reason=f"{waiting_s:,.0f} s of one consumer's work wait, which is worth a start"
            )
        if slack_s < s.pressing_cold_starts * cold_s:
            return Target(replicas=wanted, reason=f"a start must not wait longer than {max(0.0, slack_s):,.0f} s more")
        return Target(
            replicas=0,
            reason=(
                f"{waiting_s:,.0f} s of one consumer's work wait, which is less than {s.start_cold_starts:g} "
                f"cold starts of {cold_s:,.0f} s, and a start may wait {slack_s:,.0f} s more"
            ),
        )

    def slowly(self, observation: Observation, wanted: int) -> Target:
        now_s, history = observation.unix_s, self.state.wanted
        if not history:
            # Whoever ran the pool before had a reason.
            history.append((now_s, observation.replicas))
        history.append((now_s, wanted))
        most = max(one for _, one in history)
        # From one to none is quicker: the start that it may cost is one only.
        cold_starts = min(1.0, self.settings.down_cold_starts) if most <= 1 else self.settings.down_cold_starts
        back_s = cold_starts * observation.cold_start_s
        while history[0][0] < now_s - back_s:
            history.pop(0)
        at_s, held = max(history, key=lambda one: (one[1], one[0]))
        return Target(
            replicas=held, reason=f"{held} were wanted {now_s - at_s:.0f} s ago, within the last {back_s:.0f} s"
        )
