"""What all batches of a gateway share, handed to whoever works on one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from infra.broker import Broker
from infra.file_store import FileStore
from producer.gateway.batches.records import BatchRecords, FileRecords
from producer.gateway.directory import Directory
from producer.session import Session
from schemas.config import GatewaySection

# `await room(tenant, pool, jobs)` returns when the tenant may have so many more in the queue.
Room = Callable[[str, str, int], Awaitable[None]]


class Desk(msgspec.Struct, frozen=True, kw_only=True):
    """`runner` is this process's own name, never another's, also not of one that had its place before."""

    cfg: GatewaySection
    runner: str
    broker: Broker
    session: Session
    store: FileStore
    files: FileRecords
    batches: BatchRecords
    directory: Directory
    room: Room
    unix_ms: Callable[[], int]
    line_bytes_max: int

    @property
    def now_s(self) -> int:
        """Unix seconds."""
        return self.unix_ms() // 1000

    @property
    def loop_s(self) -> float:
        return asyncio.get_running_loop().time()
