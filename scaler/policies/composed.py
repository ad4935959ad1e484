"""The default policy: what deadlines, backlog and forecast ask for, patience from zero, no pointless dips, slowly down,
within schedule and budget.
"""

from __future__ import annotations

import msgspec

from scaler.observation import INTERACTIVE, Observation, Tokens
from scaler.policies import deadline
from scaler.policies.backlog import Backlog, BacklogSettings
from scaler.policies.budget import Budget, BudgetSettings
from scaler.policies.deadline import DeadlineSettings
from scaler.policies.forecast import Forecast, ForecastSettings, ForecastState
from scaler.policies.hold import Hold, HoldSettings, HoldState
from scaler.policies.load import Load, LoadState
from scaler.policies.pace import Pace, PaceState
from scaler.policies.port import Target
from scaler.policies.schedule import Schedule, Window


class ComposedSettings(msgspec.Struct, frozen=True, kw_only=True):
    deadline: DeadlineSettings = DeadlineSettings()
    backlog: BacklogSettings = BacklogSettings()
    forecast: ForecastSettings = ForecastSettings()
    hold: HoldSettings = HoldSettings()
    budget: BudgetSettings = BudgetSettings()
    windows: list[Window] = []
    # Without interactive jobs for so long, none are expected. 0: as long as a start must be worth.
    idle_s: float = 0.0


