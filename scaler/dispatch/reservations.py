"""Room kept for jobs that were quoted firmly and are still on their way. No I/O."""

from __future__ import annotations

from collections import deque

from scaler.dispatch.demand import Demand
from schemas.subjects import Lane

KEPT_MS = 5000
_Key = tuple[Lane, str, int]


class _Reservation:
    __slots__ = ("jobs", "key", "output", "prompt", "until_unix_ms")

    def __init__(self, key: _Key, jobs: int, prompt: int, output: int, until_unix_ms: int) -> None:
        self.key = key
        self.jobs = jobs
        self.prompt = prompt
        self.output = output
        self.until_unix_ms = until_unix_ms


class Reservations:
    """Counted in the demand until the jobs are seen (known by lane, tenant and deadline) or the time is over."""

    __slots__ = ("_by_key", "_demand", "_in_time")

    def __init__(self, demand: Demand) -> None:
        self._demand = demand
        self._in_time: deque[_Reservation] = deque()
        self._by_key: dict[_Key, deque[_Reservation]] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def keep(self, lane: Lane, tenant: str, deadline_unix_ms: int, amounts: tuple[int, int, int], now: int) -> None:
        """`amounts`: jobs, prompt tokens, output tokens."""
        one = _Reservation((lane, tenant, deadline_unix_ms), *amounts, now + KEPT_MS)
        self._in_time.append(one)
        self._by_key.setdefault(one.key, deque()).append(one)
        self._demand.add(deadline_unix_ms, *amounts)

    def seen(self, lane: Lane, tenant: str, deadline_unix_ms: int, prompt: int, output: int) -> None:
        """One such job is here now and counts itself."""
        kept = self._by_key.get((lane, tenant, deadline_unix_ms))
        if not kept:
            return
        one = kept[0]
        # The last one gives back whatever estimates left over.
        is_last = one.jobs <= 1
        prompt = one.prompt if is_last else min(prompt, one.prompt)
        output = one.output if is_last else min(output, one.output)
        self._take(one, 1, prompt, output)

    def turn(self, now_unix_ms: int) -> None:
        """Gives up what was kept long enough."""
        while self._in_time and self._in_time[0].until_unix_ms <= now_unix_ms:
            one = self._in_time.popleft()
            if one.jobs:
                self._take(one, one.jobs, one.prompt, one.output)

    def count_again(self) -> None:
        """The demand was rebuilt without them."""
        for one in self._in_time:
            if one.jobs:
                self._demand.add(one.key[2], one.jobs, one.prompt, one.output)

    def _take(self, one: _Reservation, jobs: int, prompt: int, output: int) -> None:
        one.jobs -= jobs
        one.prompt -= prompt
        one.output -= output
        self._demand.add(one.key[2], -jobs, -prompt, -output)
        if not one.jobs:
            kept = self._by_key[one.key]
            kept.remove(one)
            if not kept:
                del self._by_key[one.key]
