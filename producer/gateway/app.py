"""Which route is whose."""

from __future__ import annotations

from producer.gateway.front_door import FrontDoor, Routes
from producer.gateway.generate import Generate
from producer.gateway.health import HealthRoutes
from producer.gateway.house import House
from producer.gateway.models import ModelRoutes
from schemas.job import Endpoint


def app(house: House) -> FrontDoor:
    routes = Routes()
    for endpoint in Endpoint:
        routes.add("POST", endpoint.value, Generate(house, endpoint.value))
    models = ModelRoutes(house)
    routes.add("GET", "/v1/models", models.list)
    routes.add("GET", "/v1/models/{id}", models.one)
    health = HealthRoutes(house)
    routes.add("GET", "/livez", health.live, is_public=True)
    routes.add("GET", "/readyz", health.ready, is_public=True)
    routes.add("GET", "/metrics", health.metrics, is_public=True)
    return FrontDoor(house, routes)
