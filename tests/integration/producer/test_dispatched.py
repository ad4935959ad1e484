"""The command line with the real dispatcher and the simulated engine: what waits is ordered, held, told, cancelled."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.producer.test_command import SIMULATED, penstock, ready, started, until


def listed(folder: Path) -> dict[str, Any]:
    return json.loads(penstock(folder, "jobs", "--json").stdout)


def states(folder: Path) -> dict[str, str]:
    return {job["job"]: job["state"] for job in listed(folder)["jobs"]}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[Path, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("up")
    with started(folder, "up", "--json", *SIMULATED) as process:
        yield folder, ready(process)


def test_work_of_every_lane_is_served_and_up_tells_who_orders_it(up: tuple[Path, dict[str, Any]]) -> None:
    folder, said = up

    for lane in ("interactive", "standard", "bulk"):
        done = penstock(folder, "submit", "hello", "--max-tokens", "3", "--lane", lane, "--wait", "--timeout", "30s")
        assert done.returncode == 0, done.stderr

    assert said["dispatcher_pid"] > 0
    assert listed(folder)["pools"][0]["dispatcher"]


def test_a_paused_tenants_jobs_are_held_and_go_on_when_it_is_resumed(up: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = up
    assert penstock(folder, "pause", "--tenant", "default").returncode == 0
    submitted = penstock(folder, "submit", "hello", "--max-tokens", "3", "--id", "held-1", "--lane", "bulk")
    assert "paused" in submitted.stderr
    until(lambda: states(folder).get("held-1") == "held")
    (held,) = [job for job in listed(folder)["jobs"] if job["job"] == "held-1"]
    assert "paused" in held["why_held"]

    assert penstock(folder, "resume", "--tenant", "default").returncode == 0

    assert penstock(folder, "result", "held-1", "--wait", "--timeout", "30s").returncode == 0


def test_a_job_for_later_waits_and_is_cancelled_with_its_batch(up: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = up
    for number in range(3):
        words = ("--not-before", "1h", "--batch", "later", "--id", f"later-{number}")
        assert penstock(folder, "submit", "hello", *words).returncode == 0
    until(lambda: [states(folder).get(f"later-{number}") for number in range(3)] == ["held"] * 3)

    single = penstock(folder, "cancel", "later-0")
    batch = penstock(folder, "cancel", "--batch", "later", "--json")

    assert single.stdout == "later-0 cancelled\n", single.stderr
    assert json.loads(batch.stdout)["cancelled"] == 2
    ended = json.loads(penstock(folder, "result", "later-2", "--wait", "--timeout", "10s", "--json").stdout)
    assert ended["status"] == "cancelled"


def test_weights_are_changed_live_and_shown(up: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = up

    assert penstock(folder, "tenants", "--weight", "research=3").returncode == 0

    assert json.loads(penstock(folder, "tenants", "--json").stdout)["weights"]["research"] == 3


def test_an_unknown_window_is_refused_at_submit(up: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = up

    refused = penstock(folder, "submit", "hello", "--window", "nihgt")

    assert (refused.returncode, "nihgt" in refused.stderr) == (2, True)


def test_a_file_is_run_through_the_backlog(up: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = up
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
    lines = [{"custom_id": f"{n}", "method": "POST", "url": "/v1/chat/completions", "body": body} for n in range(50)]
    (folder / "in.jsonl").write_text("\n".join(json.dumps(line) for line in lines))

    ran = penstock(folder, "run-batch", "-i", "in.jsonl", "-o", "out.jsonl", "--deadline", "1h", "--json")

    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["done"] == 50


def test_a_key_joins_its_job_that_waits(up: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = up
    words = ("submit", "hello", "--key", "k", "--not-before", "1h", "--json")

    first, second = (json.loads(penstock(folder, *words).stdout) for _ in range(2))

    assert first["job"] == second["job"]
    assert (first["duplicate"], second["duplicate"]) == (False, True)
    assert penstock(folder, "cancel", first["job"]).returncode == 0


def test_a_dispatcher_that_is_killed_is_started_again_and_loses_nothing(up: tuple[Path, dict[str, Any]]) -> None:
    folder, said = up
    penstock(folder, "pause")
    penstock(folder, "submit", "hello", "--max-tokens", "3", "--id", "survivor")
    os.kill(said["dispatcher_pid"], signal.SIGKILL)
    until(lambda: penstock(folder, "resume").returncode == 0)

    done = penstock(folder, "result", "survivor", "--wait", "--timeout", "30s")

    assert done.returncode == 0, done.stderr


def test_without_a_dispatcher_jobs_go_straight_to_the_consumers(tmp_path: Path) -> None:
    with started(tmp_path, "up", "--json", "--no-dispatcher", *SIMULATED) as process:
        assert ready(process)["dispatcher_pid"] == 0

        done = penstock(tmp_path, "submit", "hello", "--max-tokens", "3", "--wait", "--timeout", "30s")
        paused = penstock(tmp_path, "pause")

        assert done.returncode == 0, done.stderr
        assert (paused.returncode, "penstock dispatcher" in paused.stderr) == (3, True)


def test_up_serves_openai_and_the_page_and_a_gateway_that_is_killed_comes_back_where_it_was(
    up: tuple[Path, dict[str, Any]],
) -> None:
    _, said = up
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}

    with httpx.Client(base_url=said["gateway_url"], timeout=30) as http:
        assert http.post("/v1/chat/completions", json=body).json()["choices"]
        assert "penstock" in http.get("/").text

    os.kill(said["gateway_pid"], signal.SIGKILL)
    # The socket is `up`'s: who calls meanwhile waits, and is not turned away.
    with httpx.Client(base_url=said["gateway_url"], timeout=30) as http:
        assert http.get("/livez").status_code == 200


def test_up_takes_another_port_where_its_own_is_taken_and_says_so(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        words = ("--no-consumer", "--no-dispatcher", "--gateway.port", port)

        with started(tmp_path, "up", "--json", *words) as process:
            said = ready(process)

            assert not said["gateway_url"].endswith(f":{port}")
            assert httpx.get(f"{said['gateway_url']}/livez").status_code == 200
            assert f"port {port} is taken" in (tmp_path / "stderr.log").read_text()


def test_up_without_a_gateway_says_that_there_is_none(tmp_path: Path) -> None:
    with started(tmp_path, "up", "--json", "--no-consumer", "--no-dispatcher", "--no-gateway") as process:
        said = ready(process)

    assert (said["gateway_url"], said["gateway_pid"]) == ("", 0)
