"""Looks at READY by the broker's own count: how full it is, and which tenants have too much there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from infra.broker import Broker
from scaler.dispatch.in_ready import InReady
from scaler.dispatch.move import Moved
from schemas import subjects
from schemas.errors import BusUnavailable

_LOOK_S = 0.5
# A job whose end was not heard for so long is looked up.
_UNHEARD_S = 60.0
_LOOKED_UP_MOST = 200


class ReadyWatch:
    """`run` until cancelled."""

    def __init__(
        self,
        broker: Broker,
        pool: str,
        in_ready: InReady,
        *,
        interactive_max: int,
        on_ended: Callable[[str, str], None],
    ) -> None:
        self._broker = broker
        self._pool = pool
        self._in_ready = in_ready
        self._interactive_max = interactive_max
        self._on_ended = on_ended
        # Tenants whose further interactive jobs should wait in the backlog.
        self.over_quota: list[str] = []

    async def run(self) -> None:
        call = f"STREAM.INFO.{subjects.ready_stream(self._pool)}"
        wanted = {"subjects_filter": f"{subjects.ROOT}.ready.{self._pool}.interactive.*"}
        while True:
            with contextlib.suppress(BusUnavailable):
                state: dict[str, Any] = (await self._broker.api(call, wanted)).get("state") or {}
                self._in_ready.looked(int(state.get("messages", 0)))
                counts: dict[str, int] = state.get("subjects") or {}
                self.over_quota = sorted(
                    subject.rpartition(".")[2] for subject, count in counts.items() if count > self._interactive_max
                )
                await self._look_up_unheard()
            await asyncio.sleep(_LOOK_S)

    async def _look_up_unheard(self) -> None:
        """Ends are announced once, and announcements may be lost."""
        now_s = asyncio.get_running_loop().time()
        for moved in self._in_ready.unheard_since(now_s - _UNHEARD_S, now_s, _LOOKED_UP_MOST):
            await self.look_up(moved)

    async def look_up(self, moved: Moved) -> None:
        """Whether it has ended."""
        subject = subjects.result(self._pool, moved.tenant, moved.job)
        with contextlib.suppress(BusUnavailable):
            if await self._broker.last_on(subjects.RESULTS_STREAM, subject) is not None:
                self._in_ready.forget(moved)
                self._on_ended(moved.tenant, moved.job)
