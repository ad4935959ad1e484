"""The default policy: deadlines, interactive forecast, patience from zero, no pointless dips, slow down, schedule."""

from __future__ import annotations

import math

import msgspec

from scaler.observation import INTERACTIVE, Observation, Tokens
from scaler.policies import deadline
from scaler.policies.deadline import DeadlineSettings, Need
from scaler.policies.forecast import Forecast, ForecastSettings, ForecastState
from scaler.policies.load import Load, LoadState
from scaler.policies.pace import Pace, PaceState
from scaler.policies.port import Target


class ComposedSettings(msgspec.Struct, frozen=True, kw_only=True):
    deadline: DeadlineSettings = DeadlineSettings()
    forecast: ForecastSettings = ForecastSettings()
    # A fleet of none starts for waiting work worth so many cold starts, or when slack is nearly gone.
    start_cold_starts: float = 9.0
    # Fewer replicas only when none more were wanted for so many cold starts.
    down_cold_starts: float = 2.0
    # A lane that must be done within this counts as short: its load is kept covered.
    short_window_s: float = 2 * 3600.0
    short_mean_s: float = 600.0
    round_up: float = 0.3
    drain_share: float = 0.5
    come_share: float = 0.5
    drain_round: float = 0.5


class ComposedState(msgspec.Struct, kw_only=True):
    """All that the policy remembers."""

    pace: PaceState = msgspec.field(default_factory=PaceState)
    interactive: LoadState = msgspec.field(default_factory=LoadState)
    short: LoadState = msgspec.field(default_factory=LoadState)
    all: LoadState = msgspec.field(default_factory=LoadState)
    forecast: ForecastState = msgspec.field(default_factory=ForecastState)
    # (when, wanted) of the time that "slow down" looks back on.
    wanted: list[tuple[float, int]] = []


class Composed:
    name = "penstock"

    def __init__(self, settings: ComposedSettings | None = None, state: ComposedState | None = None) -> None:
        self.settings = settings or ComposedSettings()
        self.state = state or ComposedState()
        self._pace = Pace(self.state.pace)
        self._interactive = Load(self.state.interactive)
        self._short = Load(self.state.short)
        self._all = Load(self.state.all)
        self._forecast = Forecast(self.settings.forecast, self.state.forecast)
        self._short_lanes: dict[str, float] = {}

    def decide(self, observation: Observation) -> Target:
        self._pace.learn(observation)
        self._count_arrivals(observation)
        now_s, cold_s = observation.unix_s, observation.cold_start_s
        forecast = self._forecast.look(self._interactive, now_s, observation.tick_s, cold_s)
        headroom = self.state.forecast.headroom if forecast > 0 else 0.0
        floor = math.ceil((forecast + headroom) / self.settings.forecast.use - 0.01) if forecast > 0 else 0
        load = self._interactive.mean(now_s, 300.0)
        found = deadline.need(observation, self._pace.factor, load, self.settings.deadline)
        wanted = max(floor, deadline.rounded_up(found.replicas))
        wanted = max(wanted, self._kept(observation, forecast))
        wanted = max(wanted, self._drained(observation, load))
        wanted = self._patient(observation, wanted, found)
        held = self._slowly(observation, wanted)
        return Target(replicas=held, reason=deadline.sentence(found, self.settings.deadline.efficiency))

    def _count_arrivals(self, observation: Observation) -> None:
        now_s, tick_s = observation.unix_s, observation.tick_s
        work = {lane: self._pace.work_s(observation, tokens) for lane, tokens in observation.arrived.items()}
        interactive = work.get(INTERACTIVE, 0.0)
        short = sum(one for lane, one in work.items() if lane in observation.short_lanes)
        self._interactive.add(now_s, tick_s, interactive)
        self._short.add(now_s, tick_s, short)
        self._all.add(now_s, tick_s, sum(work.values()))

    def _kept(self, observation: Observation, forecast: float) -> int:
        """Of the replicas there are, those that would soon be started again."""
        now_s = observation.unix_s
        have = observation.replicas
        waiting = Tokens(
            prompt=sum(due.tokens.prompt for due in observation.due) + observation.interactive_waiting.prompt,
            output=sum(due.tokens.output for due in observation.due) + observation.interactive_waiting.output,
        )
        waiting_s = self._pace.work_s(observation, waiting)
        busy = waiting_s / (2 * observation.cold_start_s) + forecast
        kept = min(float(have), busy, self._all.day_mean(now_s))
        short = self._short.mean(now_s, self.settings.short_mean_s)
        return max(math.floor(kept + 0.01), math.floor(short + self.settings.round_up))

    def _drained(self, observation: Observation, interactive: float) -> int:
        """Half of what comes as it comes, and what waits within half its window: a backlog that takes up swings."""
        s = self.settings
        if s.drain_share <= 0:
            return 0
        waiting = sum(
            self._pace.work_s(observation, due.tokens) / (s.drain_share * due.window_s)
            for due in observation.due
        )
        short = self._short.mean(observation.unix_s, s.short_mean_s) - interactive
        return math.floor(interactive + s.come_share * short + waiting + s.drain_round)

    def _patient(self, observation: Observation, wanted: int, found: Need) -> int:
        """From none, a start must be worth it, or pressing."""
        if observation.replicas or wanted == 0 or observation.interactive_waiting.jobs:
            return wanted
        if self._interactive.mean(observation.unix_s, 300.0) > 0:
            return wanted
        waiting_s = sum(self._pace.work_s(observation, due.tokens) for due in observation.due)
        if waiting_s >= self.settings.start_cold_starts * observation.cold_start_s:
            return wanted
        slack_s = min(
            due.deadline_unix_s - observation.unix_s - self.settings.deadline.margin_share * due.window_s
            for due in observation.due
        )
        slack_s -= observation.service_p95_s + waiting_s / wanted
        return wanted if slack_s < 2 * observation.cold_start_s else 0

    def _slowly(self, observation: Observation, wanted: int) -> int:
        now_s = observation.unix_s
        history = self.state.wanted
        if not history:
            # Whoever ran the pool before had a reason.
            history.append((now_s, observation.replicas))
        history.append((now_s, wanted))
        back_s = self.settings.down_cold_starts * observation.cold_start_s
        while history[0][0] < now_s - back_s:
            history.pop(0)
        if max(one for _, one in history) <= 1 and wanted == 0:
            back_s = observation.cold_start_s
        return max(one for at, one in history if at >= now_s - back_s)
