"""Forecasts of a sample of jobs, kept until the jobs end: what makes the next forecasts' spread honest. No I/O."""

from __future__ import annotations

from collections import OrderedDict

from scaler.dispatch.backlog import Backlog
from scaler.dispatch.capacity import Capacity
from schemas.backlog import Ticket
from schemas.dispatch import Quote
from schemas.subjects import Lane

_EVERY_S = 0.1
_MOST = 10_000


class Etas:
    """`forecast` when a job comes, `ended` when it is done."""

    def __init__(self) -> None:
        # By tenant and job: seconds it was to wait, and since when, in Unix milliseconds.
        self._open: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()
        self._next_at = 0.0

    def wants(self, now_s: float) -> bool:
        """A few a second are enough."""
        if now_s < self._next_at:
            return False
        self._next_at = now_s + _EVERY_S
        return True

    def forecast(
        self,
        tenant: str,
        job: str,
        lane: Lane,
        ticket: Ticket,
        backlog: Backlog,
        now_unix_ms: int,
        capacity: Capacity,
    ) -> None:
        """What a quote says of this job now. Those held on purpose tell nothing of the pool."""
        if ticket.not_before_unix_ms or ticket.window:
            return
        quote = Quote(
            tenant=tenant,
            lane=lane,
            prompt_tokens=ticket.prompt_tokens,
            output_tokens_max=ticket.output_tokens_max,
        )
        eta = backlog.quote(quote, now_unix_ms, capacity).eta_unix_ms
        if not eta:
            return
        self._open[tenant, job] = ((eta - now_unix_ms) / 1000, now_unix_ms)
        if len(self._open) > _MOST:
            self._open.popitem(last=False)

    def ended(self, tenant: str, job: str, now_unix_ms: int) -> tuple[float, float] | None:
        """Forecast and actual wait in seconds, where there was a forecast."""
        found = self._open.pop((tenant, job), None)
        return None if found is None else (found[0], (now_unix_ms - found[1]) / 1000)
