"""A stand-in for a Docker engine, where no daemon is: the few calls that the driver makes, as the API's documents have
them, on a unix socket, with processes for containers.

The conformance suite holds it to the same laws as Docker itself, where there is one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
from pathlib import Path
from typing import Any

from aiohttp import web

from scaler.drivers.containers import Container, container_of

VERSION = "1.43"


class _Container:
    def __init__(self, name: str, config: dict[str, Any]) -> None:
        self.id = secrets.token_hex(32)
        self.name = name
        self.config = config
        self.status = "created"
        self.health = "starting" if config.get("Healthcheck") else ""
        self.restarts = 0
        self.exit_code = 0
        self.was_stopped = False
        self.process: asyncio.subprocess.Process | None = None
        self.life: asyncio.Task[None] | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, **dict(one.split("=", 1) for one in self.config["Env"])}

    def inspected(self) -> dict[str, Any]:
        state: dict[str, Any] = {"Status": self.status, "ExitCode": self.exit_code, "Error": ""}
        if self.health:
            state["Health"] = {"Status": self.health}
        labels = self.config["Labels"]
        return {
            "Id": self.id,
            "Name": f"/{self.name}",
            "RestartCount": self.restarts,
            "State": state,
            "Config": {"Labels": labels},
        }


class StandInEngine:
    def __init__(self, path: Path, images: set[str]) -> None:
        self.path = path
        self.is_away = False
        self._images = images
        self._containers: dict[str, _Container] = {}
        self._listeners: set[asyncio.Queue[dict[str, Any]]] = set()
        self._runner: web.AppRunner

    async def start(self) -> None:
        app = web.Application(middlewares=[self._answer])
        base = f"/v{VERSION}"
        app.add_routes(
            [
                web.get("/version", self._version),
                web.get(base + "/version", self._version),
                web.get(base + "/events", self._events),
                web.get(base + "/containers/json", self._list),
                web.post(base + "/containers/create", self._create),
                web.get(base + "/containers/{id}/json", self._inspect),
                web.post(base + "/containers/{id}/start", self._start),
                web.post(base + "/containers/{id}/kill", self._kill),
                web.post(base + "/containers/{id}/rename", self._rename),
                web.delete(base + "/containers/{id}", self._delete),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.path)).start()

    async def stop(self) -> None:
        for one in list(self._containers.values()):
            await self._end(one)
        await self._runner.cleanup()

    def all(self) -> list[Container]:
        return [container_of(one.inspected()) for one in self._containers.values()]

    def made(self, name: str, pool: str) -> None:
        """A container that was created and never started."""
        made = _Container(name, {"Labels": {"penstock.pool": pool}, "Env": []})
        self._containers[made.id] = made

    @web.middleware
    async def _answer(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.is_away:
            return web.json_response({"message": "the engine is starting"}, status=503)
        try:
            return await handler(request)
        except KeyError as error:
            return web.json_response({"message": f"No such container: {error}"}, status=404)

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"Version": "stand-in", "ApiVersion": VERSION})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            while True:
                await response.write(json.dumps(await queue.get()).encode() + b"\n")
        finally:
            self._listeners.discard(queue)

    async def _list(self, request: web.Request) -> web.Response:
        (label,) = json.loads(request.query["filters"])["label"]
        found = [one for one in self._containers.values() if label in one.config["Labels"]]
        return web.json_response([{"Id": one.id, "Names": [f"/{one.name}"]} for one in found])

    async def _create(self, request: web.Request) -> web.Response:
        config = json.loads(await request.read())
        name = request.query["name"]
        if config["Image"] not in self._images:
            return web.json_response({"message": f"No such image: {config['Image']}"}, status=404)
        if any(one.name == name for one in self._containers.values()):
            return web.json_response({"message": f"Conflict. The container name {name} is in use"}, status=409)
        made = _Container(name, config)
        self._containers[made.id] = made
        self._tell(made, "create")
        return web.json_response({"Id": made.id, "Warnings": []}, status=201)

    async def _inspect(self, request: web.Request) -> web.Response:
        return web.json_response(self._containers[request.match_info["id"]].inspected())

    async def _start(self, request: web.Request) -> web.Response:
        one = self._containers[request.match_info["id"]]
        one.life = asyncio.create_task(self._live(one))
        while one.status == "created":
            await asyncio.sleep(0.001)
        return web.Response(status=204)

    async def _kill(self, request: web.Request) -> web.Response:
        one = self._containers[request.match_info["id"]]
        if one.status != "running" or one.process is None:
            return web.json_response({"message": f"Container {one.id} is not running"}, status=409)
        one.was_stopped = True
        with contextlib.suppress(ProcessLookupError):
            one.process.send_signal(signal.Signals[request.query["signal"]])
        self._tell(one, "kill")
        return web.Response(status=204)

    async def _rename(self, request: web.Request) -> web.Response:
        one = self._containers[request.match_info["id"]]
        one.name = request.query["name"]
        self._tell(one, "rename")
        return web.Response(status=204)

    async def _delete(self, request: web.Request) -> web.Response:
        one = self._containers[request.match_info["id"]]
        del self._containers[one.id]
        await self._end(one)
        self._tell(one, "destroy")
        return web.Response(status=204)

    async def _live(self, one: _Container) -> None:
        """Runs it, and again as `unless-stopped` says."""
        pause_s = 0.1
        while True:
            # Its image's entrypoint does not matter here.
            one.process = await asyncio.create_subprocess_exec(*one.config["Cmd"], env=one.environment)
            one.status, one.health = "running", "starting" if one.health else ""
            self._tell(one, "start")
            watching = asyncio.create_task(self._check(one))
            one.exit_code = await one.process.wait()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            one.status = "exited" if one.was_stopped else "restarting"
            self._tell(one, "die")
            if one.was_stopped:
                return
            await asyncio.sleep(pause_s)
            pause_s *= 2
            one.restarts += 1

    async def _check(self, one: _Container) -> None:
        check = one.config.get("Healthcheck")
        while check:
            asked = await asyncio.create_subprocess_exec(*check["Test"][1:], env=one.environment)
            if await asked.wait() == 0 and one.health != "healthy":
                one.health = "healthy"
                self._tell(one, "health_status: healthy")
            await asyncio.sleep(check["Interval"] / 1e9)

    async def _end(self, one: _Container) -> None:
        if one.life is not None:
            one.life.cancel()
            await asyncio.gather(one.life, return_exceptions=True)
        if one.process is not None and one.process.returncode is None:
            one.process.kill()
            await one.process.wait()

    def _tell(self, one: _Container, action: str) -> None:
        actor = {"ID": one.id, "Attributes": {**one.config["Labels"], "name": one.name}}
        for queue in self._listeners:
            queue.put_nowait({"Type": "container", "Action": action, "Actor": actor, "time": 0})
