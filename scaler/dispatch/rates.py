"""How fast a pool works and how long its answers are, learned from results as they come. No I/O, no clock.

A rate counts only seconds in which there was work waiting: an idle pool is not a slow one. Lengths are means by tenant
and lane, by lane, and of the pool, in this order of trust: a mean of few counts little against the wider one.
"""

from __future__ import annotations

from collections import deque

import msgspec

from scaler.dispatch.capacity import Capacity
from schemas.subjects import Lane

# Seconds at work that a rate looks back.
_LOOK_BACK_S = 60
# Fewer tell nothing.
_SECONDS_MIN = 2
# What the wider mean counts beside a narrower one's results; and how many results back a mean looks.
_PRIOR_WORTH = 4.0
_MEAN_OVER = 200.0
# Where nothing is known at all.
_ANSWER_TOKENS = 256.0
# Tenants that are remembered one by one.
_TENANTS_MAX = 20_000


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What a stored result tells of the job's size."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Second(msgspec.Struct):
    at: int
    jobs: int = 0
    prompt: int = 0
    output: int = 0


class _Mean(msgspec.Struct):
    worth: float = 0.0
    mean: float = 0.0

    def add(self, value: float) -> None:
        self.worth = min(self.worth + 1.0, _MEAN_OVER)
        self.mean += (value - self.mean) / self.worth

    def over(self, wider: float) -> float:
        return (self.worth * self.mean + _PRIOR_WORTH * wider) / (self.worth + _PRIOR_WORTH)


class Rates:
    """Of one pool. Times are seconds on any steady clock."""

    def __init__(self) -> None:
        self._seconds: deque[_Second] = deque(maxlen=_LOOK_BACK_S)
        self._service_s = _Mean()
        self._pool = _Mean()
        self._lanes = {lane: _Mean() for lane in Lane}
        self._tenants: dict[tuple[str, Lane], _Mean] = {}

    def at_work(self, now_s: float) -> None:
        """There is work at this moment: the second counts even if nothing is finished in it."""
        self._second(now_s)

    def finished(self, tenant: str, lane: Lane, done: Done, now_s: float) -> None:
        second = self._second(now_s)
        second.jobs += 1
        second.prompt += done.prompt_tokens
        second.output += done.completion_tokens
        if not done.completion_tokens:
            return
        for mean in (self._pool, self._lanes[lane], self._tenant(tenant, lane)):
            mean.add(done.completion_tokens)

    def served(self, service_s: float) -> None:
        """A job took so long from READY to its result."""
        self._service_s.add(service_s)

    def output_tokens(self, tenant: str, lane: Lane, output_tokens_max: int) -> float:
        """Of an answer that may be at most so long (0: as long as the model likes)."""
        wider = self._lanes[lane].over(self._pool.over(_ANSWER_TOKENS))
        mean = self._tenants.get((tenant, lane))
        expected = mean.over(wider) if mean is not None else wider
        return min(expected, output_tokens_max) if output_tokens_max else expected

    def capacity(self, now_s: float, ahead_jobs: int = 0) -> Capacity:
        """`ahead_jobs`: moved to READY and not finished. Rates are 0 until there is enough to tell."""
        # The running second is not over.
        past = [second for second in self._seconds if second.at < int(now_s)]
        if len(past) < _SECONDS_MIN:
            return Capacity(service_s=self._service_s.mean)
        seconds = len(past)
        jobs_per_s = sum(second.jobs for second in past) / seconds
        return Capacity(
            prefill_tokens_per_s=sum(second.prompt for second in past) / seconds,
            decode_tokens_per_s=sum(second.output for second in past) / seconds,
            jobs_per_s=jobs_per_s,
            ahead_s=ahead_jobs / jobs_per_s if jobs_per_s else 0.0,
            service_s=self._service_s.mean,
        )

    def _second(self, now_s: float) -> _Second:
        at = int(now_s)
        if not self._seconds or self._seconds[-1].at != at:
            self._seconds.append(_Second(at))
        return self._seconds[-1]

    def _tenant(self, tenant: str, lane: Lane) -> _Mean:
        mean = self._tenants.get((tenant, lane))
        if mean is None:
            if len(self._tenants) >= _TENANTS_MAX:
                self._tenants.pop(next(iter(self._tenants)))
            mean = self._tenants[tenant, lane] = _Mean()
        return mean
