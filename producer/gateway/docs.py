"""`/openapi.json` and `/docs`: made once, public."""

from __future__ import annotations

import msgspec

from producer.gateway.asgi import Call
from producer.gateway.openapi import document, page
from producer.gateway.refusals import JSON


class DocsRoutes:
    def __init__(self, *, has_keys: bool) -> None:
        whole = document(has_keys=has_keys)
        self._document = msgspec.json.encode(whole)
        self._page = page(whole).encode()

    async def document(self, call: Call) -> None:
        await call.answer(200, self._document, [JSON])

    async def page(self, call: Call) -> None:
        policy = b"default-src 'none'; style-src 'unsafe-inline'"
        kind = (b"content-type", b"text/html; charset=utf-8")
        await call.answer(200, self._page, [kind, (b"content-security-policy", policy)])
