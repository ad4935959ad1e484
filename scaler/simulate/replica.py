"""One simulated replica: steps of continuous batching, exact in time; runs of equal steps are taken in one leap."""

from __future__ import annotations

import heapq

from scaler.simulate.service import ServiceModel


class Replica:
    """Holds running jobs as (step at which it ends, job). Who calls `begin_step` says what joins."""

    __slots__ = (
        "batch_kv",
        "batch_slots",
        "began_s",
        "held",
        "is_draining",
        "is_leaping",
        "is_ready",
        "kv",
        "leap_steps",
        "model",
        "number",
        "running",
        "slots",
        "started_s",
        "step",
        "step_length_s",
        "version",
    )

    def __init__(self, number: int, started_s: float, model: ServiceModel) -> None:
        self.number = number
        self.started_s = started_s
        self.model = model
        self.is_ready = False
        self.is_draining = False
        self.is_leaping = False
        self.running: list[tuple[int, int, float]] = []
        self.kv = 0.0
        self.step = 0
        self.began_s = 0.0
        self.step_length_s = 0.0
        self.leap_steps = 0
        # Events of an earlier plan are recognised by it and ignored.
        self.version = 0
        self.slots = model.sequences_max
        share = 1 - model.interactive_share
        self.batch_slots = int(model.sequences_max * share)
        self.batch_kv = model.kv_tokens * share

    def has_room(self, kv: float, is_interactive: bool) -> bool:
        if not self.running:
            return True
        if is_interactive:
            return len(self.running) < self.slots and self.kv + kv <= self.model.kv_tokens
        return len(self.running) < self.batch_slots and self.kv + kv <= self.batch_kv

    def join(self, job: int, output: int, kv: float) -> None:
        heapq.heappush(self.running, (self.step + output, job, kv))
        self.kv += kv

    def finished(self) -> list[int]:
        """The jobs whose last token came with the step that just ended."""
        done: list[int] = []
        running = self.running
        while running and running[0][0] <= self.step:
            _, job, kv = heapq.heappop(running)
            self.kv -= kv
            done.append(job)
        return done

    def plan(self, now_s: float, prompt_tokens: int) -> float:
        """Begins the next step, or a leap to the next ending if nothing is prefilled; when it ends."""
        self.version += 1
        self.began_s = now_s
        length = self.model.step_s + self.model.sequence_s * len(self.running)
        self.is_leaping = prompt_tokens == 0
        if self.is_leaping:
            self.leap_steps = self.running[0][0] - self.step
        else:
            self.leap_steps = 1
            length += self.model.prompt_token_s * prompt_tokens
        self.step_length_s = length
        return now_s + self.leap_steps * length

    def cut_leap(self, now_s: float) -> float:
        """Ends a leap at the next step boundary; when that is."""
        self.version += 1
        steps = int((now_s - self.began_s) / self.step_length_s) + 1
        self.leap_steps = min(steps, self.leap_steps)
        self.is_leaping = False
        return self.began_s + self.leap_steps * self.step_length_s

    def end_step(self) -> int:
        """Tokens produced by what was planned."""
        self.step += self.leap_steps
        produced = self.leap_steps * len(self.running)
        self.is_leaping = False
        self.leap_steps = 0
        return produced

    def produced_so_far(self, now_s: float) -> float:
        """Tokens of the step or leap that is under way, as a share of it."""
        if not self.running or self.leap_steps == 0:
            return 0.0
        return len(self.running) * min(float(self.leap_steps), (now_s - self.began_s) / self.step_length_s)
