"""How many deliveries at once. Endpoints that fail share a quarter of the places: they delay one another only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator


class Places:
    def __init__(self, total: int) -> None:
        self._all = asyncio.Semaphore(total)
        self._failing = asyncio.Semaphore(max(1, total // 4))

    @contextlib.asynccontextmanager
    async def taken(self, *, is_failing: bool) -> AsyncGenerator[None]:
        async with contextlib.AsyncExitStack() as held:
            if is_failing:
                await held.enter_async_context(self._failing)
            await held.enter_async_context(self._all)
            yield
