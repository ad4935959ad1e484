"""Which route is whose."""

from __future__ import annotations

from producer.gateway.batches.batch_routes import BatchRoutes
from producer.gateway.batches.file_routes import FileRoutes
from producer.gateway.docs import DocsRoutes
from producer.gateway.front_door import FrontDoor, Routes
from producer.gateway.generate import Generate
from producer.gateway.health import HealthRoutes
from producer.gateway.house import House
from producer.gateway.jobs import JobRoutes
from producer.gateway.models import ModelRoutes
from producer.gateway.overview import OverviewRoute
from producer.gateway.page_files import PageRoutes
from producer.gateway.responses.routes import ResponseRoutes
from producer.gateway.webhooks.routes import WebhookRoutes
from schemas.job import Endpoint


def app(house: House) -> FrontDoor:
    routes = Routes()
    for endpoint in Endpoint:
        routes.add("POST", endpoint.value, Generate(house, endpoint.value))
    models = ModelRoutes(house)
    routes.add("GET", "/v1/models", models.list)
    routes.add("GET", "/v1/models/{rest}", models.one)
    jobs = JobRoutes(house)
    routes.add("POST", "/v1/jobs", jobs.submit)
    routes.add("GET", "/v1/jobs", jobs.list)
    routes.add("GET", "/v1/jobs/{id}", jobs.get)
    routes.add("DELETE", "/v1/jobs/{id}", jobs.cancel)
    routes.add("POST", "/v1/jobs/{id}/cancel", jobs.cancel)
    files = FileRoutes(house)
    routes.add("POST", "/v1/files", files.create)
    routes.add("GET", "/v1/files", files.list)
    routes.add("GET", "/v1/files/{id}", files.get)
    routes.add("DELETE", "/v1/files/{id}", files.delete)
    routes.add("GET", "/v1/files/{id}/content", files.content)
    batches = BatchRoutes(house)
    routes.add("POST", "/v1/batches", batches.create)
    routes.add("GET", "/v1/batches", batches.list)
    routes.add("GET", "/v1/batches/{id}", batches.get)
    routes.add("POST", "/v1/batches/{id}/cancel", batches.cancel)
    webhooks = WebhookRoutes(house)
    routes.add("POST", "/v1/webhook_endpoints", webhooks.create)
    routes.add("GET", "/v1/webhook_endpoints", webhooks.list)
    routes.add("GET", "/v1/webhook_endpoints/{id}", webhooks.get)
    routes.add("DELETE", "/v1/webhook_endpoints/{id}", webhooks.delete)
    routes.add("POST", "/v1/webhook_endpoints/{id}/rotate", webhooks.rotate)
    routes.add("POST", "/v1/webhook_endpoints/{id}/test", webhooks.test)
    routes.add("GET", "/v1/overview", OverviewRoute(house).get)
    page = PageRoutes()
    routes.add("GET", "/", page.first, is_public=True)
    routes.add("GET", "/page/{rest}", page.file, is_public=True)
    responses = ResponseRoutes(house)
    routes.add("POST", "/v1/responses", responses.create)
    routes.add("GET", "/v1/responses/{id}", responses.get)
    routes.add("DELETE", "/v1/responses/{id}", responses.delete)
    routes.add("POST", "/v1/responses/{id}/cancel", responses.cancel)
    routes.add("GET", "/v1/responses/{id}/input_items", responses.input_items)
    docs = DocsRoutes(has_keys=house.cfg.api_keys)
    routes.add("GET", "/openapi.json", docs.document, is_public=True)
    routes.add("GET", "/docs", docs.page, is_public=True)
    health = HealthRoutes(house)
    routes.add("GET", "/livez", health.live, is_public=True)
    routes.add("GET", "/readyz", health.ready, is_public=True)
    routes.add("GET", "/metrics", health.metrics, is_public=True)
    return FrontDoor(house, routes)
