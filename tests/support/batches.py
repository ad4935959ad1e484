"""What a gateway has for its batches, without its HTTP: a desk on a real broker, and ways to die at a chosen moment."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from infra import broker as bus
from infra import topology
from infra.broker import Broker
from infra.file_store import FileStore, open_store
from infra.life import unix_ms
from producer.client import Client
from producer.gateway import buckets
from producer.gateway.batches import life
from producer.gateway.batches.contents import Upload, chunks
from producer.gateway.batches.desk import Desk
from producer.gateway.batches.record import BatchRecord, FileRecord, file_prefix, side_file_id
from producer.gateway.batches.records import BatchRecords, Change, FileRecords
from producer.gateway.batches.run import Gates, Run
from producer.gateway.directory import Directory, Presence
from producer.ids import job_id
from schemas.config import BrokerSection, GatewaySection

_BROKER = BrokerSection(connect_timeout_s=5)


class Killed(BaseException):
    """As kill -9: nothing that runs may catch it."""


class Fuse:
    """Kills at the `at`th dangerous moment: before and after every write. 0: never."""

    def __init__(self, at: int = 0) -> None:
        self._at = at
        self.moments = 0

    def burn(self) -> None:
        self.moments += 1
        if self.moments == self._at:
            raise Killed


class MortalStore:
    """A file store of somebody who may die."""

    def __init__(self, store: FileStore, fuse: Fuse) -> None:
        self._store = store
        self._fuse = fuse

    async def put(self, key: str, data: bytes) -> None:
        self._fuse.burn()
        await self._store.put(key, data)
        self._fuse.burn()

    async def get(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        return await self._store.get(key, start, size)

    async def delete(self, keys: Sequence[str]) -> None:
        self._fuse.burn()
        await self._store.delete(keys)
        self._fuse.burn()

    def keys(self, prefix: str) -> AsyncGenerator[str]:
        return self._store.keys(prefix)


class MortalRecords(BatchRecords):
    def __init__(self, broker: Broker, writer: str, fuse: Fuse) -> None:
        super().__init__(broker, writer)
        self._fuse = fuse

    async def update(self, tenant: str, batch_id: str, change: Change) -> BatchRecord:
        self._fuse.burn()
        record = await super().update(tenant, batch_id, change)
        self._fuse.burn()
        return record


def line(custom_id: str, **body: Any) -> bytes:
    whole = {"model": "echo", "messages": [{"role": "user", "content": f"say {custom_id}"}], **body}
    return (
        json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": whole}).encode()
        + b"\n"
    )


class Office:
    """One gateway's batches, on a connection of its own."""

    def __init__(self, broker: Broker, client: Client, store: FileStore, **settings: Any) -> None:
        self.broker = broker
        self.store = store
        self._client = client
        self._settings = {"batch_lease_s": 1.0, **settings}

    def desk(self, runner: str = "", fuse: Fuse | None = None) -> Desk:
        fuse, runner = fuse or Fuse(), runner or f"runner-{os.urandom(4).hex()}"
        directory = Directory({}, default_pool="default")
        directory.note("default.echo", Presence(consumer="echo", pool="default", models=["echo"]), 1e12)

        async def room(_tenant: str, _pool: str, _jobs: int) -> None: ...

        return Desk(
            cfg=GatewaySection(**self._settings),
            runner=runner,
            broker=self.broker,
            session=self._client.session,
            store=MortalStore(self.store, fuse),
            files=FileRecords(self.broker),
            batches=MortalRecords(self.broker, runner, fuse),
            directory=directory,
            room=room,
            unix_ms=unix_ms,
            line_bytes_max=1024 * 1024,
        )

    async def uploaded(self, *lines: bytes, tenant: str = "default") -> FileRecord:
        file_id = f"file-{job_id(unix_ms(), os.urandom(10))}"
        upload = Upload(self.store, file_prefix(file_id))
        for one in lines:
            await upload.write(one)
        record = FileRecord(
            id=file_id,
            filename="in.jsonl",
            purpose="batch",
            created_at=unix_ms() // 1000,
            prefix=file_prefix(file_id),
            segments=await upload.finish(),
        )
        await FileRecords(self.broker).put(tenant, record)
        return record

    async def batch(self, desk: Desk, *lines: bytes, window_s: int = 3600) -> BatchRecord:
        """Stored as a create stores it: `desk` is its runner, and has not begun."""
        file = await self.uploaded(*lines)
        now_s = unix_ms() // 1000
        return await desk.batches.create(
            BatchRecord(
                id=f"batch_{job_id(unix_ms(), os.urandom(10))}",
                tenant="default",
                input_file_id=file.id,
                endpoint="/v1/chat/completions",
                completion_window="1h",
                created_at=now_s,
                expires_at=now_s + window_s,
                runner=desk.runner,
                turn=1,
            )
        )

    async def read(self, batch: BatchRecord) -> BatchRecord:
        record = await BatchRecords(self.broker, "reader").read(batch.tenant, batch.id)
        assert record is not None
        return record

    async def named_keys(self, batch: BatchRecord) -> set[str]:
        """The objects of both files."""
        files = [
            await FileRecords(self.broker).read(batch.tenant, side_file_id(batch.id, side))
            for side in ("output", "error")
        ]
        return {key for file in files if file for key in file.keys()}  # noqa: SIM118 - no mapping

    async def lines(self, batch: BatchRecord) -> dict[str, list[dict[str, Any]]]:
        """Of both files, as they are sealed."""
        found: dict[str, list[dict[str, Any]]] = {}
        for side in ("output", "error"):
            file = await FileRecords(self.broker).read(batch.tenant, side_file_id(batch.id, side))  # type: ignore[arg-type]
            data = b"".join([part async for part in chunks(self.store, file)]) if file else b""
            found[side] = [json.loads(one) for one in data.splitlines()]
        return found


def run_of(desk: Desk, record: BatchRecord, *, is_sure: bool = True) -> Run:
    return Run(desk, record, is_sure=lambda: is_sure, gates=Gates())


async def taken_over(desk: Desk, record: BatchRecord) -> BatchRecord:
    """As a keeper does it, of a runner that is dead."""
    return await desk.batches.update(record.tenant, record.id, lambda now: life.claimed(now, desk.runner, now.runner))


@contextlib.asynccontextmanager
async def office(url: str, folder: Path, **settings: Any) -> AsyncGenerator[Office]:
    broker = await bus.connect(_BROKER, name="office", url=url)
    try:
        await topology.provision_shared(broker, _BROKER)
        await topology.provision_events(broker, _BROKER)
        await buckets.provision(broker, _BROKER)
        async with Client(url) as client:
            yield Office(broker, client, open_store(str(folder / "files")), **settings)
    finally:
        await broker.close()
