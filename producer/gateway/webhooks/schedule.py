"""What becomes of an event after an endpoint's answer. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

_GONE = 410
_TOO_LATE_S = 24 * 3600.0


class Outcome(NamedTuple):
    """What one try came to. `status` 0: no answer, and `error` says why."""

    status: int = 0
    error: str = ""
    # As the endpoint asked for; 0 where it did not.
    retry_after_s: float = 0.0

    @property
    def is_delivered(self) -> bool:
        return 200 <= self.status < 300


class Verdict(StrEnum):
    DELIVERED = "delivered"
    RETRY = "retried"
    GIVE_UP = "gave_up"
    DISABLE = "disabled"


def verdict_of(outcome: Outcome, attempt: int, retries_s: Sequence[float]) -> tuple[Verdict, float]:
    """And in how many seconds to try again. `attempt` counts from 1."""
    if outcome.is_delivered:
        return Verdict.DELIVERED, 0.0
    if outcome.status == _GONE:
        return Verdict.DISABLE, 0.0
    if attempt > len(retries_s):
        return Verdict.GIVE_UP, 0.0
    return Verdict.RETRY, max(retries_s[attempt - 1], min(outcome.retry_after_s, _TOO_LATE_S))
