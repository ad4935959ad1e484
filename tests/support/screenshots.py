"""Pictures of the page for docs/: `python -m tests.support.screenshots http://127.0.0.1:8000 docs/screenshots`.

What the gateway there has to show is the caller's affair.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.support.chromium import Chromium, Page

DESK = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


async def main(url: str, folder: Path) -> None:
    async with Chromium() as browser:
        for name, view, look in (
            ("overview-light", "overview", DESK),
            ("overview-dark", "overview", {**DESK, "is_dark": True}),
            ("overview-phone", "overview", PHONE),
            ("batches-light", "batches", {**DESK, "height": 560}),
            ("scaler-dark", "scaler", {**DESK, "height": 720, "is_dark": True}),
            ("playground-dark-phone", "playground", {**PHONE, "is_dark": True}),
        ):
            page = await browser.page(f"{url}/#/{view}", **look)
            await page.sees("live")
            if view == "playground":
                await chat(page)
            # For the panels that ask for themselves.
            await asyncio.sleep(2)
            await page.screenshot(folder / f"{name}.png")
            await page.close()


async def chat(page: Page) -> None:
    await page.until("document.querySelector('.options select').value")
    await page.js("document.querySelector('#draft').focus()")
    await page.type("Why does the queue stand in front of the GPUs?")
    await page.press("Enter")
    await page.sees("tokens/s ")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1].rstrip("/"), Path(sys.argv[2])))
