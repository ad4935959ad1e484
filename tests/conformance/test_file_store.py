"""The laws of a file store: see `infra.file_store.FileStore`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from infra.file_store import FileStore, FilesUnavailable, NoSuchObject, open_store
from schemas.errors import ConfigError

Story = Callable[[FileStore], Awaitable[None]]


@pytest.fixture(params=["folder", "file-url", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    where = {"folder": str(tmp_path / "a b"), "file-url": f"file://{tmp_path}/x", "memory": "memory:///"}
    return where[request.param]


def run(url: str, story: Story) -> None:
    async def whole() -> None:
        async with asyncio.timeout(20):
            await story(open_store(url))

    asyncio.run(whole())


async def keys(store: FileStore, prefix: str) -> set[str]:
    return {key async for key in store.keys(prefix)}


def test_what_is_put_is_there_whole_and_in_parts(url: str) -> None:
    async def story(store: FileStore) -> None:
        await store.put("a/b/1", b"0123456789")
        await store.put("a/b/0", b"")

        assert await store.get("a/b/1") == b"0123456789"
        assert await store.get("a/b/1", 3, 4) == b"3456"
        assert await store.get("a/b/1", 8) == b"89"
        assert await store.get("a/b/0") == b""

    run(url, story)


def test_a_put_replaces_what_was_there(url: str) -> None:
    async def story(store: FileStore) -> None:
        await store.put("a/1", b"long before")
        await store.put("a/1", b"now")
        assert await store.get("a/1") == b"now"

    run(url, story)


def test_keys_are_those_under_a_prefix_that_ends_at_a_slash(url: str) -> None:
    async def story(store: FileStore) -> None:
        for key in ("a/1/x", "a/1/y", "a/12/x", "b/1/x"):
            await store.put(key, b".")
        assert await keys(store, "a/1") == {"a/1/x", "a/1/y"}
        assert await keys(store, "c") == set()

    run(url, story)


def test_deleted_is_gone_and_what_was_not_there_is_no_mistake(url: str) -> None:
    async def story(store: FileStore) -> None:
        for key in ("a/1", "a/2", "a/3"):
            await store.put(key, b".")
        await store.delete(["a/1", "a/none", "none/none", "a/2"])
        await store.delete(["a/1"])
        await store.delete([])
        assert await keys(store, "a") == {"a/3"}
        with pytest.raises(NoSuchObject):
            await store.get("a/1")
        with pytest.raises(NoSuchObject):
            await store.get("a/1", 0, 1)

    run(url, story)


def test_a_store_that_cannot_be_written_says_so_in_our_words(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()

    async def story(store: FileStore) -> None:
        # A file where a folder would have to be.
        (tmp_path / "files" / "a").write_bytes(b"")
        with pytest.raises((FilesUnavailable, NoSuchObject)):
            await store.put("a/1", b".")

    run(str(tmp_path / "files"), story)


@pytest.mark.parametrize("url", ["ftp://x/y", "nonsense://", "az://container-without-an-account"])
def test_an_impossible_store_is_a_mistake_of_the_configuration(url: str) -> None:
    with pytest.raises(ConfigError, match="gateway.files_url"):
        open_store(url)