class ComposedState(msgspec.Struct, kw_only=True):
    """All that the policy remembers; a copy given to a new one continues where this one was."""

    pace: PaceState = msgspec.field(default_factory=PaceState)
    interactive: LoadState = msgspec.field(default_factory=LoadState)
    short: LoadState = msgspec.field(default_factory=LoadState)
    all: LoadState = msgspec.field(default_factory=LoadState)
    forecast: ForecastState = msgspec.field(default_factory=ForecastState)
    hold: HoldState = msgspec.field(default_factory=HoldState)
    # When an interactive job last came or waited.
    interactive_unix_s: float = -1e18


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    policy: str
    target: Target


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
        self._backlog = Backlog(self.settings.backlog)
        self._hold = Hold(self.settings.hold, self.state.hold)
        self._schedule = Schedule(self.settings.windows)
        self._budget = Budget(self.settings.budget)

    @property
    def pace(self) -> float:
        return self._pace.factor

    def interactive_load(self, now_s: float) -> float:
        """What interactive work kept busy over the last five minutes, in replicas."""
        return self._interactive.mean(now_s, 300.0)

    def decide(self, observation: Observation) -> Target:
        return self.explained(observation)[0]

    def explained(self, observation: Observation) -> tuple[Target, list[Wish]]:
        """The target, and what each part wished on the way there."""
        self._pace.learn(observation)
        self._count_arrivals(observation)
        now_s = observation.unix_s
        load = self.interactive_load(now_s)
        short = self._short.mean(now_s, self.settings.hold.short_s(observation.cold_start_s))
        came = observation.arrived.get(INTERACTIVE)
        self._forecast.relax(came.jobs if came else 0, observation.interactive_late, observation.tick_s)
        forecast, headroom = self._forecast.look(
            self._interactive, now_s, observation.cold_start_s, observation.interactive_window_s
        )
        expected = self._forecast.wish(forecast, headroom)
        if (quiet := self._quiet(observation)) is not None:
            load, forecast, headroom, expected = 0.0, 0.0, 0.0, quiet
        found = deadline.need(observation, self.pace, load, self.settings.deadline)
        wishes = [
            Wish(policy="forecast", target=expected),
            Wish(policy="deadline", target=deadline.target(found, self.settings.deadline)),
            Wish(policy="backlog", target=self._backlog.wish(observation, self.pace, load, max(0.0, short - load))),
        ]
        waiting_s = self._waiting_s(observation)
        kept = self._hold.kept(observation, waiting_s, forecast, short, self._all.day_mean(now_s))
        wishes.append(Wish(policy="keep", target=kept))
        if quiet is None and observation.replicas:
            wishes.append(Wish(policy="stay", target=self._stay(observation)))
        if jobs := observation.interactive_waiting.jobs:
            # However little work it is, and however long the start takes.
            reason = f"{jobs} interactive {'job waits' if jobs == 1 else 'jobs wait'}, so somebody must be there"
            wishes.append(Wish(policy="wake", target=Target(replicas=1, reason=reason)))
        wanted, reason = 0, "nothing waits, comes or is expected"
        for wish in wishes:
            if wish.target.replicas is not None and wish.target.replicas > wanted:
                wanted, reason = wish.target.replicas, f"{wish.policy}: {wish.target.reason}"
        patient = self._patient(observation, wanted, waiting_s, load + headroom)
        if patient is not None:
            wishes.append(Wish(policy="patience", target=patient))
            wanted, reason = patient.replicas or 0, f"patience: {patient.reason}"
        held = self._hold.slowly(observation, wanted)
        if held.replicas is not None and held.replicas > wanted:
            wishes.append(Wish(policy="hold", target=held))
            wanted, reason = held.replicas, f"hold: {held.reason}"
        return self._limited(observation, wanted, reason, wishes)

    def _limited(
        self, observation: Observation, wanted: int, reason: str, wishes: list[Wish]
    ) -> tuple[Target, list[Wish]]:
        budget = self._budget.decide(observation)
        if budget.replicas is not None:
            wishes.append(Wish(policy="budget", target=budget))
            if budget.replicas < wanted:
                wanted, reason = budget.replicas, f"budget: {budget.reason}"
        if self.settings.windows:
            target = self._schedule.decide(observation)
            wishes.append(Wish(policy="schedule", target=target))
            clipped = self._schedule.clip(wanted, observation.unix_s, observation.cold_start_s)
            if clipped != wanted:
                wanted, reason = clipped, target.reason
        return Target(replicas=wanted, reason=reason), wishes

    def _count_arrivals(self, observation: Observation) -> None:
        now_s, tick_s = observation.unix_s, observation.tick_s
        work = {lane: self._pace.work_s(observation, tokens) for lane, tokens in observation.arrived.items()}
        self._interactive.add(now_s, tick_s, work.get(INTERACTIVE, 0.0))
        self._short.add(now_s, tick_s, sum(one for lane, one in work.items() if lane in observation.short_lanes))
        self._all.add(now_s, tick_s, sum(work.values()))

    def _waiting_s(self, observation: Observation) -> float:
        parts = [due.tokens for due in observation.due] + [observation.interactive_waiting]
        waiting = Tokens(prompt=sum(part.prompt for part in parts), output=sum(part.output for part in parts))
        return self._pace.work_s(observation, waiting)

    def _quiet(self, observation: Observation) -> Target | None:
        """The end of what is expected of the interactive lane: recent load would keep a replica for hours."""
        came = observation.arrived.get(INTERACTIVE)
        if observation.interactive_waiting.jobs or (came and came.jobs):
            self.state.interactive_unix_s = observation.unix_s
        idle_s = self._idle_s(observation)
        quiet_s = observation.unix_s - self.state.interactive_unix_s
        if quiet_s < idle_s:
            return None
        if self.state.interactive_unix_s < 0:
            return Target(replicas=0, reason="no interactive job ever came")
        reason = f"no interactive job came for {quiet_s:,.0f} s, and {idle_s:,.0f} s is as long as waiting for one pays"
        return Target(replicas=0, reason=reason)

    def _stay(self, observation: Observation) -> Target:
        ago_s, idle_s = observation.unix_s - self.state.interactive_unix_s, self._idle_s(observation)
        reason = f"an interactive job came {ago_s:,.0f} s ago, and for {idle_s:,.0f} s somebody stays for the next"
        return Target(replicas=1, reason=reason)

    def _idle_s(self, observation: Observation) -> float:
        return self.settings.idle_s or self.settings.hold.start_cold_starts * observation.cold_start_s

    def _patient(self, observation: Observation, wanted: int, waiting_s: float, interactive: float) -> Target | None:
        """From none, a start for work that has time must be worth it, or pressing."""
        if observation.replicas or wanted == 0 or observation.interactive_waiting.jobs or interactive > 0:
            return None
        if not observation.due or observation.impatient_jobs:
            return None
        margin = self.settings.deadline.margin_share
        slack_s = min(due.deadline_unix_s - observation.unix_s - margin * due.window_s for due in observation.due)
        slack_s -= observation.service_p95_s + waiting_s / wanted
        return self._hold.patient(observation, wanted, waiting_s, slack_s)
