"""Reads and writes the records of files and batches in their buckets; a batch only by compare-and-set."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

import msgspec

from infra.broker import AlreadyStored, Broker, NoSuchStream
from infra.messages import only_after
from producer import stored
from producer.gateway.batches.record import BatchRecord, FileRecord
from schemas import subjects
from schemas.errors import BusUnavailable

Change = Callable[[BatchRecord], BatchRecord]
Record = TypeVar("Record", BatchRecord, FileRecord)

_FILES, _BATCHES = subjects.FILES_BUCKET, subjects.BATCHES_BUCKET

_encode = msgspec.json.Encoder().encode
_file_decoder = msgspec.json.Decoder(FileRecord)
_batch_decoder = msgspec.json.Decoder(BatchRecord)


class NoSuchRecord(Exception):
    """It was deleted meanwhile."""


class FileRecords:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def put(self, tenant: str, record: FileRecord) -> None:
        """Raises BusUnavailable."""
        await self._broker.store(subjects.tenant_key(_FILES, tenant, record.id), _encode(record))

    async def read(self, tenant: str, file_id: str) -> FileRecord | None:
        """Raises BusUnavailable."""
        found = await _last(self._broker, _FILES, tenant, file_id, _file_decoder)
        return found[0] if found else None

    async def of_tenant(self, tenant: str) -> list[FileRecord]:
        """Raises BusUnavailable."""
        wanted = subjects.keys_of_tenant(_FILES, tenant)
        return [record async for _, record in _all(self._broker, _FILES, wanted, _file_decoder)]

    async def all(self) -> AsyncGenerator[tuple[str, FileRecord]]:
        """With their tenants. Raises BusUnavailable."""
        async for tenant, record in _all(self._broker, _FILES, subjects.bucket_all(_FILES), _file_decoder):
            yield tenant, record

    async def remove(self, tenant: str, file_id: str) -> None:
        """Raises BusUnavailable."""
        await _purge(self._broker, _FILES, tenant, file_id)


class BatchRecords:
    """`writer` must be no other process's."""

    def __init__(self, broker: Broker, writer: str) -> None:
        self._broker = broker
        self._writer = writer
        self._changes = itertools.count(1)

    async def create(self, record: BatchRecord) -> BatchRecord:
        """It, or what the id holds already. Raises BusUnavailable."""
        marked = self._marked(record)
        try:
            await self._write(marked, 0)
        except AlreadyStored:
            there = await self.read(record.tenant, record.id)
            if there is not None:
                return there
            raise BusUnavailable(f"batch {record.id} could not be read back") from None
        return marked

    async def read(self, tenant: str, batch_id: str) -> BatchRecord | None:
        """Raises BusUnavailable."""
        found = await _last(self._broker, _BATCHES, tenant, batch_id, _batch_decoder)
        return found[0] if found else None

    async def of_tenant(self, tenant: str) -> list[BatchRecord]:
        """Raises BusUnavailable."""
        wanted = subjects.keys_of_tenant(_BATCHES, tenant)
        return [record async for _, record in _all(self._broker, _BATCHES, wanted, _batch_decoder)]

    async def changed_since(self, seq: int) -> tuple[list[BatchRecord], int]:
        """Some that changed at or after `seq`, oldest change first, and where to go on. Raises BusUnavailable."""
        stream, wanted = subjects.bucket_stream(_BATCHES), subjects.bucket_all(_BATCHES)
        records: list[BatchRecord] = []
        for found in await stored.page(self._broker, stream, wanted, start_seq=seq):
            seq = found.seq + 1
            record = _decoded(_batch_decoder, found.data)
            if record is not None:
                records.append(record)
        return records, seq

    async def update(self, tenant: str, batch_id: str, change: Change) -> BatchRecord:
        """`change` of the record as it is stored, again and again until nobody wrote in between.

        Raises:
            NoSuchRecord: there is none.
            BusUnavailable: it is not known whether it was stored.
            Whatever `change` raises; then nothing was.
        """
        mark = ""
        while True:
            found = await _last(self._broker, _BATCHES, tenant, batch_id, _batch_decoder)
            if found is None:
                raise NoSuchRecord(batch_id)
            now, seq = found
            if mark and now.change == mark:
                # Refused was only the echo of our own write, whose ack was lost.
                return now
            changed = change(now)
            if changed == now:
                return now
            marked = self._marked(changed)
            try:
                await self._write(marked, seq)
            except AlreadyStored:
                mark = marked.change
                continue
            return marked

    async def remove(self, tenant: str, batch_id: str) -> None:
        """Raises BusUnavailable."""
        await _purge(self._broker, _BATCHES, tenant, batch_id)

    def _marked(self, record: BatchRecord) -> BatchRecord:
        return msgspec.structs.replace(record, change=f"{self._writer}-{next(self._changes)}")

    async def _write(self, record: BatchRecord, seq: int) -> None:
        subject = subjects.tenant_key(_BATCHES, record.tenant, record.id)
        await self._broker.store(subject, _encode(record), headers=only_after(seq))


async def _last(
    broker: Broker, bucket: str, tenant: str, key: str, decoder: msgspec.json.Decoder[Record]
) -> tuple[Record, int] | None:
    """The record and the number of its last change."""
    try:
        found = await broker.last_on(subjects.bucket_stream(bucket), subjects.tenant_key(bucket, tenant, key))
    except NoSuchStream:
        return None
    if found is None:
        return None
    record = _decoded(decoder, found.data)
    return (record, found.seq) if record is not None else None


async def _all(
    broker: Broker, bucket: str, wanted: str, decoder: msgspec.json.Decoder[Record]
) -> AsyncGenerator[tuple[str, Record]]:
    async for found in stored.messages(broker, subjects.bucket_stream(bucket), wanted):
        record = _decoded(decoder, found.data)
        if record is not None:
            yield found.subject.split(".")[2], record


def _decoded(decoder: msgspec.json.Decoder[Record], payload: bytes) -> Record | None:
    """None where it was deleted, or is not ours."""
    try:
        return decoder.decode(payload)
    except msgspec.DecodeError:
        return None


async def _purge(broker: Broker, bucket: str, tenant: str, key: str) -> None:
    # Not a tombstone, as other clients of a bucket leave: those would pile up for ever.
    subject = subjects.tenant_key(bucket, tenant, key)
    await broker.api(f"STREAM.PURGE.{subjects.bucket_stream(bucket)}", {"filter": subject})
