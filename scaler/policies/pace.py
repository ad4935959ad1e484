"""How fast this pool's replicas really are, against what their rates predict."""

from __future__ import annotations

import msgspec

from scaler.observation import Observation, Tokens


class PaceState(msgspec.Struct, kw_only=True):
    """Sums of saturated time and of the seconds predicted for what was done in it; the prior counts as ten minutes."""

    saturated_s: float = 600.0
    predicted_s: float = 600.0


class Pace:
    """Learned from what saturated replicas process, progress of unfinished jobs included, and only while none starts
    or drains: finished jobs alone, or half-busy replicas, would say something else.
    """

    # What was learned is forgotten by half in this much saturated replica time.
    half_life_s = 4 * 3600.0

    def __init__(self, state: PaceState | None = None) -> None:
        self.state = state or PaceState()

    def learn(self, observation: Observation) -> None:
        if not observation.is_saturated or observation.starting_s or observation.draining or not observation.ready:
            return
        predicted = observation.seconds_of(observation.processed)
        if predicted <= 0:
            return
        time_s = observation.ready * observation.tick_s
        keep = 0.5 ** (time_s / self.half_life_s)
        self.state.saturated_s = self.state.saturated_s * keep + time_s
        self.state.predicted_s = self.state.predicted_s * keep + predicted

    @property
    def factor(self) -> float:
        """Replica-seconds for each predicted second; a pool a third as fast as its rates say is believed, no slower."""
        return min(3.0, max(0.3, self.state.saturated_s / self.state.predicted_s))

    def work_s(self, observation: Observation, tokens: Tokens) -> float:
        return self.factor * observation.seconds_of(tokens)
