"""`GET /v1/models` and one of them."""

from __future__ import annotations

from producer.gateway.asgi import Call
from producer.gateway.house import House
from schemas.errors import UnknownModel
from schemas.openai import Models


class ModelRoutes:
    def __init__(self, house: House) -> None:
        self._house = house

    async def list(self, call: Call) -> None:
        await call.answer_json(Models(data=self._house.directory.models(self._house.now_s)))

    async def one(self, call: Call) -> None:
        wanted = call.parameters["id"]
        models = self._house.directory.models(self._house.now_s)
        for model in models:
            if model.id == wanted:
                await call.answer_json(model)
                return
        known = ", ".join(model.id for model in models[:20]) or "none yet"
        raise UnknownModel(f"the model {wanted[:200]!r} does not exist here; there are: {known}", param="model")
