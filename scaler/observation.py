"""What a policy may know about its pool at one moment. Plain values; who measures them is no concern of a policy."""

from __future__ import annotations

import msgspec

INTERACTIVE = "interactive"


class Tokens(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An amount of work as tokens; output is an estimate until it is done."""

    jobs: int = 0
    prompt: float = 0.0
    output: float = 0.0


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """What must be done by a time, not counting what is due before. `window_s` is the wait that was promised."""

    deadline_unix_s: float
    window_s: float
    tokens: Tokens


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a pool. Amounts "since" cover the time since the look before, `tick_s` ago."""

    pool: str = "default"
    unix_s: float
    tick_s: float
    # The age of the oldest thing looked at: above the guard's limit nothing is decided.
    age_s: float = 0.0

    ready: int = 0
    # For each replica that starts, how long ago it was asked for.
    starting_s: list[float] = []
    draining: int = 0
    # Replicas that died and came back more than twice in the last minutes.
    crash_looping: int = 0

    interactive_waiting: Tokens = Tokens()
    # Everything else that waits and may start now, in order of its deadline.
    due: list[Due] = []
    # Of these, jobs for which nobody named a deadline: whoever waits for them has not said that he can.
    impatient_jobs: int = 0
    # Interactive jobs that began later than they may, since the look before; None where nobody measures it.
    interactive_late: int | None = None
    # What is still to be produced by what runs.
    running: Tokens = Tokens()
    # By lane, since the look before.
    arrived: dict[str, Tokens] = {}
    # Prompt tokens prefilled and tokens produced since the look before, progress of unfinished jobs included.
    processed: Tokens = Tokens()
    # Jobs waited for a place now and at the look before, so that every ready replica was as busy as it can be.
    is_saturated: bool = False

    # One saturated replica doing nothing else; the ratio matters, the scale is learned.
    prefill_tokens_per_s: float = 2000.0
    decode_tokens_per_s: float = 1400.0
    cold_start_s: float = 180.0
    # 95 of 100 jobs are done this long after they started.
    service_p95_s: float = 0.0
    # Lanes whose jobs may wait two hours at most.
    short_lanes: list[str] = []
    interactive_window_s: float = 30.0
    gpu_hours_today: float = 0.0

    @property
    def replicas(self) -> int:
        """Those that work or will, without those that drain."""
        return self.ready + len(self.starting_s)

    @property
    def waiting_jobs(self) -> int:
        return self.interactive_waiting.jobs + sum(due.tokens.jobs for due in self.due)

    def seconds_of(self, tokens: Tokens) -> float:
        """Replica-seconds these tokens take on a saturated replica, before the learned correction."""
        return tokens.prompt / self.prefill_tokens_per_s + tokens.output / self.decode_tokens_per_s
