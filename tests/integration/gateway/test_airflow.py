"""Airflow's own OpenAI provider against the gateway, where an Airflow is installed.

Its dependencies are too many for our locks, so it lives apart, and PENSTOCK_AIRFLOW_PYTHON says where:
`uv venv /tmp/airflow && VIRTUAL_ENV=/tmp/airflow uv pip install apache-airflow-providers-openai==2.2.0`.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.consumer import ROOT
from tests.support.gateway import GatewayProcess

PYTHON = os.environ.get("PENSTOCK_AIRFLOW_PYTHON", "")


@pytest.mark.skipif(not PYTHON, reason="PENSTOCK_AIRFLOW_PYTHON names no Airflow")
def test_airflows_batch_operator_runs_unmodified_waiting_and_deferred(shared: tuple[str, Path], tmp_path: Path) -> None:
    async def story() -> None:
        async with GatewayProcess(*shared) as gateway:
            connection = {"conn_type": "openai", "host": f"{gateway.url}/v1", "password": "none"}
            done = await asyncio.to_thread(
                subprocess.run,
                [PYTHON, str(ROOT / "tests/support/airflow_story.py")],
                env={
                    "PATH": os.environ["PATH"],
                    "AIRFLOW_HOME": str(tmp_path),
                    "AIRFLOW_CONN_OPENAI_DEFAULT": json.dumps(connection),
                },
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 0, done.stderr[-4000:]
            told = json.loads(done.stdout.splitlines()[-1])

        assert told["connection"] is True
        assert (told["waited"], told["deferred"]) == ("completed", "success")
        assert told["ids"] == sorted(f"c{number}" for number in range(20))
        assert told["embedding"] > 0
        assert told["response"]

    asyncio.run(story())
