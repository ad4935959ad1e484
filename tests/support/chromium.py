"""A real Chromium without a window, driven over its own debugging pipe: no driver, no library, no port.

Where the machine has none, `FOUND` is empty and tests that need one skip.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec

FOUND = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), "")
WHY_NOT = "no Chromium on this machine (Debian: apt-get install chromium)"
WAIT_S = 20.0
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--hide-scrollbars", "--force-color-profile=srgb", "--remote-debugging-pipe"),
)
_KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "Space": 32}
_FIRST_FREE_FD = 10


class Chromium:
    """`async with Chromium() as browser: page = await browser.page(url)`."""

    def __init__(self) -> None:
        self._profile = tempfile.mkdtemp(prefix="penstock-chromium-")
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._pages: dict[str, Page] = {}
        self._calls = 0
        self._to_it = -1

    async def __aenter__(self) -> Self:
        # Chromium reads its pipe as file 3 and writes it as file 4.
        read, self._to_it = os.pipe()
        from_it, write = os.pipe()
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, _FIRST_FREE_FD) for fd in (read, write)]
        script = f'exec "$@" 3<&{high[0]} 4>&{high[1]}'
        self._process = await asyncio.create_subprocess_exec(
            *("bash", "-c", script, "bash", FOUND, *_FLAGS, f"--user-data-dir={self._profile}"),
            pass_fds=high,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        for fd in (read, write, *high):
            os.close(fd)
        stream = asyncio.StreamReader(limit=64 * 1024 * 1024)
        pipe = os.fdopen(from_it, "rb", 0)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), pipe)
        self._reader = asyncio.create_task(self._read(stream))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        os.close(self._to_it)
        assert self._reader is not None
        await self._reader
        shutil.rmtree(self._profile, ignore_errors=True)

    async def page(
        self, url: str = "", *, width: int = 1280, height: int = 900, is_dark: bool = False, scale: float = 1
    ) -> Page:
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        page = self._pages[session] = Page(self, session, target)
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            await page.call(f"{domain}.enable")
        await page.look(width=width, height=height, is_dark=is_dark, scale=scale)
        if url:
            await page.goto(url)
        return page

    async def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        self._calls += 1
        message = {"id": self._calls, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        answer = self._answers[self._calls] = asyncio.get_running_loop().create_future()
        data = msgspec.json.encode(message) + b"\0"
        while data:
            data = data[os.write(self._to_it, data) :]
        async with asyncio.timeout(WAIT_S):
            return await answer

    async def _read(self, stream: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                message = msgspec.json.decode((await stream.readuntil(b"\0"))[:-1])
                if "id" in message:
                    answer = self._answers.pop(message["id"])
                    if not answer.done():
                        if "error" in message:
                            answer.set_exception(AssertionError(message["error"]["message"]))
                        else:
                            answer.set_result(message["result"])
                elif page := self._pages.get(message.get("sessionId", "")):
                    page.hear(message["method"], message["params"])


class Page:
    """One tab. `errors` and `requests` are what its console said and what it asked for."""

    def __init__(self, browser: Chromium, session: str, target: str) -> None:
        self._browser = browser
        self._session = session
        self._target = target
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._answers: dict[str, Any] = {}
        self._asked: list[dict[str, Any]] = []
        self._replies: set[asyncio.Task[None]] = set()

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return await self._browser.call(method, self._session, **parameters)

    async def close(self) -> None:
        """Six streams are all that a browser opens to one host."""
        await self._browser.call("Target.closeTarget", targetId=self._target)

    async def goto(self, url: str) -> None:
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def look(self, *, width: int, height: int, is_dark: bool = False, scale: float = 1) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def js(self, expression: str) -> Any:
        """What `expression` comes to; a promise is waited for."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"]["exception"].get("description", answer))
        return answer["result"].get("value")

    async def until(self, condition: str) -> Any:
        """Waits until `condition` is true, or an element, and returns it."""
        plain = f"(value => value instanceof Node || value)({condition})"
        try:
            async with asyncio.timeout(WAIT_S):
                while not (value := await self.js(plain)):
                    await asyncio.sleep(0.03)
                return value
        except TimeoutError as error:
            seen = await self.js("document.body.innerText")
            raise AssertionError(
                f"never came true: {condition}\nthe page:\n{seen}\nits console: {self.errors}"
            ) from error

    async def sees(self, text: str) -> None:
        await self.until(f"document.body.innerText.includes({msgspec.json.encode(text).decode()})")

    async def text(self, selector: str) -> str:
        return await self.until(f"document.querySelector({selector!r})?.innerText")

    async def click(self, selector: str) -> None:
        """A real click, where the element is."""
        find = f"document.querySelector({selector!r})"
        await self.until(f"!!{find}")
        await self.js(f"{find}.scrollIntoView({{block: 'center'}})")
        box = await self.js(f"(({{x, y, width, height}}) => ({{x, y, width, height}}))({find}.getBoundingClientRect())")
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def type(self, text: str) -> None:
        """Into what has the focus."""
        await self.call("Input.insertText", text=text)

    async def press(self, key: str) -> None:
        text = {"Enter": "\r", "Space": " "}.get(key, "")
        more = {"windowsVirtualKeyCode": _KEYS[key], "key": " " if key == "Space" else key, "code": key}
        await self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **more)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **more)

    async def choose(self, selector: str, *files: Path) -> None:
        """What a file input is given."""
        root = (await self.call("DOM.getDocument"))["root"]["nodeId"]
        node = (await self.call("DOM.querySelector", nodeId=root, selector=selector))["nodeId"]
        await self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in files])

    async def drop(self, *files: Path) -> None:
        """Dragged in from outside, and let go in the middle of the page once it asks for them.

        A browser says again and again where the mouse is; what is let go over a page that has not yet said that it
        takes files is forgotten.
        """
        data = {"items": [], "files": [str(path) for path in files], "dragOperationsMask": 1}

        async def drag(kind: str) -> bool:
            await self.call("Input.dispatchDragEvent", type=kind, x=300, y=300, data=data)
            await asyncio.sleep(0.05)
            return await self.js("document.querySelector('.drop-over') !== null")

        await drag("dragEnter")
        async with asyncio.timeout(WAIT_S):
            while not await drag("dragOver"):
                pass
        await drag("dragOver")
        await drag("drop")

    @contextlib.asynccontextmanager
    async def answering(self, answers: dict[str, Any], asked: list[dict[str, Any]]) -> AsyncGenerator[None]:
        """Meanwhile `METHOD /path` gets its JSON from here, and `asked` what was asked."""
        self._answers, self._asked = answers, asked
        await self.call("Fetch.enable", patterns=[{"urlPattern": f"*{name.split()[1]}*"} for name in answers])
        try:
            yield
        finally:
            await self.call("Fetch.disable")
            await asyncio.gather(*self._replies, return_exceptions=True)

    async def _reply(self, paused: dict[str, Any]) -> None:
        request = paused["request"]
        path = urlsplit(request["url"]).path
        self._asked.append(
            {
                "method": request["method"],
                "path": path,
                "headers": request["headers"],
                "body": request.get("postData", ""),
            }
        )
        answer = self._answers.get(f"{request['method']} {path}")
        if answer is None:
            await self.call("Fetch.continueRequest", requestId=paused["requestId"])
            return
        await self.call(
            "Fetch.fulfillRequest",
            requestId=paused["requestId"],
            responseCode=200,
            responseHeaders=[{"name": "content-type", "value": "application/json"}],
            body=base64.b64encode(msgspec.json.encode(answer)).decode(),
        )

    async def screenshot(self, path: Path) -> None:
        shot = await self.call("Page.captureScreenshot", format="png")
        await asyncio.to_thread(path.write_bytes, base64.b64decode(shot["data"]))

    def hear(self, method: str, parameters: dict[str, Any]) -> None:
        if method == "Fetch.requestPaused":
            task = asyncio.create_task(self._reply(parameters))
            self._replies.add(task)
            task.add_done_callback(self._replies.discard)
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in {"error", "warning", "assert"}:
            self.errors.append(" ".join(str(one.get("value", one.get("description"))) for one in parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in {"error", "warning"}:
            entry = parameters["entry"]
            self.errors.append(f"{entry['text']} {entry.get('url', '')}")
