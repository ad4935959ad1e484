"""What consumers say of themselves, as far as a scaler needs it. No I/O, no clock."""

from __future__ import annotations

import msgspec

# Two lost messages and a late one do not make a consumer vanish.
_FRESH_INTERVALS = 4


class LaneWork(msgspec.Struct, frozen=True, kw_only=True):
    """Since the consumer's start; tokens are those of jobs that left."""

    started: int = 0
    left: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0


class Worked(msgspec.Struct, frozen=True, kw_only=True):
    """Since the consumer's start, with what runs now."""

    prompt_tokens: int = 0
    output_tokens: int = 0
    service_p95_s: float = 0.0
    lanes: dict[str, LaneWork] = {}


class StepCost(msgspec.Struct, frozen=True):
    base_s: float = 0.0
    per_sequence_s: float = 0.0
    per_prefill_token_s: float = 0.0


class EngineFigures(msgspec.Struct, frozen=True, kw_only=True):
    blocks_total: int = 0
    blocks_free: int = 0
    block_size: int = 16
    sequences_max: int = 0
    step_s: float = 0.0
    step_tokens_max: int = 0
    cost: StepCost = StepCost()


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    running: int = 0
    remaining_tokens: int = 0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One telemetry message. Fields of other versions are left alone."""

    consumer: str
    jobs: int = 0
    pace: Pace = Pace()
    is_draining: bool = False
    every_s: float = 0.5
    started_unix_ms: int = 0
    worked: Worked = Worked()
    capacity: EngineFigures = EngineFigures()

    @property
    def load_tokens(self) -> int:
        """What stopping it would put off; jobs that are not admitted yet weigh a little."""
        return self.pace.remaining_tokens + self.jobs


class Reports:
    """The newest of each consumer."""

    def __init__(self) -> None:
        self._heard: dict[str, tuple[float, Report]] = {}
        # When each was first heard, for as long as it lives.
        self.first_heard_s: dict[str, float] = {}

    def note(self, report: Report, now_s: float) -> bool:
        """Whether it is a new one."""
        known = self._heard.get(report.consumer)
        # A restarted one has the name of the one before.
        is_new = known is None or known[1].started_unix_ms != report.started_unix_ms
        self._heard[report.consumer] = (now_s, report)
        if is_new:
            self.first_heard_s[report.consumer] = now_s
        return is_new

    def fresh(self, now_s: float) -> dict[str, Report]:
        for name, (heard_s, report) in list(self._heard.items()):
            if now_s - heard_s > max(0.5, report.every_s) * _FRESH_INTERVALS:
                del self._heard[name], self.first_heard_s[name]
        return {name: report for name, (_, report) in self._heard.items()}
