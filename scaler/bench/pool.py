"""A pool in virtual time: consumers' places that each take a job at a time, READY in front of them, a backlog behind.

The backlog is the real one. Rates are measured as a dispatcher would: from what was finished while the pool was busy.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Protocol

import msgspec

from scaler.bench.workday import BATCHERS, Arrival, mean_output
from scaler.dispatch.backlog import Backlog, Capacity
from schemas.backlog import Ticket
from schemas.config import DispatcherSection
from schemas.dispatch import Quote
from schemas.subjects import Lane

# Any time; deadlines are whole milliseconds from here.
START_MS = 1_800_000_000_000
# READY holds so many seconds of work.
_AHEAD_S = 1.0


def unix_ms(time_s: float) -> int:
    return START_MS + round(time_s * 1000)


class Ended(msgspec.Struct):
    """What became of a job. `finished_s` is infinite where it expired, `started_s` where it was refused too."""

    is_accepted: bool = True
    started_s: float = float("inf")
    finished_s: float = float("inf")
    eta_s: float = 0.0
    latest_s: float = 0.0
    # As estimated when it came.
    tokens: int = 0


class Order(Protocol):
    """What the pool needs of a dispatcher. Jobs are known by their place in the day."""

    def offer(self, number: int, arrival: Arrival, capacity: Capacity, ended: Ended) -> bool:
        """Whether it was accepted."""
        ...

    def pick(self, jobs: int, now_s: float, capacity: Capacity) -> list[int]: ...

    def finished(self, number: int, arrival: Arrival, ended: Ended) -> None: ...


class Fifo:
    """First come, first served, of what another order accepted."""

    def __init__(self, lives: list[Ended]) -> None:
        self._lives = lives
        self._waiting: deque[int] = deque()

    def offer(self, number: int, arrival: Arrival, capacity: Capacity, ended: Ended) -> bool:
        del arrival, capacity, ended
        if self._lives[number].is_accepted:
            self._waiting.append(number)
        return self._lives[number].is_accepted

    def pick(self, jobs: int, now_s: float, capacity: Capacity) -> list[int]:
        del now_s, capacity
        return [self._waiting.popleft() for _ in range(min(jobs, len(self._waiting)))]

    def finished(self, number: int, arrival: Arrival, ended: Ended) -> None: ...


class Ours:
    """The backlog, with answers' lengths learned per tenant as the dispatcher learns them."""

    def __init__(self) -> None:
        # What is learned of a tenant begins at half or twice the truth, and is soon right in the mean.
        self._means = {"web": 400.0}
        self._counts: dict[str, int] = {}
        self.backlog = Backlog(DispatcherSection(weights=BATCHERS), self._estimate)

    def _estimate(self, tenant: str, lane: Lane, output_max: int) -> float:
        del lane, output_max
        return self._means.get(tenant, mean_output(tenant) / 2)

    def offer(self, number: int, arrival: Arrival, capacity: Capacity, ended: Ended) -> bool:
        now, due = unix_ms(arrival.at_s), unix_ms(arrival.deadline_s)
        quote = Quote(
            tenant=arrival.tenant, prompt_tokens=arrival.prompt_told, deadline_unix_ms=due, lane=Lane.STANDARD
        )
        promise = self.backlog.quote(quote, now, capacity)
        if not promise.is_accepted:
            return False
        ended.eta_s = (promise.eta_unix_ms - START_MS) / 1000
        ended.latest_s = (promise.latest_unix_ms - START_MS) / 1000
        ticket = Ticket(prompt_tokens=arrival.prompt_told, deadline_unix_ms=due)
        self.backlog.add(number + 1, Lane.STANDARD, arrival.tenant, ticket, number + 1, now)
        ended.tokens = arrival.prompt_told + int(self._estimate(arrival.tenant, Lane.STANDARD, 0))
        return True

    def pick(self, jobs: int, now_s: float, capacity: Capacity) -> list[int]:
        now = unix_ms(now_s)
        self.backlog.moved(self.backlog.expire(now))
        seqs = self.backlog.pick(jobs, now, capacity)
        self.backlog.moved(seqs)
        return [seq - 1 for seq in seqs]

    def finished(self, number: int, arrival: Arrival, ended: Ended) -> None:
        del number
        count = self._counts[arrival.tenant] = self._counts.get(arrival.tenant, 0) + 1
        mean = self._estimate(arrival.tenant, Lane.STANDARD, 0)
        self._means[arrival.tenant] = mean + (arrival.output - mean) / min(count + 2, 5000)
        if ended.eta_s:
            self.backlog.observe_eta(ended.eta_s - arrival.at_s, ended.finished_s - arrival.at_s)


