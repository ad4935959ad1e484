"""The bytes of files: read piece by piece or line by line, and written as they come. Never a whole file in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from infra.file_store import OBJECT_BYTES, FileStore
from producer.gateway.batches.record import FileRecord, Segment, key_of
from producer.gateway.batches.split import Line, Splitter

# So many are handled without a pause for others.
LINES_A_PAGE = 128
# Read at once: many batches may be read at the same time.
_PIECE_BYTES = 1024 * 1024
# An upload takes no longer, so that what is found half stored a while later was surely given up.
UPLOAD_S = 3600.0


async def chunks(store: FileStore, record: FileRecord, *, start: int = 0) -> AsyncGenerator[bytes]:
    """Its bytes from `start` on.

    Raises:
        NoSuchObject, FilesUnavailable: it cannot be read.
    """
    before = 0
    for segment in record.segments:
        after = before + segment.size
        for place in range(max(before, start), after, _PIECE_BYTES):
            size = min(_PIECE_BYTES, after - place)
            yield await store.get(key_of(record.prefix, segment), place - before, size)
        before = after


async def pages(
    store: FileStore, record: FileRecord, *, line_bytes_max: int, lines: int = 0, end: int = 0
) -> AsyncGenerator[list[Line]]:
    """Its lines, a page at a time, after the first `lines` that take `end` bytes. Raises as `chunks`."""
    splitter = Splitter(line_bytes_max, lines=lines, end=end)
    async for data in chunks(store, record, start=end):
        found = splitter.feed(data)
        for start in range(0, len(found), LINES_A_PAGE):
            yield found[start : start + LINES_A_PAGE]
    if last := splitter.finish():
        yield last


class Upload:
    """A file on its way in. What was stored of one that is given up, `drop` takes away."""

    def __init__(self, store: FileStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._parts: list[bytes] = []
        self._held = 0
        self.size = 0
        self.segments: list[Segment] = []

    async def write(self, data: bytes) -> None:
        """Raises FilesUnavailable."""
        self._parts.append(data)
        self._held += len(data)
        self.size += len(data)
        if self._held >= OBJECT_BYTES:
            await self._flush()

    async def finish(self) -> list[Segment]:
        """Raises FilesUnavailable."""
        if self._held:
            await self._flush()
        return self.segments

    async def drop(self) -> None:
        """Raises FilesUnavailable."""
        if self.segments:
            await self._store.delete([key_of(self._prefix, segment) for segment in self.segments])

    async def _flush(self) -> None:
        data = b"".join(self._parts)
        self._parts, self._held = [], 0
        segment = Segment(f"{len(self.segments):06}", len(data))
        # Noted first: also one that was cut short may be there.
        self.segments.append(segment)
        await self._store.put(key_of(self._prefix, segment), data)


async def drop(store: FileStore, record: FileRecord) -> None:
    """The objects of a file whose record is gone, so that nobody is sent to what is half there."""
    if record.segments:
        await store.delete(record.keys())
