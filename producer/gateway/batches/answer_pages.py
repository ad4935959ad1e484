"""Pages of a tenant's answers, read once for all of its batches that run here.

A page never changes once it holds something: what comes later comes after it. So batches that have read equally far,
and most have read to the end, share what one of them asked for.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from producer.stored import Found

# Of all pages that are kept for those who come a moment later.
_KEPT_BYTES = 16 * 1024 * 1024
# Each is 16 MB at most.
_READS_AT_ONCE = 2

Read = Callable[[str, int], Awaitable[list[Found]]]
_Key = tuple[str, int]


class AnswerPages:
    """`read` asks the broker for the tenant's answers from a number on."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._kept: OrderedDict[_Key, tuple[list[Found], int]] = OrderedDict()
        self._size = 0
        self._asked: dict[_Key, asyncio.Task[list[Found]]] = {}
        self._gate = asyncio.Semaphore(_READS_AT_ONCE)

    async def page(self, tenant: str, start_seq: int) -> list[Found]:
        """Raises as `read`."""
        key = (tenant, start_seq)
        kept = self._kept.get(key)
        if kept is not None:
            return kept[0]
        task = self._asked.get(key)
        if task is None:
            task = self._asked[key] = asyncio.create_task(self._answer(key))
        # Whoever gives up must not take it from the others.
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Nobody waits any more."""
        asked = list(self._asked.values())
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    async def _answer(self, key: _Key) -> list[Found]:
        try:
            async with self._gate:
                page = await self._read(*key)
            if page:
                self._keep(key, page)
            return page
        finally:
            del self._asked[key]

    def _keep(self, key: _Key, page: list[Found]) -> None:
        size = sum(len(found.data) for found in page)
        self._kept[key] = (page, size)
        self._size += size
        while self._size > _KEPT_BYTES and self._kept:
            _, (_, gone) = self._kept.popitem(last=False)
            self._size -= gone
