"""Asks the broker for jobs, as many as there is room for, over one long-lived subscription per lane.

Raw pull requests instead of nats-py's `fetch`: measured twice as fast, and a request can outlive a reconnect.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from consumer.delivery import Delivery
from consumer.pull_plan import LaneState, Pull, Room, may_ask, plan_pulls
from infra.broker import Broker
from schemas import subjects
from schemas.errors import JobMalformed
from schemas.subjects import Lane

log = logging.getLogger(__name__)

# A standing request must end before the broker or a proxy forgets it silently.
_WAIT_S = 20.0
# Answers to a no-wait request come in one round trip; beyond this the request is taken as lost.
_LOST_S = 5.0
_BATCH_MAX = 256
# What the broker counts beside the payload: subject, reply and headers.
_OVERHEAD_BYTES = 4096


class Puller:
    """Calls `on_delivery` for each job; `wake` whenever room may have changed."""

    def __init__(
        self,
        broker: Broker,
        pool: str,
        *,
        room: Callable[[], Room],
        on_delivery: Callable[[Delivery], None],
        holds_off: Callable[[Lane], bool],
    ) -> None:
        self._broker = broker
        self._pool = pool
        self._room = room
        self._on_delivery = on_delivery
        self._holds_off = holds_off
        self._heard_at = 0.0
        self._lanes = {lane: LaneState() for lane in Lane}
        self._inboxes = {lane: broker.nc.new_inbox() for lane in Lane}
        self._asked_at: dict[Lane, tuple[float, float]] = {}
        self._subscriptions: list[Subscription] = []
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        await self._subscribe()
        loop = asyncio.get_running_loop()
        while True:
            if may_ask(self._lanes):
                room = self._room()
                for pull in plan_pulls(room, self._lanes, _BATCH_MAX):
                    if not self._holds_off(pull.lane):
                        await self._ask(pull, room.payload_bytes, loop.time())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._changed.wait()
            self._changed.clear()
            self._forget_lost(loop.time())

    @property
    def backlog(self) -> int:
        """Jobs that nobody has pulled, as of `heard_at` on the event loop's clock."""
        return sum(state.pending for state in self._lanes.values())

    @property
    def heard_at(self) -> float:
        return self._heard_at

    def wake(self) -> None:
        self._changed.set()

    def reconnected(self) -> None:
        """Requests that were at the broker are gone with the connection."""
        for state in self._lanes.values():
            state.outstanding = 0
            state.is_active = True
        self.wake()

    async def stop(self) -> None:
        """No more deliveries; those on the wire still arrive first, so that they can be handed back."""
        for subscription in self._subscriptions:
            with contextlib.suppress(NatsError, TimeoutError):
                async with asyncio.timeout(2.0):
                    await subscription.drain()
        self._subscriptions = []

    async def _subscribe(self) -> None:
        for lane, inbox in self._inboxes.items():
            self._subscriptions.append(await self._broker.subscribe(inbox, partial(self._on_message, lane)))

    async def _ask(self, pull: Pull, payload_bytes: int, now: float) -> None:
        state = self._lanes[pull.lane]
        state.outstanding = pull.batch
        request: dict[str, int | bool] = {"batch": pull.batch}
        if pull.waits:
            request["expires"] = int(_WAIT_S * 1e9)
        else:
            request["no_wait"] = True
            # Never less than one job may have: the broker would refuse for ever.
            largest = self._broker.payload_bytes_max + _OVERHEAD_BYTES
            request["max_bytes"] = max(largest, payload_bytes + pull.batch * _OVERHEAD_BYTES)
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.ready_stream(self._pool)}.{subjects.durable(pull.lane)}"
        self._asked_at[pull.lane] = (now, _WAIT_S if pull.waits else 0.0)
        try:
            await self._broker.nc.publish(subject, msgspec.json.encode(request), reply=self._inboxes[pull.lane])
        except NatsError:
            # Disconnected with a full buffer: `reconnected` or `_forget_lost` starts over.
            log.debug("pull.unsent", extra={"lane": pull.lane})

    async def _on_message(self, lane: Lane, msg: Msg) -> None:
        state = self._lanes[lane]
        status = (msg.headers or {}).get("Status", "")
        if status:
            self._on_status(lane, state, status, msg)
            return
        state.outstanding = max(0, state.outstanding - 1)
        try:
            delivery = Delivery(msg, self._broker)
        except JobMalformed:
            # The stream takes `penstock.ready.<pool>.>`, the durables only well-formed subjects: cannot happen, but a
            # raise here would be swallowed by nats-py.
            log.exception("delivery.unreadable")
            return
        state.pending = delivery.pending
        state.is_active = delivery.pending > 0
        self._heard_at = asyncio.get_running_loop().time()
        self._on_delivery(delivery)
        self.wake()

    def _on_status(self, lane: Lane, state: LaneState, status: str, msg: Msg) -> None:
        if status == "100":
            return
        if status in {"404", "408"}:
            state.pending = 0
            self._heard_at = asyncio.get_running_loop().time()
        # 404 nothing there, 408 a standing request ran out, 409 the durable moved, was deleted or the bytes are full.
        state.outstanding = 0
        description = (msg.headers or {}).get("Description", "")
        state.is_active = status == "409" and "Max" in description
        if status not in {"404", "408"}:
            log.debug("pull.refused", extra={"lane": lane, "status": status, "description": description})
            if not state.is_active:
                # A leader moved or the durable is being made again: ask anew, but not in a tight loop.
                asyncio.get_running_loop().call_later(0.5, self.wake)
                return
        self.wake()

    def _forget_lost(self, now: float) -> None:
        for lane, (asked_at, wait_s) in self._asked_at.items():
            if self._lanes[lane].outstanding and now - asked_at > wait_s + _LOST_S:
                self._lanes[lane].outstanding = 0
