"""The page at `/`: files that lie beside this one, read once, and named by what is in them.

Every file but the first is below a path that holds a digest of all: whoever has it need never ask again, and a new
version is new paths.
"""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import NamedTuple

from producer.gateway.asgi import Call
from producer.gateway.refusals import Headers, NotFound

FOLDER = Path(__file__).parent / "page"
_FIRST = "index.html"
# Stands for the digest in the first file.
_PLACE = b"{version}"
_KINDS = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
    ".txt": b"text/plain; charset=utf-8",
}
# Its own files and its own API: no script or style in the page itself, no other host, no frame around it.
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SAFETY: Headers = [
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"vary", b"accept-encoding"),
]
_FOR_EVER = (b"cache-control", b"public, max-age=31536000, immutable")
_ASK_FIRST = (b"cache-control", b"no-cache")


class _File(NamedTuple):
    kind: bytes
    plain: bytes
    packed: bytes
    tag: bytes


class PageRoutes:
    """`first` is `/`; `file` is `/page/{rest}`."""

    def __init__(self) -> None:
        contents = {
            path.relative_to(FOLDER).as_posix(): path.read_bytes()
            for path in sorted(FOLDER.rglob("*"))
            if path.suffix in _KINDS
        }
        self._version = _digest(b"\0".join(name.encode() + b"\0" + data for name, data in contents.items()))
        contents[_FIRST] = contents[_FIRST].replace(_PLACE, self._version.encode())
        self._files = {name: _file_of(name, data) for name, data in contents.items()}

    async def first(self, call: Call) -> None:
        await self._answer(call, self._files[_FIRST], _ASK_FIRST)

    async def file(self, call: Call) -> None:
        """`VERSION/NAME`. Of another version there is only this one's file, for a page that another replica gave."""
        version, _, name = call.parameters["id"].partition("/")
        file = self._files.get(name)
        if file is None:
            raise NotFound(f"there is no {call.path[:200]!r} here; see /")
        await self._answer(call, file, _FOR_EVER if version == self._version else _ASK_FIRST)

    async def _answer(self, call: Call, file: _File, cache: tuple[bytes, bytes]) -> None:
        headers = [*_SAFETY, (b"content-type", file.kind), (b"etag", file.tag), cache]
        if file.tag in call.headers.get(b"if-none-match", b""):
            # Without a length: this answer has no body, the one it stands for does.
            await call.start(304, headers)
            await call.send({"type": "http.response.body", "body": b""})
            return
        takes_packed = b"gzip" in call.headers.get(b"accept-encoding", b"")
        if takes_packed:
            headers.append((b"content-encoding", b"gzip"))
        await call.answer(200, file.packed if takes_packed else file.plain, headers)


def _file_of(name: str, data: bytes) -> _File:
    tag = f'W/"{_digest(data)}"'.encode()
    return _File(_KINDS[Path(name).suffix], data, gzip.compress(data, mtime=0), tag)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
