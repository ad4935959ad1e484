"""What was moved to READY and has not ended, as far as this process knows; and how many jobs READY holds. No I/O."""

from __future__ import annotations

import itertools
from collections import OrderedDict

import msgspec

from scaler.dispatch.move import Moved

# READY is short; beyond this the oldest are forgotten, and are found by asking consumers.
_MOST = 50_000


class _Underway(msgspec.Struct):
    moved: Moved
    since_s: float
    asked_s: float


class InReady:
    """`count` is the broker's figure at the last look, and what came and went since."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[tuple[str, str], _Underway] = OrderedDict()
        self._looked = 0
        self._since = 0
        self._expected = 0

    @property
    def count(self) -> int:
        return max(0, self._looked + self._since + self._expected)

    def __len__(self) -> int:
        return len(self._jobs)

    def looked(self, messages: int) -> None:
        """So many are in READY."""
        self._looked, self._since = messages, 0

    def expects(self, jobs: int) -> None:
        """So many are on their way, or, below 0, no more."""
        self._expected += jobs

    def came(self, moved: list[Moved], now_s: float) -> None:
        """They are being published; those who expect them say themselves when that is over."""
        for one in moved:
            self._jobs[one.tenant, one.job] = _Underway(one, now_s, now_s)
        while len(self._jobs) > _MOST:
            self._jobs.popitem(last=False)

    def ended(self, tenant: str, job: str, now_s: float) -> tuple[Moved, float] | None:
        """What it was, and how long it took from READY to its result; None for what others put there."""
        self._since -= 1
        underway = self._jobs.pop((tenant, job), None)
        return None if underway is None else (underway.moved, now_s - underway.since_s)

    def find(self, tenant: str, job: str) -> Moved | None:
        underway = self._jobs.get((tenant, job))
        return underway.moved if underway else None

    def unheard_since(self, before_s: float, now_s: float, most: int) -> list[Moved]:
        """Those that came, or were asked for here, longest ago: their ends may have passed unheard."""
        unheard = [key for key, underway in itertools.islice(self._jobs.items(), most) if underway.asked_s < before_s]
        for key in unheard:
            self._jobs[key].asked_s = now_s
            self._jobs.move_to_end(key)
        return [self._jobs[key].moved for key in unheard]

    def arrived(self, jobs: int) -> None:
        """So many are there."""
        self._since += jobs

    def forget(self, moved: Moved) -> None:
        self._jobs.pop((moved.tenant, moved.job), None)