class Pool:
    """Runs a day of arrivals through an order."""

    def __init__(self, arrivals: list[Arrival], order: Order, *, tokens_per_s: float, places: int) -> None:
        self._arrivals = arrivals
        self._order = order
        self._place_rate = tokens_per_s / places
        self._places = places
        self._free = places
        self._ready: deque[int] = deque()
        # Finish, number.
        self._running: list[tuple[float, int]] = []
        self.lives = [Ended() for _ in arrivals]
        # In order: a job and whether it was picked, else accepted.
        self.events: list[tuple[int, bool]] = []
        self._depth = 1
        # Moving means over the last few thousand jobs: seconds a place was busy, and tokens, of one job.
        self._job_s = self._job_prompt = self._job_output = 0.0
        self._finished = 0

    def run(self) -> None:
        # What the pool does is known before the day begins: yesterday's rates.
        sample = self._arrivals[:: max(1, len(self._arrivals) // 2000)]
        for arrival in sample:
            self._learn(arrival)
        for number, arrival in enumerate(self._arrivals):
            self._finish_until(arrival.at_s)
            is_accepted = self._order.offer(number, arrival, self._capacity(arrival.at_s), self.lives[number])
            self.lives[number].is_accepted = is_accepted
            if is_accepted:
                self.events.append((number, False))
            self._fill(arrival.at_s)
        self._finish_until(float("inf"))

    def _finish_until(self, time_s: float) -> None:
        while self._running and self._running[0][0] <= time_s:
            now_s, number = heapq.heappop(self._running)
            self._free += 1
            self._order.finished(number, self._arrivals[number], self.lives[number])
            self._learn(self._arrivals[number])
            self._fill(now_s)

    def _fill(self, now_s: float) -> None:
        while True:
            if len(self._ready) * 2 < self._depth or (self._free and not self._ready):
                picked = self._order.pick(self._depth - len(self._ready), now_s, self._capacity(now_s))
                self.events += [(number, True) for number in picked]
                self._ready += picked
            if not self._free or not self._ready:
                return
            self._start(self._ready.popleft(), now_s)

    def _start(self, number: int, now_s: float) -> None:
        life, arrival = self.lives[number], self._arrivals[number]
        # What is past its deadline in READY is answered "expired" by the consumer, at once.
        if now_s >= arrival.deadline_s:
            return
        life.started_s = now_s
        life.finished_s = now_s + arrival.cost / self._place_rate
        self._free -= 1
        heapq.heappush(self._running, (life.finished_s, number))

    def _learn(self, arrival: Arrival) -> None:
        self._finished += 1
        weight = 1 / min(self._finished, 5000)
        self._job_s += (arrival.cost / self._place_rate - self._job_s) * weight
        self._job_prompt += (arrival.prompt_told - self._job_prompt) * weight
        self._job_output += (arrival.output - self._job_output) * weight
        self._depth = max(2, round(_AHEAD_S * self._places / self._job_s))

    def _capacity(self, now_s: float) -> Capacity:
        del now_s
        jobs_per_s = self._places / self._job_s
        # Running ones are half done in the mean.
        ahead = (len(self._ready) + len(self._running) / 2) / jobs_per_s
        return Capacity(
            prefill_tokens_per_s=jobs_per_s * self._job_prompt,
            decode_tokens_per_s=jobs_per_s * self._job_output,
            jobs_per_s=jobs_per_s,
            ahead_s=ahead,
            service_s=self._job_s,
        )
