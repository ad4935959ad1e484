"""Where large bytes lie: a folder, or a bucket at S3, Google or Azure. Objects are written whole, and read whole.

Whoever has more than a few megabytes stores several objects under one prefix; so nobody holds a large file in memory,
nothing is left half written, and a file can grow on stores that cannot append.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Generator, Sequence
from pathlib import Path
from typing import Protocol

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from schemas.errors import ConfigError, JobFault, JobRejected

# What is put in one object; S3 takes no more than 5 GB, and memory less.
OBJECT_BYTES = 4 * 1024 * 1024
_DELETES_AT_ONCE = 500


class NoSuchObject(JobRejected):
    status_code = 404
    code = "no_such_object"


class FilesUnavailable(JobFault):
    """The store does not answer, or has no room."""

    code = "files_unavailable"


class FileStore(Protocol):
    """`put` returns when the object is safe, and replaces what was there; `get` gives all of it, or `size` bytes from
    `start` on; `keys` need no order. A key that is not there is a `NoSuchObject` for `get` and nothing at all for
    `delete`. Any may raise `FilesUnavailable`.
    """

    async def put(self, key: str, data: bytes) -> None: ...

    async def get(self, key: str, start: int = 0, size: int | None = None) -> bytes: ...

    async def delete(self, keys: Sequence[str]) -> None: ...

    def keys(self, prefix: str) -> AsyncGenerator[str]: ...


def open_store(url: str) -> FileStore:
    """`url`: a folder's path, `file://`, `s3://bucket/prefix`, `gs://…` or `az://…`.

    Credentials are those of the machine: environment, profile or instance, as obstore finds them.

    Raises:
        ConfigError: there can be no such store.
    """
    scheme, separator, rest = url.partition("://")
    try:
        if not separator or scheme == "file":
            folder = Path(rest if separator else url).expanduser().resolve()
            return _Objects(LocalStore(folder, mkdir=True), folder)
        return _Objects(from_url(url), None)
    except (BaseError, OSError, ValueError) as error:
        raise ConfigError(f"gateway.files_url {url!r}: {_first_line(error)}", param="gateway.files_url") from error


class _Objects:
    """What obstore speaks to. `folder`: where a local one lies."""

    def __init__(self, store: ObjectStore, folder: Path | None) -> None:
        self._store = store
        self._folder = folder

    async def put(self, key: str, data: bytes) -> None:
        with _errors(key):
            await obstore.put_async(self._store, key, data, use_multipart=False)
            if self._folder is not None:
                # Neither obstore nor the file system promises that it survives a power cut.
                await asyncio.to_thread(_sync, self._folder / key)

    async def get(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        with _errors(key):
            if size is not None:
                return bytes(await obstore.get_range_async(self._store, key, start=start, length=size))
            found = await obstore.get_async(self._store, key, options={"range": {"offset": start}} if start else None)
            return bytes(await found.bytes_async())

    async def delete(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), _DELETES_AT_ONCE):
            with _errors(keys[start]), contextlib.suppress(FileNotFoundError):
                # Of several, a local one that is not there would keep the others.
                chunk = list(keys[start : start + _DELETES_AT_ONCE])
                if self._folder is None:
                    await obstore.delete_async(self._store, chunk)
                else:
                    await asyncio.to_thread(_unlink, [self._folder / key for key in chunk])

    async def keys(self, prefix: str) -> AsyncGenerator[str]:
        with _errors(prefix):
            listed = obstore.list(self._store, prefix)  # pyright: ignore[reportUnknownMemberType]
            async for page in listed:
                for found in page:
                    yield found["path"]


def _sync(path: Path) -> None:
    for place, flags in ((path, os.O_RDONLY), (path.parent, os.O_RDONLY | os.O_DIRECTORY)):
        handle = os.open(place, flags)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _unlink(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
    for folder in {path.parent for path in paths}:
        # Not empty, or gone already: both are well.
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def _errors(key: str) -> Generator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NoSuchObject(f"there is no object {key}") from error
    except (BaseError, OSError) as error:
        raise FilesUnavailable(f"the file store failed at {key}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0]
