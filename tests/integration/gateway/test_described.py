"""schemathesis over the whole of /openapi.json: whatever is sent, the gateway answers as it says it does.

Every status must be described there, and every error has OpenAI's shape there; so an undescribed answer, a 5xx, or an
error in other words fails here. PENSTOCK_FUZZ=200 asks for so many cases of each operation, and for chains of them.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.support.consumer import ConsumerProcess
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
CASES = os.environ.get("PENSTOCK_FUZZ", "")
PHASES = "coverage,fuzzing,stateful" if CASES else "coverage,fuzzing"
LIMIT_S = 3600.0 if CASES else 600.0


def test_whatever_is_sent_is_answered_as_the_description_has_it(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        url = own_nats.url
        async with (
            ConsumerProcess(url, tmp_path),
            GatewayProcess(url, tmp_path, "--gateway.webhooks.timeout_s", "0.5") as gateway,
        ):
            code, said = await _schemathesis(gateway.url, tmp_path)
            assert code == 0, said
            assert "request.crashed" not in gateway.log

    asyncio.run(story())


async def _schemathesis(url: str, folder: Path) -> tuple[int | None, str]:
    """Its exit status and what it printed."""
    words = (
        *("-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--checks", ",".join(CHECKS), "--seed", "1"),
        *("--max-examples", CASES or "2", "--request-timeout", "20", "--continue-on-failure", "--no-color"),
        *("--phases", PHASES, "--generation-database", "none", "--warnings", "off"),
    )
    # In a folder of its own: it looks for a configuration, and leaves caches behind.
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode, said.decode(errors="replace")[-20_000:]
