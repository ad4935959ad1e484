"""A stand-in for a Kubernetes API server, where none is: Deployments, their scale, and pods, as the driver needs them.

In memory, over HTTP, in a thread of its own. It knows versions and conflicts, merge patches, label selectors, watches
that forget, and deletions that wait for a kubelet; it has no roles. What is held to it is held to a real one too, where
there is one.
"""

from __future__ import annotations

import asyncio
import copy
import datetime as dt
import json
import threading
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support.ports import free_ports

# A watch that wants older changes than so many is told to list again.
_REMEMBERED = 1000
Object = dict[str, Any]


class Refusal(Exception):
    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


class Store:
    """Objects by kind, namespace and name; every change has a number."""

    def __init__(self) -> None:
        self.version = 100
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._changes: list[tuple[int, str, tuple[str, str, str], Object]] = []
        self._is_news = asyncio.Condition()

    def get(self, key: tuple[str, str, str]) -> Object:
        try:
            return self._objects[key]
        except KeyError:
            raise Refusal(404, "NotFound", f'{key[0]} "{key[2]}" not found') from None

    def of(self, kind: str, namespace: str) -> list[Object]:
        return [one for key, one in self._objects.items() if key[:2] == (kind, namespace)]

    async def put(self, key: tuple[str, str, str], made: Object) -> Object:
        kind = "MODIFIED" if key in self._objects else "ADDED"
        return await self._note(kind, key, made)

    async def remove(self, key: tuple[str, str, str]) -> Object:
        gone = self.get(key)
        del self._objects[key]
        return await self._note("DELETED", key, gone)

    async def since(self, version: int, kind: str, namespace: str) -> list[tuple[int, str, Object]]:
        """Waits for changes after that one. Raises Refusal: it is forgotten."""
        if version < self.version - _REMEMBERED or (self._changes and version < self._changes[0][0] - 1):
            raise Refusal(410, "Expired", f"too old resource version: {version}")
        async with self._is_news:
            await self._is_news.wait_for(lambda: self.version > version)
        return [(at, how, one) for at, how, key, one in self._changes if at > version and key[:2] == (kind, namespace)]

    async def _note(self, how: str, key: tuple[str, str, str], one: Object) -> Object:
        self.version += 1
        one = copy.deepcopy(one)
        one["metadata"]["resourceVersion"] = str(self.version)
        if how != "DELETED":
            self._objects[key] = one
        self._changes = [*self._changes, (self.version, how, key, one)][-_REMEMBERED:]
        async with self._is_news:
            self._is_news.notify_all()
        return one


