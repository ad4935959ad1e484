"""What others do, as their documents and code describe it, each with the setting that is usually tuned by hand.

All are asked every 15 s, as the Kubernetes autoscaler is; those that sample more finely lose nothing that matters
beside a cold start of a minute or more.
"""

from __future__ import annotations

import math
from collections import deque

from scaler.observation import INTERACTIVE
from scaler.simulate.observe import Look
from scaler.simulate.run import Scaler


class Static:
    """Always the same number."""

    def __init__(self, replicas: float) -> None:
        self._replicas = int(replicas)

    def replicas(self, look: Look) -> int:
        del look
        return self._replicas


class _Hpa:
    """Kubernetes' rules around a recommendation: 10% tolerance, up to twice or four more at once, slowly down."""

    def __init__(self, stabilised_s: float = 300.0) -> None:
        self._stabilised_s = stabilised_s
        self._wishes: deque[tuple[float, int]] = deque()

    def bounded(self, now_s: float, have: int, ratio: float, least: int = 1) -> int:
        """`ratio` is the metric over its target; within the tolerance nothing changes."""
        wish = have if abs(ratio - 1) <= 0.1 else math.ceil(have * ratio)
        wish = max(least, min(wish, max(2 * have, have + 4)))
        self._wishes.append((now_s, wish))
        while self._wishes[0][0] < now_s - self._stabilised_s:
            self._wishes.popleft()
        return max(wish, min(have, max(one for _, one in self._wishes)))


class KedaLag:
    """KEDA's NATS scaler: jobs that wait or run over a threshold; polled every 30 s, to zero after 300 s of nothing."""

    poll_s, cooldown_s = 30.0, 300.0

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._hpa = _Hpa()
        self._polled_s = -self.poll_s
        self._lag = 0
        self._active_s = 0.0

    def replicas(self, look: Look) -> int:
        seen = look.observation
        if seen.unix_s - self._polled_s >= self.poll_s:
            self._polled_s = seen.unix_s
            self._lag = seen.waiting_jobs + look.running_jobs
        if self._lag:
            self._active_s = seen.unix_s
        elif seen.unix_s - self._active_s > self.cooldown_s:
            return 0
        have = seen.replicas
        if have == 0:
            return 1 if self._lag else 0
        return self._hpa.bounded(seen.unix_s, have, self._lag / (self._threshold * have))


class HpaOnCache:
    """HPA on the mean use of the KV cache; what waits it does not see, so one replica always stays."""

    def __init__(self, target: float) -> None:
        self._target = target
        self._hpa = _Hpa()

    def replicas(self, look: Look) -> int:
        have = max(1, look.observation.replicas)
        ready = max(1, look.observation.ready)
        # Replicas that start report nothing and count as idle when the wish is to grow, as HPA counts them.
        ratio = look.kv_use * ready / have / self._target if look.kv_use > self._target else look.kv_use / self._target
        return self._hpa.bounded(look.observation.unix_s, have, ratio)


class KnativeKpa:
    """Concurrency over a target, on a stable window of 60 s; when the last sample asks for twice that, it rules."""

    def __init__(self, target: float) -> None:
        self._target = target
        self._samples: deque[tuple[float, int]] = deque()
        self._panic_until_s = -1.0
        self._panic = 0

    def replicas(self, look: Look) -> int:
        now_s, have = look.observation.unix_s, look.observation.replicas
        jobs = look.observation.waiting_jobs + look.running_jobs
        self._samples.append((now_s, jobs))
        while self._samples[0][0] <= now_s - 60:
            self._samples.popleft()
        stable = math.ceil(sum(one for _, one in self._samples) / len(self._samples) / self._target)
        sudden = math.ceil(jobs / self._target)
        if sudden >= 2 * max(1, look.observation.ready):
            self._panic_until_s = now_s + 60
        if now_s < self._panic_until_s:
            self._panic = max(self._panic, sudden, have)
            return self._panic
        self._panic = 0
        return max(stable, math.floor(have / 2) if stable else 0)


class SageMakerBacklog:
    """Target tracking of the backlog for each instance: out after three minutes above it, in after fifteen below."""

    def __init__(self, target: float) -> None:
        self._target = target
        self._above_s = self._below_s = self._last_s = 0.0

    def replicas(self, look: Look) -> int:
        seen = look.observation
        have, jobs = seen.replicas, seen.waiting_jobs + look.running_jobs
        passed, self._last_s = seen.unix_s - self._last_s, seen.unix_s
        if have == 0:
            # "Has backlog without capacity", a step-scaling rule beside the target.
            return 1 if jobs else 0
        each = jobs / have
        self._above_s = self._above_s + passed if each > self._target else 0.0
        self._below_s = self._below_s + passed if each < 0.9 * self._target else 0.0
        if self._above_s >= 180:
            self._above_s = 0.0
            return math.ceil(jobs / self._target)
        if self._below_s >= 900:
            self._below_s = 0.0
            return math.ceil(jobs / self._target)
        return have


class DynamoBatch:
    """Dynamo's batch policy: the largest rate a deadline asks for, in requests, and last interval's online load."""

    margin_s = 30.0
    # It decides once an interval; a shorter one would only see more noise.
    interval_s = 60.0

    def __init__(self, safe_rate: float) -> None:
        self._safe_rate = safe_rate
        self._decided_s = 0.0
        self._online = 0
        self._replicas = -1

    def replicas(self, look: Look) -> int:
        seen = look.observation
        arrived = seen.arrived.get(INTERACTIVE)
        self._online += arrived.jobs if arrived else 0
        passed_s = seen.unix_s - self._decided_s
        if passed_s < self.interval_s:
            return seen.replicas if self._replicas < 0 else self._replicas
        required, remaining = 0.0, 0
        for due in seen.due:
            remaining += due.tokens.jobs
            left_s = due.deadline_unix_s - seen.unix_s - seen.cold_start_s - self.margin_s
            required = max(required, remaining / max(self.interval_s, left_s))
        self._replicas = math.ceil((self._online / passed_s + required) / self._safe_rate)
        self._decided_s, self._online = seen.unix_s, 0
        return self._replicas


def static_settings(mean_replicas: float) -> list[float]:
    return [float(one) for one in range(max(1, math.floor(mean_replicas)), math.ceil(mean_replicas) * 3 + 3)]


# By name: what makes one with a setting, the usual setting, and those tried in hindsight. Dynamo's are shares of a
# replica's true mean rate, which its profiler would know.
BASELINES: dict[str, tuple[type[Scaler], float | None, tuple[float, ...]]] = {
    "static": (Static, None, ()),
    "keda-lag": (KedaLag, 10.0, (10, 20, 32, 50, 75, 100, 150, 200, 300, 400, 600, 1000)),
    "hpa-kv": (HpaOnCache, 0.7, (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)),
    "knative-kpa": (KnativeKpa, 70.0, (20, 40, 70, 100, 140, 200, 300, 500)),
    "sagemaker": (SageMakerBacklog, 5.0, (5, 20, 50, 100, 150, 200, 300, 500)),
    "dynamo-batch": (DynamoBatch, 0.85, (0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 1.0)),
}
