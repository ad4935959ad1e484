"""The interactive lane one cold start ahead: recent load, yesterday's course where it helps, and a learned headroom."""

from __future__ import annotations

import math

import msgspec

from scaler.policies.load import Load
from scaler.policies.port import Target

_DAY_S = 86400.0
_SCORE_EVERY_S = 60.0
# Fewer errors than this say little of rare ones.
_FEW = 30


class ForecastSettings(msgspec.Struct, frozen=True, kw_only=True):
    # The share of its time that a replica may be busy with interactive work.
    use: float = 0.85
    # The share of work that may come while the load exceeds forecast and headroom.
    missed: float = 0.005
    # Where lateness is measured, that share is relaxed up to this while fewer than `late` of the jobs are late.
    missed_max: float = 0.06
    late: float = 0.003
    # A day without late jobs relaxes all the way.
    relaxed_in_s: float = _DAY_S
    # Errors older than this no longer count.
    remembered_s: float = 24 * 3600.0
    # Before there are errors to learn from: headroom in replicas, and as a share of the load.
    prior: float = 1.0
    prior_share: float = 0.5
    # A load smaller than this is no reason yet for a replica that nobody may need.
    prior_from: float = 0.2


class ForecastState(msgspec.Struct, kw_only=True):
    # What `missed` was relaxed by.
    relaxed: float = 0.0
    # Mean interactive jobs a second, forgotten by half in a day.
    jobs_s: float = 0.0
    jobs: float = 0.0
    # (error made one cold start ahead, load that came with it), one a minute.
    errors: list[tuple[float, float]] = []
    # Forecasts that wait for their time: (when, persistence, seasonal or the same).
    pending: list[tuple[float, float, float]] = []
    # Mean absolute errors of both, forgotten by half in a day.
    error_recent: float = 0.0
    error_seasonal: float = 0.0
    scored_s: float = 0.0
    headroom: float = 0.0


class Forecast:
    def __init__(self, settings: ForecastSettings | None = None, state: ForecastState | None = None) -> None:
        self.settings = settings or ForecastSettings()
        self.state = state or ForecastState()
        self._sorted_for = (0.0, 0)
        self._headroom = 0.0

    def look(self, load: Load, now_s: float, cold_start_s: float, may_wait_s: float) -> tuple[float, float]:
        """Forecast and headroom for one cold start from now, in replicas; learns from what it said before."""
        state = self.state
        while state.pending and state.pending[0][0] <= now_s:
            at_s, recent, seasonal = state.pending.pop(0)
            # What it would have taken lately for no job to wait too long.
            actual = load.peak(now_s, may_wait_s, 120.0)
            if at_s - state.scored_s >= _SCORE_EVERY_S:
                keep = 0.5 ** (_SCORE_EVERY_S / _DAY_S)
                state.scored_s = at_s
                error = actual - (seasonal if self._is_seasonal else recent)
                state.errors.append((error, load.mean(now_s, 60.0)))
                state.error_recent = keep * state.error_recent + abs(actual - recent)
                state.error_seasonal = keep * state.error_seasonal + abs(actual - seasonal)
        del state.errors[: -int(self.settings.remembered_s / _SCORE_EVERY_S)]
        recent = load.mean(now_s, 300.0)
        seasonal = recent * self._ratio(load, now_s, cold_start_s)
        state.pending.append((now_s + cold_start_s, recent, seasonal))
        state.headroom = self._quantile(recent)
        return (seasonal if self._is_seasonal else recent), state.headroom

    def relax(self, arrived: int, late: int | None, tick_s: float) -> None:
        """Adaptive conformal inference on what matters: late jobs, not missed forecasts."""
        if late is None:
            return
        s, state = self.settings, self.state
        keep = 0.5 ** (tick_s / _DAY_S)
        state.jobs = keep * state.jobs + arrived
        state.jobs_s = keep * state.jobs_s + tick_s
        usual = max(1.0, state.jobs / max(1.0, state.jobs_s) * tick_s)
        step = (s.missed_max - s.missed) * tick_s / s.relaxed_in_s
        state.relaxed += step * (1 - late / usual / s.late)
        state.relaxed = min(s.missed_max - s.missed, max(0.0, state.relaxed))

    def wish(self, forecast: float, headroom: float) -> Target:
        use = self.settings.use
        reason = (
            f"interactive work is expected to keep {forecast:.2f} consumers busy when one that starts now is ready, "
            f"and {headroom:.2f} more are headroom learned from past errors"
        )
        return Target(replicas=math.ceil((forecast + headroom) / use - 0.01), reason=reason)

    @property
    def _is_seasonal(self) -> bool:
        return self.state.error_seasonal < self.state.error_recent

    def _quantile(self, load: float) -> float:
        """The error that all but `missed` of the remembered work came with, or less; a prior while that is little."""
        errors = self.state.errors
        if not load and not any(work for _, work in errors):
            # No interactive work was ever seen.
            return 0.0
        if len(errors) < _FEW:
            s = self.settings
            prior = s.prior * min(1.0, load / s.prior_from) + s.prior_share * load
            return max([prior, *(error for error, _ in errors)])
        if self._sorted_for != (self.state.scored_s, len(errors)):
            self._sorted_for = (self.state.scored_s, len(errors))
            allowed = (self.settings.missed + self.state.relaxed) * sum(work for _, work in errors)
            self._headroom = 0.0
            for error, work in sorted(errors, reverse=True):
                self._headroom = max(0.0, error)
                allowed -= work
                if allowed < 0:
                    break
        return self._headroom

    @staticmethod
    def _ratio(load: Load, now_s: float, ahead_s: float) -> float:
        """How yesterday went on from this time of day, within a half and two."""
        then = load.around(now_s - _DAY_S)
        later = load.around(now_s - _DAY_S + ahead_s)
        if not then or later is None:
            return 1.0
        return min(2.0, max(0.5, later / then))
