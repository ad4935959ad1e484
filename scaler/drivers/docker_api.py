"""The few questions and orders we have for a Docker engine; aiodocker and its errors end here."""

# aiodocker has hardly any types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Generator
from typing import Any, cast

import aiodocker
import aiohttp
from aiodocker.exceptions import DockerError

from scaler.drivers.containers import POOL_LABEL, Container, Gone, container_of
from scaler.drivers.port import DriverRefused, DriverUnavailable
from schemas.driver_config import DockerSection
from schemas.errors import PenstockError


class DockerApi:
    """One client of one engine."""

    def __init__(self, client: aiodocker.Docker) -> None:
        self._client = client

    @classmethod
    def made(cls, cfg: DockerSection) -> DockerApi:
        """Needs a running loop. Raises DriverRefused: there is no address, or none that makes sense."""
        timeout = aiohttp.ClientTimeout(total=cfg.request_timeout_s)
        try:
            return cls(aiodocker.Docker(url=cfg.host or None, timeout=timeout))
        except (AssertionError, ValueError, OSError, DockerError) as error:
            raise DriverRefused(
                f"no Docker engine to talk to ({cfg.host or 'no socket found'}{f': {error}' if str(error) else ''}): "
                "set scaler.docker.host, e.g. unix:///var/run/docker.sock",
                param="scaler.docker.host",
            ) from error

    async def close(self) -> None:
        await self._client.close()

    async def version(self) -> str:
        with docker_errors("version"):
            return str((await self._client.version()).get("Version", ""))

    async def containers(self) -> list[Container]:
        """All of ours, also those that ended."""
        filters = json.dumps({"label": [POOL_LABEL]})
        with docker_errors("list containers"):
            listed = await self._client.containers.list(all="1", filters=filters)
        found: list[Container] = []
        for one in listed:
            with contextlib.suppress(Gone), docker_errors("inspect a container"):
                found.append(container_of(await one.show()))
        return found

    async def start(self, name: str, config: dict[str, Any]) -> None:
        """Raises DriverRefused: there is no such image or network, or the host has no GPU runtime."""
        what = f"create container {name} from image {config['Image']}"
        try:
            with docker_errors(what):
                made = await self._client.containers.create(config, name=name)
        except Gone as error:
            raise DriverRefused(f"Docker cannot {what}: {error.message}; `docker pull` it, or build it") from error
        try:
            with docker_errors(f"start container {name}"):
                await made.start()
        except PenstockError as error:
            # Else it would stay behind, never started, with its name and GPUs taken.
            with contextlib.suppress(PenstockError), docker_errors("remove"):
                await made.delete(force=True)
            if isinstance(error, Gone):
                raise DriverRefused(f"Docker cannot start container {name}: {error.message}") from error
            raise

    async def ask_to_stop(self, one: Container) -> None:
        """SIGTERM, and no new start. Raises Gone: it does not run."""
        with docker_errors(f"stop container {one.own_name}"):
            await self._client.containers.container(one.id).kill(signal="SIGTERM")

    async def rename(self, one: Container, name: str) -> None:
        with docker_errors(f"rename container {one.own_name}"):
            await self._client.containers.container(one.id).rename(name)

    async def remove(self, one: Container) -> None:
        """Whatever it does. Nothing happens if it is gone."""
        with contextlib.suppress(Gone), docker_errors(f"remove container {one.own_name}"):
            await self._client.containers.container(one.id).delete(force=True)

    async def changes(self) -> AsyncGenerator[str]:
        """Pools of containers that something happened to, until the connection ends."""
        filters = json.dumps({"type": ["container"], "label": [POOL_LABEL]})
        heard = self._client.events.subscribe(create_task=False)
        listening = asyncio.create_task(self._client.events.run(filters=filters), name="docker events")
        try:
            while (event := cast("dict[str, Any] | None", await heard.get())) is not None:
                action = str(event.get("Action", ""))
                # Health checks are commands that run every few seconds.
                if not action.startswith("exec_"):
                    yield str(event["Actor"]["Attributes"].get(POOL_LABEL, ""))
            with docker_errors("listen to events"):
                await listening
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


@contextlib.contextmanager
def docker_errors(what: str) -> Generator[None]:
    try:
        yield
    except DockerError as error:
        raise _for_status(error.status, str(error.message), what) from error
    except TimeoutError as error:
        raise DriverUnavailable(f"Docker did not answer in time: {what}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise DriverUnavailable(f"Docker is away ({error!r}): {what}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DriverUnavailable(f"Docker's answer makes no sense ({error!r}): {what}") from error


def _for_status(status: int, message: str, what: str) -> PenstockError:
    match status:
        case 404:
            return Gone(message)
        # "is not running", "is already in progress": it ends by itself, just now.
        case 409 if "name" not in message:
            return Gone(message)
        case 400 | 401 | 403 | 405:
            return DriverRefused(f"Docker refuses to {what}: {message}")
        # A GPU on a host without NVIDIA's runtime: an error of the server's, as Docker sees it.
        case 500 if "device driver" in message or "OCI runtime" in message:
            return DriverRefused(f"Docker cannot {what}: {message}")
        case _:
            return DriverUnavailable(f"Docker answers {status}: {what} ({message})")
