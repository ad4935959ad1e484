"""`/v1/files`: a file goes to the store as it comes, and out again as it lies there. Each belongs to one tenant."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from urllib.parse import parse_qs

from msgspec.structs import replace

from producer import ids
from producer.gateway.asgi import Call
from producer.gateway.batches.contents import UPLOAD_S, Upload, chunks, drop
from producer.gateway.batches.desk import Desk
from producer.gateway.batches.multipart import Form
from producer.gateway.batches.record import FileRecord, Segment, file_prefix
from producer.gateway.batches.views import checked_purpose, cut, file_view, page_of, purpose_of
from producer.gateway.house import House
from producer.gateway.refusals import NotFound, SlowBody
from schemas import subjects
from schemas.errors import BodyTooLarge, JobMalformed, JobRejected
from schemas.openai_batches import FileDeleted, FileList

LIST_MAX = 10_000
# Between two pieces.
_PIECE_S = 60.0
# The form around the file.
_FORM_BYTES = 64 * 1024
_EXPIRY_S = (3600, 2_592_000)


class FileInUse(JobRejected):
    status_code = 409
    code = "file_in_use"


class FileRoutes:
    def __init__(self, house: House) -> None:
        self._house = house

    @property
    def _desk(self) -> Desk:
        return self._house.desk

    async def create(self, call: Call) -> None:
        """Multipart: `file`, `purpose`, `expires_after[anchor]`, `expires_after[seconds]`, in any order."""
        file_id = f"file-{ids.job_id(self._desk.unix_ms(), os.urandom(10))}"
        upload = Upload(self._desk.store, file_prefix(file_id))
        try:
            form = await self._received(call, upload)
            record = self._record(file_id, form, await upload.finish())
            await self._desk.files.put(call.tenant, record)
        except BaseException:
            self._house.spawn(upload.drop())
            raise
        await call.answer_json(file_view(record))

    async def list(self, call: Call) -> None:
        """`?after=ID&limit=10000&order=desc&purpose=batch`."""
        query = query_of(call)
        page, purpose = page_of(query, most=LIST_MAX, default=LIST_MAX), purpose_of(query)
        records = await self._desk.files.of_tenant(call.tenant)
        wanted = [one for one in records if purpose in ("", one.purpose) and not self._is_expired(one)]
        records, has_more = cut(wanted, page)
        views = [file_view(one) for one in await self._whole(call.tenant, records)]
        first, last = (views[0].id, views[-1].id) if views else (None, None)
        await call.answer_json(FileList(data=views, first_id=first, last_id=last, has_more=has_more))

    async def get(self, call: Call) -> None:
        await call.answer_json(file_view(await self._found(call)))

    async def delete(self, call: Call) -> None:
        record = await self._found(call)
        if record.id in self._house.keeper.inputs_in_use() or not record.is_sealed:
            raise FileInUse(f"file {record.id} belongs to a batch that is not over; cancel it first", param="id")
        await self._desk.files.remove(call.tenant, record.id)
        self._house.spawn(drop(self._desk.store, record))
        await call.answer_json(FileDeleted(id=record.id))

    async def content(self, call: Call) -> None:
        record = await self._found(call)
        await call.start(
            200,
            [
                (b"content-type", b"application/octet-stream"),
                (b"content-length", b"%d" % record.size),
                (b"content-disposition", b"attachment"),
            ],
        )
        async for data in chunks(self._desk.store, record):
            await call.send({"type": "http.response.body", "body": data, "more_body": True})
        await call.send({"type": "http.response.body", "body": b""})

    async def _received(self, call: Call, upload: Upload) -> Form:
        form = Form(call.headers.get(b"content-type", b""))
        most = self._desk.cfg.file_bytes_max
        announced = call.headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > most + _FORM_BYTES:
            raise _too_large(most)
        try:
            async with asyncio.timeout(UPLOAD_S):
                async for piece in _pieces(call):
                    for data in form.feed(piece):
                        await upload.write(data)
                    if upload.size > most:
                        raise _too_large(most)
        except TimeoutError as error:
            raise SlowBody(
                f"the file did not come within {UPLOAD_S:g} s, or nothing of it for {_PIECE_S:g} s"
            ) from error
        if not form.is_whole:
            raise JobMalformed("the form ends too early", param="body")
        if form.filename is None:
            raise JobMalformed("the form has no field `file`", param="file")
        return form

    def _record(self, file_id: str, form: Form, segments: list[Segment]) -> FileRecord:
        assert form.filename is not None
        purpose = checked_purpose(form.fields.get("purpose", ""))
        now_s = self._desk.now_s
        kept_s = _expiry_s(form.fields)
        if not kept_s and purpose == "batch":
            kept_s = int(self._desk.cfg.files_kept_s)
        return FileRecord(
            id=file_id,
            filename=form.filename,
            purpose=purpose,
            created_at=now_s,
            expires_at=now_s + kept_s if kept_s else 0,
            prefix=file_prefix(file_id),
            segments=segments,
        )

    async def _found(self, call: Call) -> FileRecord:
        file_id = call.parameters["id"]
        try:
            record = await self._desk.files.read(call.tenant, subjects.checked_job_id(file_id))
        except JobMalformed:
            record = None
        if record is None or self._is_expired(record):
            raise NotFound(f"there is no file {file_id[:80]!r}", param="id", code="file_not_found")
        (whole,) = await self._whole(call.tenant, [record])
        return whole

    def _is_expired(self, record: FileRecord) -> bool:
        return bool(record.expires_at) and record.expires_at <= self._desk.now_s

    async def _whole(self, tenant: str, records: Sequence[FileRecord]) -> Sequence[FileRecord]:
        """With the segments that a running batch has written so far."""
        return [await self._with_segments(tenant, one) if not one.is_sealed else one for one in records]

    async def _with_segments(self, tenant: str, record: FileRecord) -> FileRecord:
        batch = await self._desk.batches.read(tenant, record.batch)
        if batch is None:
            return record
        return replace(record, segments=batch.output if record.side == "output" else batch.error)


def query_of(call: Call) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(call.scope["query_string"].decode("latin-1")).items()}


async def _pieces(call: Call) -> AsyncGenerator[bytes]:
    while True:
        async with asyncio.timeout(_PIECE_S):
            message = await call.receive()
        if message["type"] == "http.disconnect":
            raise JobMalformed("the caller hung up", param="body")
        if body := message.get("body", b""):
            yield body
        if not message.get("more_body"):
            return


def _expiry_s(fields: dict[str, str]) -> int:
    """0 where nothing is said."""
    anchor = fields.get("expires_after[anchor]", "created_at")
    if anchor != "created_at":
        raise JobMalformed(f"must be created_at, not {anchor[:80]!r}", param="expires_after.anchor")
    text = fields.get("expires_after[seconds]")
    if text is None:
        return 0
    least, most = _EXPIRY_S
    if not text.isascii() or not text.isdigit() or not least <= int(text[:9]) <= most:
        raise JobMalformed(f"must be {least} to {most}, not {text[:20]!r}", param="expires_after.seconds")
    return int(text)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the file is over {limit} bytes (gateway.file_bytes_max)", param="file")
