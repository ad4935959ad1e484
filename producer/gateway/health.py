"""`/livez`, `/readyz` and `/metrics`, for whoever runs the gateway."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from producer.gateway.asgi import Call
from producer.gateway.house import House

_TEXT = [(b"content-type", b"text/plain; charset=utf-8")]


class HealthRoutes:
    def __init__(self, house: House) -> None:
        self._house = house

    async def live(self, call: Call) -> None:
        await call.answer(200, b"ok\n", [*_TEXT])

    async def ready(self, call: Call) -> None:
        """The reason why not, for people; the status, for load balancers."""
        reason = self._house.why_not_ready()
        await call.answer(503 if reason else 200, f"{reason or 'ok'}\n".encode(), [*_TEXT])

    async def metrics(self, call: Call) -> None:
        await call.answer(200, generate_latest(REGISTRY), [(b"content-type", CONTENT_TYPE_LATEST.encode())])
