"""Somebody else who sets the size of what we scale: noticed, said, and not fought without end. Pure.

One change by somebody else is put right, because a scaler that obeys every stray write is none; `penstock scale` is
how a person overrides it. But whoever does it again and again is another autoscaler, and two of them would make the
fleet swing: then ours steps back, and says so, until the size has been left alone for a while.
"""

from __future__ import annotations

from collections import deque


class Drift:
    """For one pool. `now_s` is a clock that only runs forward."""

    def __init__(self, *, times_max: int, window_s: float) -> None:
        self._times_max = times_max
        self._window_s = window_s
        self._asked: int | None = None
        self._asking: int | None = None
        self._seen: int | None = None
        self._changes: deque[float] = deque(maxlen=times_max)

    def asking(self, replicas: int) -> None:
        """We are about to set it so, and may not hear whether it was done."""
        self._asking = replicas

    def asked(self, replicas: int) -> None:
        """It stands as we wanted it."""
        self._asked = self._seen = replicas
        self._asking = None

    def saw(self, replicas: int, now_s: float, *, is_ours: bool = False) -> bool:
        """It stands so. Whether somebody else has just changed it. `is_ours`: known to be a scaler's of penstock."""
        was, self._seen = self._seen, replicas
        if self._asked is None or is_ours or replicas == self._asking:
            self._asked = replicas
        if replicas in {self._asked, was}:
            return False
        self._changes.append(now_s)
        return True

    def is_contested(self, now_s: float) -> bool:
        """Whether to leave the size alone for now."""
        return (
            len(self._changes) == self._times_max and self._changes[-1] >= now_s - self._window_s and self._was_often()
        )

    def _was_often(self) -> bool:
        return self._changes[-1] - self._changes[0] <= self._window_s
