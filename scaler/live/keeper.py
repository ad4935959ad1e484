"""What a pool's scaler keeps in NATS: all that it learned, its orders, and what a person asked for instead."""

from __future__ import annotations

import contextlib
import logging

import msgspec

from infra.broker import AlreadyStored, Broker
from infra.messages import only_after
from scaler.guard import GuardState
from scaler.live.learned import Learned
from scaler.policies.composed import ComposedState
from schemas import subjects
from schemas.decision import Decision
from schemas.errors import PenstockError
from schemas.override import Override

log = logging.getLogger(__name__)

_STATE_S = 10.0


class PoolState(msgspec.Struct, kw_only=True):
    """All that a scaler remembers of a pool. The fleet itself is the driver's to know."""

    policy: ComposedState = msgspec.field(default_factory=ComposedState)
    guard: GuardState = msgspec.field(default_factory=GuardState)
    learned: Learned = msgspec.field(default_factory=Learned)
    # Every replica that was ever seen in the driver's fleet lately, by its consumer's name.
    own: list[str] = []


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """That a scaler will make the fleet this large; or, without a number, that it leads from now on."""

    scaler: str
    unix_ms: int
    replicas: int | None = None


class LeadLost(PenstockError):
    """Another scaler has given an order since our last."""

    code = "lead_lost"


class Keeper:
    """Of one pool."""

    def __init__(self, broker: Broker, pool: str, scaler: str) -> None:
        self._broker = broker
        self._pool = pool
        self._scaler = scaler
        # The number of our last order.
        self._seq = 0

    async def recall(self) -> PoolState:
        """As it was last kept; what a newer version wrote and we cannot read is begun anew."""
        message = await self._broker.last_on(subjects.SCALER_STREAM, subjects.scaler_state(self._pool))
        if message is not None:
            try:
                return msgspec.json.decode(message.data, type=PoolState)
            except msgspec.DecodeError as error:
                log.warning("state.unreadable", extra={"pool": self._pool, "error": str(error)})
        return PoolState()

    async def keep(self, state: PoolState) -> None:
        with contextlib.suppress(PenstockError):
            payload = msgspec.json.encode(state)
            await self._broker.store(subjects.scaler_state(self._pool), payload, timeout_s=_STATE_S)

    async def override(self) -> Override:
        message = await self._broker.last_on(subjects.SCALER_STREAM, subjects.scaler_override(self._pool))
        if message is not None:
            with contextlib.suppress(msgspec.DecodeError):
                return msgspec.json.decode(message.data, type=Override)
        return Override()

    async def take_over(self, now_unix_ms: int) -> None:
        """From now on, an order of whoever led before is refused by the broker."""
        last = await self._broker.last_on(subjects.SCALER_STREAM, subjects.scaler_order(self._pool))
        self._seq = last.seq if last else 0
        await self._write(Order(scaler=self._scaler, unix_ms=now_unix_ms), timeout_s=_STATE_S)

    async def order(self, replicas: int, now_unix_ms: int, timeout_s: float) -> None:
        """Written before the driver is told, so that two never tell it different things.

        Raises:
            LeadLost: somebody else gives the orders now.
            BusUnavailable: nobody can say.
        """
        await self._write(Order(scaler=self._scaler, unix_ms=now_unix_ms, replicas=replicas), timeout_s=timeout_s)

    async def tell(self, decision: Decision) -> None:
        try:
            payload = msgspec.json.encode(decision)
            await self._broker.store(subjects.decisions(self._pool), payload, timeout_s=_STATE_S)
        except PenstockError as error:
            log.warning("decision.untold", extra={"pool": self._pool, "error": error.message})

    async def _write(self, order: Order, timeout_s: float) -> None:
        subject, payload = subjects.scaler_order(self._pool), msgspec.json.encode(order)
        try:
            ack = await self._broker.store(subject, payload, headers=only_after(self._seq), timeout_s=timeout_s)
        except AlreadyStored:
            last = await self._broker.last_on(subjects.SCALER_STREAM, subject)
            if last is None or last.data != payload:
                raise LeadLost(f"another scaler gives the orders for pool {self._pool}") from None
            # The echo of our own, whose ack was lost.
            self._seq = last.seq
        else:
            self._seq = ack.seq
