"""What a tenant has had in the last minute, here and at the other gateways, and whether it may have more. Pure.

Each gateway counts its own and says so to the others (`usage.py`). So a limit holds over all of them, give or take what
is admitted between two reports.
"""

from __future__ import annotations

import msgspec

from producer.gateway.refusals import RateLimited
from schemas.config import LimitsSection

WINDOW_S = 60
# Whoever was not heard for this long holds no lines any more.
_SILENT_S = 5.0


class Counts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One gateway's part of a tenant's use: the last minute, and lines held now."""

    requests: int = 0
    tokens: int = 0
    held: int = 0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway says: all tenants that have any use."""

    gateway: str
    tenants: dict[str, Counts] = {}


class _Window:
    """A sum over the last minute, in slots of a second."""

    __slots__ = ("_newest", "_slots", "total")

    def __init__(self) -> None:
        self._slots = [0] * WINDOW_S
        self._newest = 0
        self.total = 0

    def add(self, amount: int, now_s: float) -> None:
        self.roll(now_s)
        self._slots[int(now_s) % WINDOW_S] += amount
        self.total += amount

    def roll(self, now_s: float) -> int:
        """Forgets what is over a minute old; returns the sum."""
        second = int(now_s)
        gone = min(WINDOW_S, max(0, second - self._newest))
        for back in range(gone):
            place = (second - back) % WINDOW_S
            self.total -= self._slots[place]
            self._slots[place] = 0
        self._newest = max(self._newest, second)
        return self.total

    def frees_after_s(self, amount: int, now_s: float) -> float:
        """In how many seconds so much will have been forgotten."""
        freed = 0
        for ahead in range(1, WINDOW_S + 1):
            freed += self._slots[(int(now_s) + ahead) % WINDOW_S]
            if freed >= amount:
                return float(ahead)
        return float(WINDOW_S)


class _Tenant:
    __slots__ = ("held", "requests", "tokens")

    def __init__(self) -> None:
        self.requests = _Window()
        self.tokens = _Window()
        self.held = 0

    def counts(self, now_s: float) -> Counts:
        # A correction may be larger than what is left of its estimate.
        tokens = max(0, self.tokens.roll(now_s))
        return Counts(requests=self.requests.roll(now_s), tokens=tokens, held=self.held)


class Limits:
    """Of all tenants. `admit` before a request, `done` after it, once each."""

    def __init__(self, default: LimitsSection, tenants: dict[str, LimitsSection]) -> None:
        self._default = default
        self._by_tenant = tenants
        self._own: dict[str, _Tenant] = {}
        self._others: dict[str, tuple[Report, float]] = {}

    def of(self, tenant: str) -> LimitsSection:
        return self._by_tenant.get(tenant, self._default)

    def admit(self, tenant: str, tokens: int, now_s: float, *, drain_per_s: float = 0.0, requests: int = 1) -> None:
        """Charges `tokens` (an estimate) and a request, and holds a line.

        `drain_per_s`: jobs that the pool finishes, where known.

        Raises:
            RateLimited: which limit, how much of it is used, and when to come back.
        """
        limits = self.of(tenant)
        own = self._own.get(tenant)
        if own is None:
            own = self._own[tenant] = _Tenant()
        if limits.requests_per_minute or limits.tokens_per_minute or limits.concurrency:
            self._check(limits, own, tokens, requests, now_s, drain_per_s, tenant)
        own.requests.add(requests, now_s)
        own.tokens.add(tokens, now_s)
        own.held += 1

    def done(self, tenant: str, now_s: float, *, correction: int = 0) -> None:
        """The line is free. `correction`: tokens that were really used, less the estimate."""
        own = self._own[tenant]
        own.held -= 1
        if correction:
            own.tokens.add(correction, now_s)

    def take(self, report: Report, now_s: float) -> None:
        """What another gateway says."""
        self._others[report.gateway] = (report, now_s)

    def report(self, gateway: str, now_s: float) -> Report:
        """What this one says; forgets tenants that have no use any more."""
        tenants: dict[str, Counts] = {}
        for name, own in list(self._own.items()):
            counts = own.counts(now_s)
            if counts == _NONE:
                del self._own[name]
            else:
                tenants[name] = counts
        return Report(gateway=gateway, tenants=tenants)

    def used(self, tenant: str, now_s: float) -> Counts:
        """By all gateways together."""
        own = self._own.get(tenant)
        counts = own.counts(now_s) if own else _NONE
        requests, tokens, held = float(counts.requests), float(counts.tokens), counts.held
        for name, (report, at_s) in list(self._others.items()):
            age_s = now_s - at_s
            if age_s >= WINDOW_S:
                del self._others[name]
                continue
            theirs = report.tenants.get(tenant)
            if theirs is not None:
                # One that lives says it anew every second; of one that died, its minute fades.
                left = 1 - age_s / WINDOW_S if age_s > _SILENT_S else 1.0
                requests += theirs.requests * left
                tokens += theirs.tokens * left
                held += theirs.held if age_s <= _SILENT_S else 0
        return Counts(requests=round(requests), tokens=round(tokens), held=held)

    def _check(
        self,
        limits: LimitsSection,
        own: _Tenant,
        tokens: int,
        requests: int,
        now_s: float,
        drain_per_s: float,
        tenant: str,
    ) -> None:
        used = self.used(tenant, now_s)
        over = used.requests + requests - limits.requests_per_minute
        if limits.requests_per_minute and over > 0:
            raise RateLimited(
                f"{used.requests} requests in the last minute, the limit is {limits.requests_per_minute}",
                retry_after_s=own.requests.frees_after_s(over, now_s),
            )
        if limits.tokens_per_minute and used.tokens + tokens > limits.tokens_per_minute:
            raise RateLimited(
                f"{used.tokens} tokens in the last minute and this needs about {tokens}, "
                f"the limit is {limits.tokens_per_minute}",
                retry_after_s=own.tokens.frees_after_s(used.tokens + tokens - limits.tokens_per_minute, now_s),
                code="tokens_per_minute_exceeded",
            )
        if limits.concurrency and used.held >= limits.concurrency:
            raise RateLimited(
                f"{used.held} requests are being answered, the limit is {limits.concurrency}",
                retry_after_s=1 / drain_per_s if drain_per_s else 1.0,
                code="concurrency_exceeded",
            )


_NONE = Counts()


def check_queued(queued: int, more: int, limits: LimitsSection, *, drain_per_s: float) -> None:
    """
    Raises:
        RateLimited: the tenant has as many jobs waiting as it may.
    """
    over = queued + more - limits.jobs_queued
    if limits.jobs_queued and over > 0:
        raise RateLimited(
            f"{queued} jobs wait or run and this is {more} more, the limit is {limits.jobs_queued}",
            retry_after_s=over / drain_per_s if drain_per_s else 5.0,
            code="jobs_queued_exceeded",
        )
