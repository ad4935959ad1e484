"""The page at `/` in a real Chromium, against a real gateway, consumer and dispatcher."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.gateway.test_tenants import keys
from tests.support.chromium import FOUND, WHY_NOT, Chromium, Page
from tests.support.consumer import ConsumerProcess, DispatcherProcess
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer

pytestmark = pytest.mark.skipif(not FOUND, reason=WHY_NOT)

VIEWS = ("overview", "jobs", "batches", "playground", "scaler")
LONG: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Tell me of water"}],
    "max_tokens": 3500,
    "ignore_eos": True,
}
LINE = (
    '{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "tiny", "messages": []}}\n'
)


class House:
    """Everything that runs, and a browser."""

    def __init__(self, gateway: GatewayProcess, browser: Chromium, http: httpx.AsyncClient, folder: Path) -> None:
        self.gateway = gateway
        self.browser = browser
        self.http = http
        self.folder = folder

    async def open(self, view: str = "overview", **look: Any) -> Page:
        return await self.browser.page(f"{self.gateway.url}/#/{view}", **look)

    async def job(self, **more: Any) -> str:
        answer = await self.http.post("/v1/jobs", json={"body": LONG, **more})
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]


@contextlib.asynccontextmanager
async def house(url: str, folder: Path, *arguments: str) -> AsyncGenerator[House]:
    async with (
        ConsumerProcess(url, folder, "--engine.step_s", "0.02"),
        DispatcherProcess(url, folder),
        GatewayProcess(url, folder, *arguments) as gateway,
        Chromium() as browser,
        httpx.AsyncClient(base_url=gateway.url, timeout=20) as http,
    ):
        # A dispatcher may take a moment to lead; until then nothing can be held.
        yield House(gateway, browser, http, folder)


def told(url: str, folder: Path, story: Callable[[House], Awaitable[None]], *arguments: str) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(150), house(url, folder, *arguments) as there:
            await story(there)

    asyncio.run(bounded())


def is_ours(page: Page, there: House) -> bool:
    return all(asked.startswith((there.gateway.url, "blob:", "data:")) for asked in page.requests)


def test_the_page_shows_what_runs_without_errors_or_strangers_in_light_dark_and_on_a_phone(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story(there: House) -> None:
        await there.job(custom_id="the-long-one")
        page = await there.open()
        await page.sees("4,096 blocks free")
        await page.until("Number(document.querySelector('.figures .value').innerText) > 5")
        await page.until("document.querySelector('.plot .line')?.getAttribute('points').split(' ').length > 2")
        await page.sees("the-long-one")
        await page.sees("live")
        light = await page.js("getComputedStyle(document.body).backgroundColor")
        assert page.errors == []
        assert is_ours(page, there)
        await page.close()

        for view in VIEWS:
            phone = await there.open(view, width=390, height=844, is_dark=True)
            await phone.until("document.querySelector('main .panel')")
            await phone.until("document.title.includes('penstock')")
            widths = await phone.js("[document.documentElement.scrollWidth, innerWidth]")
            assert widths == [390, 390], view
            assert await phone.js("getComputedStyle(document.body).backgroundColor") != light
            # What can be pressed can be hit with a thumb.
            small = await phone.js(
                "[...document.querySelectorAll('main button, nav a')]"
                ".filter(one => one.offsetHeight < 24).map(one => one.outerHTML)"
            )
            assert small == [], view
            errors = [error for error in phone.errors if "/v1/batches" not in error]
            assert errors == []
            assert is_ours(phone, there)
            await phone.close()

    told(own_nats.url, tmp_path, story)


def test_a_running_and_a_held_job_are_shown_looked_into_and_cancelled(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story(there: House) -> None:
        running = await there.job(custom_id="runs")
        held = await there.job(not_before="1d", lane="bulk")
        page = await there.open("jobs")
        await page.sees("runs")
        await page.sees(held)
        await page.sees("held")

        await page.click(f"[aria-label='Cancel job {held}']")
        await page.sees(f"Job {held} is cancelled.")
        await page.click("[aria-label='Cancel job runs']")
        await page.sees(f"Job {running} is cancelled.")

        assert (await there.http.get(f"/v1/jobs/{running}")).json()["status"] == "cancelled"
        assert (await there.http.get(f"/v1/jobs/{held}")).json()["status"] == "cancelled"
        await page.click(".fold")
        await page.sees("Submitted")
        assert page.errors == []

    told(own_nats.url, tmp_path, story)


def test_the_playground_streams_a_chat_and_stop_ends_its_job(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story(there: House) -> None:
        page = await there.open("playground")
        await page.until("document.querySelector('.options select').value === 'tiny'")
        await page.js("document.querySelector('#draft').focus()")
        await page.type("Tell me of <b>water</b> & rivers")
        await page.press("Enter")
        await page.sees("tokens/s")
        # It is text, whatever it says.
        assert await page.js("document.querySelector('.turn.user b')") is None
        assert await page.text(".turn.assistant .text")

        await page.js(
            "(() => { const box = document.querySelector('input[type=number]');"
            " box.value = 3500; box.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )
        await page.js("document.querySelector('#draft').focus()")
        await page.type("And now at length")
        await page.click(".say .primary")
        await page.until(
            "document.querySelectorAll('.turn.assistant')[1]?.querySelector('.text').innerText.length > 20"
        )
        await page.click(".say .danger")
        await page.sees("Stopped; its job was cancelled.")

        while True:
            jobs = (await there.http.get("/v1/jobs")).json()["data"]
            if sorted(job["status"] for job in jobs) == ["cancelled", "completed"]:
                break
            await asyncio.sleep(0.1)
        assert page.errors == []

    told(own_nats.url, tmp_path, story)


def test_a_dropped_file_goes_to_files_and_then_to_batches(own_nats: NatsServer, tmp_path: Path) -> None:
    """Against the contract of these two routes, answered here in the gateway's place."""
    good, bad = tmp_path / "requests.jsonl", tmp_path / "notes.jsonl"
    good.write_text(LINE)
    bad.write_text("dear diary\n")

    async def story(there: House) -> None:
        page = await there.open()
        asked: list[dict[str, Any]] = []
        batch = {
            "id": "batch_1",
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "status": "in_progress",
            "created_at": 1,
            "request_counts": {"total": 4, "completed": 2, "failed": 1},
            "output_file_id": "file-out",
        }
        answers = {
            "GET /v1/batches": {"object": "list", "data": [batch], "has_more": False},
            "POST /v1/files": {"id": "file-1", "object": "file"},
            "POST /v1/batches": batch,
            "POST /v1/batches/batch_1/cancel": {**batch, "status": "cancelling"},
        }
        async with page.answering(answers, asked):
            await page.drop(bad)
            await page.sees("its first line is no JSON")
            await page.drop(good)
            await page.sees("is batch batch_1.")
            await page.sees("3 of 4")
            assert (
                await page.js("document.querySelector('a[download]').getAttribute('href')")
                == "/v1/files/file-out/content"
            )

            await page.click("[aria-label='Cancel batch batch_1']")
            await page.sees("Really cancel?")
            await page.click(".batches .danger")
            await page.sees("Batch batch_1 is cancelling.")

        posts = [one for one in asked if one["method"] == "POST"]
        assert [one["path"] for one in posts] == ["/v1/files", "/v1/batches", "/v1/batches/batch_1/cancel"]
        assert posts[0]["headers"]["Content-Type"].startswith("multipart/form-data")
        wanted = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        assert json.loads(posts[1]["body"]) == wanted
        assert page.errors == []

    told(own_nats.url, tmp_path, story)


