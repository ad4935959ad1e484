"""`GET /v1/overview`: a look at all pools, or with `?stream=true` one each second."""

from __future__ import annotations

from urllib.parse import parse_qs

from producer.gateway.asgi import Call, Line
from producer.gateway.house import House
from producer.gateway.refusals import JSON, RateLimited, refusal_of
from producer.gateway.streams import HEADERS
from schemas.errors import JobMalformed, PenstockError

# Pages open at one gateway. One more costs little, but what strangers may open must end somewhere.
_STREAMS_MAX = 256
_RETRY_AFTER_S = 5.0


class OverviewRoute:
    """`get` is the route."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._streams = 0

    async def get(self, call: Call) -> None:
        if not _wants_stream(call) or call.method == "HEAD":
            await call.answer(200, self._house.overview.now(call.tenant).whole, [JSON, (b"cache-control", b"no-store")])
            return
        if self._streams >= _STREAMS_MAX:
            raise RateLimited(
                f"{self._streams} overviews are being streamed here, the limit; ask without stream=true",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._streams += 1
        try:
            async with Line(call):
                await self._stream(call)
        finally:
            self._streams -= 1

    async def _stream(self, call: Call) -> None:
        edition = self._house.overview.now(call.tenant)
        await call.start(200, HEADERS)
        await self._send(call, edition.whole)
        while not self._house.why_closed:
            before = edition
            edition = await self._house.overview.next(call.tenant, before.number)
            try:
                self._check_key(call)
            except PenstockError as error:
                await self._send(call, refusal_of(error).body, more=False)
                return
            is_current = edition.decisions_seen == before.decisions_seen and edition.number == before.number + 1
            await self._send(call, edition.news if is_current else edition.whole)
        # The gateway stops; whoever looks on asks another one.
        await call.send({"type": "http.response.body", "body": b""})

    def _check_key(self, call: Call) -> None:
        """A key that is revoked ends what was begun with it."""
        if self._house.cfg.api_keys:
            self._house.keys.holder_of(call.headers)

    @staticmethod
    async def _send(call: Call, data: bytes, *, more: bool = True) -> None:
        await call.send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": more})


def _wants_stream(call: Call) -> bool:
    values = parse_qs(call.scope["query_string"].decode("latin-1")).get("stream", ["false"])
    if values[-1] not in {"true", "false"}:
        raise JobMalformed(f"stream must be true or false, not {values[-1][:20]!r}", param="stream")
    return values[-1] == "true"
