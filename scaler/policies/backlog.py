"""Backlog in tokens over a drain time: half of what comes as it comes, what waits within a part of its window."""

from __future__ import annotations

import math

import msgspec

from scaler.observation import Observation
from scaler.policies.port import Target


class BacklogSettings(msgspec.Struct, frozen=True, kw_only=True):
    # Waiting work is drained within this share of its window: the rest of the window takes up swings.
    drain_share: float = 0.6
    # The part of the short lanes' arrivals that is met as it comes; the backlog's growth brings the rest.
    arrivals_share: float = 0.5
    # A further replica is asked for when so much of it is needed.
    rounded_up_from: float = 0.7


class Backlog:
    """Stateless. `factor` is the learned pace, loads are in replicas; alone it takes the rates as they are."""

    name = "backlog"

    def __init__(self, settings: BacklogSettings | None = None) -> None:
        self.settings = settings or BacklogSettings()

    def decide(self, observation: Observation) -> Target:
        return self.wish(observation, 1.0, 0.0, 0.0)

    def wish(self, observation: Observation, factor: float, interactive: float, short: float) -> Target:
        s = self.settings
        waiting_s = draining = 0.0
        for due in observation.due:
            work_s = factor * observation.seconds_of(due.tokens)
            waiting_s += work_s
            draining += work_s / (s.drain_share * due.window_s)
        needed = interactive + s.arrivals_share * short + draining
        reason = (
            f"{waiting_s:,.0f} s of one consumer's work wait and take {draining:.2f} consumers over "
            f"{s.drain_share:.0%} of the time they may wait, and what arrives takes {needed - draining:.2f}"
        )
        if not waiting_s and needed < 0.005:
            reason = "nothing waits, and nothing to speak of arrives"
        return Target(replicas=math.floor(needed + 1 - s.rounded_up_from), reason=reason)