def test_a_dropped_file_becomes_a_batch_whose_output_can_be_read(own_nats: NatsServer, tmp_path: Path) -> None:
    lines = tmp_path / "rows.jsonl"
    body = {**LONG, "max_tokens": 5}
    row = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    lines.write_text("".join(json.dumps({"custom_id": f"r{number}", **row}) + "\n" for number in range(6)))

    async def story(there: House) -> None:
        if (await there.http.get("/v1/batches")).status_code == 404:
            pytest.skip("this gateway has no files and batches")
        page = await there.open()
        await page.sees("blocks free")
        await page.drop(lines)
        await page.sees("6 of 6")
        await page.sees("completed")
        path = await page.until("document.querySelector('a[download]')?.getAttribute('href')")
        output = (await there.http.get(path)).text
        assert sorted(json.loads(line)["custom_id"] for line in output.splitlines()) == [f"r{n}" for n in range(6)]
        assert page.errors == []
        assert is_ours(page, there)

    told(own_nats.url, tmp_path, story)


def test_everything_can_be_reached_and_done_with_the_keyboard(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story(there: House) -> None:
        await there.job(custom_id="runs")
        page = await there.open("jobs")
        await page.sees("runs")
        reached: list[str] = []
        for _ in range(14):
            await page.press("Tab")
            reached.append(await page.js("document.activeElement.innerText.trim() || document.activeElement.tagName"))
            outline = await page.js("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid", reached
            if reached[-1] == "Cancel":
                break

        assert [word.split()[0] for word in reached] == [
            *("Skip", "penstock", "Overview", "Jobs", "Batches", "Playground", "Scaler"),
            *("All", "Running", "Waiting", "Ended", "runs", "Cancel"),
        ]
        await page.press("Enter")
        await page.sees("is cancelled.")

        await page.js("document.activeElement.blur()")
        await page.goto(f"{there.gateway.url}/#/playground")
        await page.call("Page.reload")
        await page.until("document.querySelector('#draft')")
        await page.press("Tab")
        await page.press("Enter")
        assert await page.js("document.activeElement.id") == "main"

    told(own_nats.url, tmp_path, story)


def test_with_keys_the_page_asks_for_one_keeps_it_in_the_tab_and_sees_its_tenant_only(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story(there: House) -> None:
        ann, bob = [(await keys(own_nats.url, "create", "--tenant", name))[0] for name in ("ann", "bob")]
        secret = {"authorization": f"Bearer {bob['key']}"}
        job = {"body": LONG, "not_before": "1d", "custom_id": "secret-of-bob"}
        assert (await there.http.post("/v1/jobs", json=job, headers=secret)).status_code == 202

        page = await there.browser.page()
        # Drawn late: the refusal comes before anybody listens for it.
        slow = "window.requestAnimationFrame = (draw) => setTimeout(draw, 500);"
        await page.call("Page.addScriptToEvaluateOnNewDocument", source=slow)
        await page.goto(f"{there.gateway.url}/#/overview")
        await page.sees("This gateway asks for a key")
        await page.click(".ask-key input")
        await page.type("sk-ps-wrong")
        await page.press("Enter")
        await page.sees("not known here")
        await page.click(".ask-key input")
        await page.js("document.querySelector('.ask-key input').select()")
        await page.type(ann["key"])
        await page.press("Enter")
        await page.sees("blocks free")
        assert await page.text(".tenant") == "ann"
        await page.until("document.querySelector('.figures').innerText.includes('until their time')")
        assert not await page.js("document.body.innerText.includes('bob')")
        assert await page.js("JSON.stringify(localStorage)") == "{}"
        assert ann["key"] not in await page.js("location.href")

        await keys(own_nats.url, "revoke", ann["id"])
        await page.sees("This API key was revoked")

    told(own_nats.url, tmp_path, story, "--gateway.api_keys", "true")


def test_a_gateway_that_goes_away_is_said_and_one_that_comes_back_is_found(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story(there: House) -> None:
        page = await there.open()
        await page.sees("live")
        port = there.gateway.port
        await there.gateway.kill()
        await page.sees("What you see is old.")

        async with GatewayProcess(own_nats.url, tmp_path, "--gateway.port", str(port)):
            await page.sees("live")
            await page.until("!document.body.innerText.includes('What you see is old.')")

    told(own_nats.url, tmp_path, story)
