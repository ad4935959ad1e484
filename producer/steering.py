"""What a client asks of a pool's dispatcher, and tells it: the backlog, promises, pauses, weights, bulk cancels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from infra.broker import NoSuchStream
from producer import asking, cancelling_many
from producer.session import Session
from schemas import subjects
from schemas.dispatch import Change, Look, Promise, Quote, Snapshot
from schemas.errors import JobMalformed


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What was changed at the pool's dispatcher, as it keeps it."""

    weights: dict[str, float] = {}
    is_pool_paused: bool = False
    paused_tenants: list[str] = []
    paused_batches: list[str] = []


class _Client(Protocol):
    pool: str
    tenant: str

    @property
    def session(self) -> Session: ...


class Steering:
    """The verbs of `Client` that concern many jobs at once. Each is for the client's own pool unless one is named."""

    async def look(self: _Client, *, pool: str = "") -> Snapshot | None:
        """The backlog in jobs and tokens; None where no dispatcher answers."""
        return await asking.ask(self.session.broker, _pool(self, pool), Look(), Snapshot)

    async def promise(self: _Client, quote: Quote, *, pool: str = "") -> Promise | None:
        """When so much would be done, and whether by then; None where no dispatcher answers.

        Raises:
            DeadlineImpossible: `quote` is firm, and its deadline cannot hold.
            JobMalformed: there is no such window.
        """
        return await self.session.promise(quote, _pool(self, pool))

    async def pause(self: _Client, *, tenant: str = "", batch: str = "", pool: str = "") -> None:
        """Keeps what waits from being served: of a tenant, of a batch, or of the whole pool. What runs goes on.

        Raises:
            BusUnavailable: no dispatcher answers (code `no_dispatcher`).
        """
        await _change(self, _pausing(tenant, batch, is_paused=True), pool)

    async def resume(self: _Client, *, tenant: str = "", batch: str = "", pool: str = "") -> None:
        """Undoes `pause`; raises as it does."""
        await _change(self, _pausing(tenant, batch, is_paused=False), pool)

    async def weigh(self: _Client, weights: Mapping[str, float], *, pool: str = "") -> None:
        """Gives tenants other shares; those that have none of their own have 1.

        Raises:
            JobMalformed: a weight is not above 0.
            BusUnavailable: no dispatcher answers (code `no_dispatcher`).
        """
        for name, weight in weights.items():
            subjects.checked_name(name, "tenant")
            if not 0 < weight < float("inf"):
                raise JobMalformed(f"weight of {name} must be above 0, not {weight:g}", param="weights")
        await _change(self, Change(weights=dict(weights)), pool)

    async def settings(self: _Client, *, pool: str = "") -> Settings:
        """Weights and pauses as they were last changed, whether or not a dispatcher runs."""
        try:
            message = await self.session.broker.last_on(
                subjects.DISPATCH_STREAM, subjects.dispatch_settings(_pool(self, pool))
            )
            return msgspec.json.decode(message.data, type=Settings) if message else Settings()
        except (NoSuchStream, msgspec.DecodeError):
            return Settings()

    async def cancel_batch(self: _Client, batch: str, *, pool: str = "", tenant: str = "") -> int:
        """Ends every job that was submitted with this batch name; how many.

        Certain for those that wait. One that an engine has begun is stopped as well.

        Raises:
            BusUnavailable: the broker did not answer; what was ended stays so.
        """
        subjects.checked_name(batch, "batch")
        return await cancelling_many.cancel_many(self.session.broker, _pool(self, pool), tenant or self.tenant, batch)

    async def cancel_tenant(self: _Client, tenant: str = "", *, pool: str = "") -> int:
        """Ends every job of a tenant, the client's own unless one is named; how many. Raises as `cancel_batch`."""
        tenant = subjects.checked_name(tenant or self.tenant, "tenant")
        return await cancelling_many.cancel_many(self.session.broker, _pool(self, pool), tenant)


def _pool(client: _Client, pool: str) -> str:
    return subjects.checked_name(pool or client.pool, "pool")


async def _change(client: _Client, change: Change, pool: str) -> None:
    await asking.must_ask(client.session.broker, _pool(client, pool), change, msgspec.Raw)


def _pausing(tenant: str, batch: str, *, is_paused: bool) -> Change:
    if tenant and batch:
        raise JobMalformed("give a tenant or a batch, not both", param="batch")
    if tenant:
        names = [subjects.checked_name(tenant, "tenant")]
        return Change(pause_tenants=names) if is_paused else Change(resume_tenants=names)
    if batch:
        names = [subjects.checked_name(batch, "batch")]
        return Change(pause_batches=names) if is_paused else Change(resume_batches=names)
    return Change(pause_pool=is_paused)