class KubeStandIn:
    """As `KubeServer`: `kill_api` takes its port away, `hang` lets it say nothing; it forgets nothing by either."""

    is_real = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (self._port,) = free_ports(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kube stand-in", daemon=True)
        self._store: Store
        self._runner: web.AppRunner
        self._goes_on: asyncio.Event

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()

        async def prepare() -> None:
            self._store = Store()
            self._goes_on = asyncio.Event()
            self._goes_on.set()

        self._do(prepare())
        self.start_api()

    def stop(self) -> None:
        self.kill_api()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start_api(self) -> None:
        self._do(self._listen())

    def kill_api(self) -> None:
        self._do(self._runner.cleanup())

    def hang(self) -> None:
        self._loop.call_soon_threadsafe(self._goes_on.clear)

    def go_on(self) -> None:
        self._loop.call_soon_threadsafe(self._goes_on.set)

    def kubeconfig(self, namespace: str, token: str = "") -> str:
        path = self._folder / f"{namespace}-{token or 'scaler'}.yaml"
        server = f"http://127.0.0.1:{self._port}"
        path.write_text(
            json.dumps(
                {
                    "current-context": "test",
                    "contexts": [
                        {"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}
                    ],
                    "clusters": [{"name": "test", "cluster": {"server": server}}],
                    "users": [{"name": "test", "user": {"token": "any"}}],
                }
            )
        )
        return str(path)

    def _do(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> None:
        app = web.Application(middlewares=[self._answer])
        deployments, pods = "/apis/apps/v1/namespaces/{ns}/deployments", "/api/v1/namespaces/{ns}/pods"
        app.add_routes(
            [
                web.post("/api/v1/namespaces", _created),
                *(web.post(f"{path}", self._create) for path in (deployments, pods)),
                *(web.get(f"{path}", self._list) for path in (deployments, pods)),
                *(web.get(f"{path}/{{name}}", self._get) for path in (deployments, pods)),
                *(web.patch(f"{path}/{{name}}", self._patch) for path in (deployments, pods)),
                *(web.patch(f"{path}/{{name}}/status", self._patch) for path in (deployments, pods)),
                web.patch(f"{deployments}/{{name}}/scale", self._scale),
                web.delete(f"{pods}/{{name}}", self._delete),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()

    @web.middleware
    async def _answer(self, request: web.Request, handler: Any) -> web.StreamResponse:
        await self._goes_on.wait()
        try:
            return await handler(request)
        except Refusal as refusal:
            return web.json_response(_status(refusal), status=refusal.code)

    async def _create(self, request: web.Request) -> web.Response:
        made, key = json.loads(await request.read()), _key(request)
        key = (*key[:2], made["metadata"]["name"])
        made["metadata"] |= {"creationTimestamp": _now(), "namespace": key[1]}
        made.setdefault("status", {"phase": "Pending"} if key[0] == "pods" else {})
        if key[0] == "deployments":
            made["spec"].setdefault("replicas", 1)
        return web.json_response(await self._store.put(key, made), status=201)

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response(self._store.get(_key(request)))

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") == "true":
            return await self._watch(request)
        kind, namespace, _ = _key(request)
        found = [one for one in self._store.of(kind, namespace) if _is_selected(one, request)]
        return web.json_response({"metadata": {"resourceVersion": str(self._store.version)}, "items": found})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        version, (kind, namespace, _) = int(request.query["resourceVersion"]), _key(request)
        try:
            async with asyncio.timeout(float(request.query.get("timeoutSeconds", "60"))):
                while True:
                    latest = max(version, self._store.version)
                    for at, how, one in await self._store.since(version, kind, namespace):
                        latest = max(latest, at)
                        if _is_selected(one, request):
                            await response.write(json.dumps({"type": how, "object": one}).encode() + b"\n")
                    version = latest
        except Refusal as refusal:
            await response.write(json.dumps({"type": "ERROR", "object": _status(refusal)}).encode() + b"\n")
        except (TimeoutError, ConnectionError):
            # Nobody listens any more, or they shall ask again.
            pass
        return response

    async def _patch(self, request: web.Request) -> web.Response:
        patch = json.loads(await request.read())
        key = _key(request)
        before = self._store.get(key)
        _must_be(patch, before)
        return web.json_response(await self._store.put(key, _merged(before, patch)))

    async def _scale(self, request: web.Request) -> web.Response:
        patch = json.loads(await request.read())
        key = _key(request)
        before = self._store.get(key)
        _must_be(patch, before)
        after = await self._store.put(key, _merged(before, {"spec": {"replicas": patch["spec"]["replicas"]}}))
        scale = {"metadata": after["metadata"], "spec": {"replicas": after["spec"]["replicas"]}}
        return web.json_response({"kind": "Scale", "apiVersion": "autoscaling/v1", **scale})

    async def _delete(self, request: web.Request) -> web.Response:
        key = _key(request)
        pod = self._store.get(key)
        options = json.loads(await request.read() or b"{}")
        asked = options.get("gracePeriodSeconds", request.query.get("gracePeriodSeconds"))
        grace_s = pod["spec"].get("terminationGracePeriodSeconds", 30) if asked is None else int(asked)
        if not grace_s:
            return web.json_response(await self._store.remove(key))
        told = {"deletionTimestamp": _now(), "deletionGracePeriodSeconds": grace_s}
        return web.json_response(await self._store.put(key, _merged(pod, {"metadata": told})))


async def _created(request: web.Request) -> web.Response:
    return web.json_response(json.loads(await request.read()), status=201)


def _key(request: web.Request) -> tuple[str, str, str]:
    kind = "deployments" if "/deployments" in request.path else "pods"
    return kind, request.match_info["ns"], request.match_info.get("name", "")


def _must_be(patch: Object, before: Object) -> None:
    """A patch that names a version is for that one only."""
    wanted = patch.get("metadata", {}).pop("resourceVersion", None)
    if wanted is not None and wanted != before["metadata"]["resourceVersion"]:
        raise Refusal(409, "Conflict", "the object has been modified; please apply your changes to the latest version")


def _merged(before: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(before) if isinstance(before, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged


def _is_selected(one: Object, request: web.Request) -> bool:
    labels = one["metadata"].get("labels", {})
    for part in filter(None, request.query.get("labelSelector", "").split(",")):
        name, equals, value = part.partition("=")
        if name not in labels or (equals and labels[name] != value):
            return False
    return True


def _status(refusal: Refusal) -> Object:
    said = {"status": "Failure", "message": refusal.message, "reason": refusal.reason, "code": refusal.code}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, **said}


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
