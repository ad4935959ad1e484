"""The few calls that a chaos run makes of a gateway that may be dead: each is made again until somebody answers."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

_PIECE = 256 * 1024
_RETRY_S = 0.1
_ANSWER_S = 30.0
_BOUNDARY = "penstock-chaos"


class Api:
    def __init__(self, port: int) -> None:
        self._port = port

    async def upload(self, path: Path) -> str:
        """The file's id."""
        head = (
            f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="{path.name}"\r\n\r\n'
        ).encode()
        tail = f"\r\n--{_BOUNDARY}--\r\n".encode()
        size = await asyncio.to_thread(lambda: path.stat().st_size)
        headers = {
            "content-type": f"multipart/form-data; boundary={_BOUNDARY}",
            "content-length": str(len(head) + size + len(tail)),
        }

        def ask() -> bytes:
            return self._ask("POST", "/v1/files", _pieces(head, path, tail), headers)

        found: dict[str, Any] = msgspec.json.decode(await self._answered(ask))
        return found["id"]

    async def create(self, file_id: str) -> dict[str, Any]:
        asked = {"input_file_id": file_id, "endpoint": "/v1/completions", "completion_window": "24h"}
        body = msgspec.json.encode(asked)
        headers = {"content-type": "application/json"}
        return msgspec.json.decode(await self._answered(lambda: self._ask("POST", "/v1/batches", body, headers)))

    async def batch(self, batch_id: str) -> dict[str, Any]:
        return msgspec.json.decode(await self._answered(lambda: self._ask("GET", f"/v1/batches/{batch_id}")))

    async def content(self, file_id: str) -> bytes:
        return await self._answered(lambda: self._ask("GET", f"/v1/files/{file_id}/content"))

    async def _answered(self, ask: Any) -> bytes:
        while True:
            try:
                return await asyncio.to_thread(ask)
            except (OSError, http.client.HTTPException):
                await asyncio.sleep(_RETRY_S)

    def _ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_ANSWER_S)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if answer.status >= 500:
            raise http.client.HTTPException(data[:500])
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {data[:500]!r}")
        return data


def _pieces(head: bytes, path: Path, tail: bytes) -> Iterator[bytes]:
    yield head
    with path.open("rb") as handle:
        while data := handle.read(_PIECE):
            yield data
    yield tail
