"""Holds the lines of a batch back while its tenant has as many jobs in the queue as it may."""

from __future__ import annotations

import asyncio

from producer.gateway.directory import Directory
from producer.gateway.refusals import RateLimited
from producer.gateway.usage import Usage

_RETRY_S = 1.0


class Room:
    def __init__(self, usage: Usage, directory: Directory) -> None:
        self._usage = usage
        self._directory = directory

    async def wait(self, tenant: str, pool: str, jobs: int) -> None:
        """Until the tenant may have so many more waiting in the pool.

        Raises:
            BusUnavailable: the queue cannot be asked.
        """
        rate = self._directory.jobs_per_s(pool, asyncio.get_running_loop().time())
        for _ in range(jobs):
            while True:
                try:
                    await self._usage.check_queued(tenant, pool, drain_per_s=rate)
                    break
                except RateLimited:
                    await asyncio.sleep(_RETRY_S)
