"""Takes away what nobody needs: files whose time is over, records of old batches, and objects that belong to nothing.

An upload or a runner that was killed leaves objects without a record. Every gateway sweeps; it does no harm twice.
"""

from __future__ import annotations

import asyncio
import logging
import random

from producer.gateway.batches import life
from producer.gateway.batches.contents import UPLOAD_S, drop
from producer.gateway.batches.desk import Desk
from producer.gateway.batches.keeper import Keeper
from producer.gateway.batches.record import BatchRecord, FileRecord, side_file_id
from schemas.errors import PenstockError

log = logging.getLogger(__name__)

_EVERY_S = 600.0
# An object that is older belongs to something by now, or to nothing for ever.
_STRAY_AFTER_S = 2 * UPLOAD_S


class Sweeper:
    def __init__(self, desk: Desk, keeper: Keeper) -> None:
        self._desk = desk
        self._keeper = keeper

    async def run(self) -> None:
        while True:
            # Not all gateways at once.
            await asyncio.sleep(_EVERY_S * random.uniform(0.5, 1.5))  # noqa: S311 - nobody guards a secret with it
            try:
                await self.sweep(self._desk.now_s)
            except PenstockError as error:
                log.warning("sweep.failed", extra={"error": error.message, "retry_in_s": _EVERY_S})

    async def sweep(self, now_s: int) -> None:
        """Raises BusUnavailable, FilesUnavailable; the next one goes on."""
        owners = await self._strays(now_s)
        in_use = self._keeper.inputs_in_use()
        expired = 0
        async for tenant, record in self._desk.files.all():
            owners.discard(_owner_of(record))
            if record.expires_at and record.expires_at <= now_s and record.id not in in_use and record.is_sealed:
                await self._desk.files.remove(tenant, record.id)
                await drop(self._desk.store, record)
                expired += 1
        await self._forget_batches(now_s, owners)
        for owner in sorted(owners):
            await self._desk.store.delete([key async for key in self._desk.store.keys(owner)])
        if expired or owners:
            log.info("files.swept", extra={"expired": expired, "strays": len(owners)})

    async def _strays(self, now_s: int) -> set[str]:
        """Prefixes of old objects; those that turn out to belong to a record are no strays."""
        found: set[str] = set()
        for kind in ("files", "batches"):
            async for key in self._desk.store.keys(kind):
                parts = key.split("/")
                owner = "/".join(parts[: 2 if kind == "files" else 3])
                if owner not in found and _made_s(parts[1]) <= now_s - _STRAY_AFTER_S:
                    found.add(owner)
        return found

    async def _forget_batches(self, now_s: int, owners: set[str]) -> None:
        old: list[BatchRecord] = []
        cursor = 1
        while True:
            records, after = await self._desk.batches.changed_since(cursor)
            if after == cursor:
                break
            cursor = after
            for record in records:
                if record.is_open:
                    owners -= {f"batches/{record.id}/output", f"batches/{record.id}/error"}
                elif life.ended_at(record) + self._desk.cfg.files_kept_s <= now_s:
                    old.append(record)
        for record in old:
            await self._desk.batches.remove(record.tenant, record.id)


def _owner_of(record: FileRecord) -> str:
    assert not record.batch or record.id == side_file_id(record.batch, record.side)
    return record.prefix


def _made_s(name: str) -> float:
    """Unix seconds of a file's or batch's id; never old where it is no id of ours, and not ours to delete."""
    digits = name.removeprefix("file-").removeprefix("batch_")[:12]
    try:
        return int(digits, 16) / 1000
    except ValueError:
        return float("inf")
