from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SIMULATED = ["--engine.kind", "simulated"]
PENSTOCK = [sys.executable, "-c", "from producer.cli import main; raise SystemExit(main())"]


def environment(tmp_path: Path) -> dict[str, str]:
    ours = os.environ
    kept = {name: value for name, value in ours.items() if not name.startswith("PENSTOCK__")}
    return {**kept, "XDG_DATA_HOME": str(tmp_path / "data"), "PENSTOCK__CONSUMER__GRACE_S": "1"}


def penstock(tmp_path: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PENSTOCK, *words],
        cwd=tmp_path,
        env=environment(tmp_path),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def started(tmp_path: Path, *words: str) -> Generator[subprocess.Popen[str]]:
    log = (tmp_path / "stderr.log").open("w")
    process = subprocess.Popen(
        [*PENSTOCK, *words], cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=log, text=True
    )
    try:
        yield process
    finally:
        log.close()
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        assert process.stdout is not None
        process.stdout.close()


def ready(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def until(claim: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)


def processes_using(path: Path) -> list[str]:
    """Command lines of processes whose environment or arguments name `path`."""
    found: list[str] = []
    for folder in Path("/proc").glob("[0-9]*"):
        if folder.name == str(os.getpid()):
            continue
        try:
            text = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if str(path).encode() in text and state != "Z":
            found.append((folder / "cmdline").read_text().replace("\0", " "))
    return found


def requests(path: Path, count: int, *, tokens: int = 8, bad: bool = False) -> None:
    with path.open("w") as handle:
        for number in range(count):
            body = {"prompt": f"line {number}", "max_tokens": tokens, "min_tokens": tokens, "ignore_eos": True}
            handle.write(json.dumps({"custom_id": f"c{number}", "url": "/v1/completions", "body": body}) + "\n")
        if bad:
            handle.write('{"custom_id": "cut off\n')


def custom_ids(path: Path) -> list[str]:
    return [json.loads(line)["custom_id"] for line in path.read_text().splitlines()]


def test_up_serves_every_command_and_leaves_nothing_running(tmp_path: Path) -> None:
    with started(tmp_path, "up", *SIMULATED, "--json") as up:
        assert ready(up)["ready"]
        waited = penstock(tmp_path, "submit", "hello", "--max-tokens", "5", "--wait")
        assert (waited.returncode, bool(waited.stdout.strip())) == (0, True)
        told = penstock(tmp_path, "submit", "hello", "--max-tokens", "5", "--id", "mine", "--json")
        assert json.loads(told.stdout)["job"] == "mine"
        stored = json.loads(penstock(tmp_path, "result", "mine", "--wait", "--json").stdout)
        assert stored["status"] == "completed"
        again = penstock(tmp_path, "submit", "hello", "--id", "mine")
        assert (again.returncode, "used before" in again.stderr) == (2, True)
        streamed = penstock(tmp_path, "stream", "--body", "-", "--json", stdin='{"messages": [], "max_tokens": 3}')
        assert streamed.returncode in {0, 1}
        late = penstock(tmp_path, "stream", "--job", "mine")
        assert (late.returncode, bool(late.stdout.strip())) == (0, True)
        assert penstock(tmp_path, "result", "nobody").returncode == 4
        assert penstock(tmp_path, "submit", "x", "--pool", "nowhere").returncode == 2
        assert penstock(tmp_path, "cancel", "mine").stdout == "mine completed\n"
        listed = json.loads(penstock(tmp_path, "jobs", "--json").stdout)
        assert {job["state"] for job in listed["jobs"]} >= {"completed"}
        assert "JOB" in penstock(tmp_path, "jobs").stdout
        requests(tmp_path / "in.jsonl", 20)
        shared = penstock(tmp_path, "run-batch", "-i", "in.jsonl", "-o", "out.jsonl", "--json")
        assert (shared.returncode, json.loads(shared.stdout)["done"]) == (0, 20)
        second = penstock(tmp_path, "up", *SIMULATED)
        assert (second.returncode, second.stderr.count("\n")) == (2, 1)
        up.send_signal(signal.SIGINT)
        assert up.wait(30) == 0
    assert penstock(tmp_path, "jobs").returncode == 3
    assert not processes_using(tmp_path)


def test_nothing_is_left_when_up_itself_is_killed(tmp_path: Path) -> None:
    with started(tmp_path, "up", *SIMULATED, "--json") as up:
        ready(up)
        up.kill()
        up.wait()
        until(lambda: not processes_using(tmp_path))


def test_up_with_scale_starts_a_consumer_for_the_first_job_and_leaves_nothing_running(tmp_path: Path) -> None:
    with started(tmp_path, "up", "--scale", "--max", "1", *SIMULATED, "--json") as up:
        told = ready(up)
        assert (told["consumer_pids"], bool(told["scaler_pid"])) == ([], True)
        until(lambda: "scaler.leads" in (tmp_path / "stderr.log").read_text())
        waited = penstock(tmp_path, "submit", "hello", "--max-tokens", "5", "--wait", "--timeout", "50s")
        assert (waited.returncode, bool(waited.stdout.strip())) == (0, True), waited.stderr
        assert "So " in penstock(tmp_path, "explain").stdout
        up.send_signal(signal.SIGINT)
        assert up.wait(30) == 0
    assert not processes_using(tmp_path)


def test_no_consumer_of_a_scaler_is_left_when_up_itself_is_killed(tmp_path: Path) -> None:
    with started(tmp_path, "up", "--scale", "--max", "2", *SIMULATED, "--json") as up:
        ready(up)
        until(lambda: "scaler.leads" in (tmp_path / "stderr.log").read_text())
        assert penstock(tmp_path, "scale", "2").returncode == 0
        until(lambda: (tmp_path / "stderr.log").read_text().count("replica.started") == 2)
        up.kill()
        up.wait()
        until(lambda: not processes_using(tmp_path), 30)


def test_a_consumer_that_dies_is_started_again(tmp_path: Path) -> None:
    with started(tmp_path, "up", *SIMULATED, "--json") as up:
        (pid,) = ready(up)["consumer_pids"]
        os.kill(pid, signal.SIGKILL)
        done = penstock(tmp_path, "submit", "hello", "--max-tokens", "3", "--wait", "--timeout", "30s")
        assert done.returncode == 0
        assert "signal 9" in (tmp_path / "stderr.log").read_text()


def test_a_wrong_engine_argument_ends_up_with_the_consumers_own_words(tmp_path: Path) -> None:
    done = penstock(tmp_path, "up", *SIMULATED, "--engine.blokcs", "4")

    assert done.returncode == 2
    assert re.search(r"^penstock: engine\.blokcs.*did you mean engine\.blocks", done.stderr, re.MULTILINE)
    assert not processes_using(tmp_path)


def test_run_batch_brings_its_own_broker_and_takes_it_away_again(tmp_path: Path) -> None:
    requests(tmp_path / "in.jsonl", 30, bad=True)

    done = penstock(tmp_path, "run-batch", "-i", "in.jsonl", "-o", "out.jsonl", "--json", "--stream", *SIMULATED)

    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["done"], summary["failed_by_reason"]) == (30, {"invalid_json_line": 1})
    assert summary["itl_ms"]["p50"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]
    assert not processes_using(tmp_path)
    again = penstock(tmp_path, "run-batch", "-i", "in.jsonl", "-o", "out.jsonl", *SIMULATED)
    assert (again.returncode, "already" in again.stderr) == (0, True)
    requests(tmp_path / "other.jsonl", 5)
    foreign = penstock(tmp_path, "run-batch", "-i", "other.jsonl", "-o", "out.jsonl", *SIMULATED)
    assert (foreign.returncode, "--overwrite" in foreign.stderr) == (2, True)


@pytest.mark.chaos
def test_run_batch_goes_on_after_kill_9_and_repeats_nothing(tmp_path: Path) -> None:
    requests(tmp_path / "in.jsonl", 400, tokens=30)
    slow = [*SIMULATED, "--engine.step_s", "0.02", "--concurrency", "32"]
    words = ["run-batch", "-i", "in.jsonl", "-o", "out.jsonl", "--json", *slow]
    output = tmp_path / "out.jsonl"
    for _ in range(2):
        before = len(output.read_bytes().splitlines()) if output.exists() else 0
        with started(tmp_path, *words) as run:
            until(lambda before=before: output.exists() and output.read_bytes().count(b"\n") >= before + 70, 40)
            run.kill()
            run.wait()
        until(lambda: not processes_using(tmp_path))
        with output.open("ab") as handle:
            handle.write(b'{"id": "torn')
    changed = penstock(tmp_path, "run-batch", "-i", "in.jsonl", "-o", "in.jsonl")
    assert changed.returncode == 2

    done = penstock(tmp_path, *words)

    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["done"] + summary["skipped"] == 400
    assert summary["skipped"] >= 140
    assert sorted(custom_ids(output)) == sorted(f"c{number}" for number in range(400))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "stderr.log") == ["in.jsonl", "out.jsonl"]


def test_an_input_that_changed_under_an_unfinished_run_is_noticed(tmp_path: Path) -> None:
    requests(tmp_path / "in.jsonl", 200, tokens=100)
    words = ["run-batch", "-i", "in.jsonl", "-o", "out.jsonl", *SIMULATED, "--engine.step_s", "0.02"]
    with started(tmp_path, *words) as run:
        until(lambda: (tmp_path / "out.jsonl.penstock").exists())
        run.kill()
        run.wait()
    requests(tmp_path / "in.jsonl", 5)

    done = penstock(tmp_path, *words)

    assert (done.returncode, "restore it" in done.stderr) == (2, True)
    over = penstock(tmp_path, *words, "--overwrite")
    assert over.returncode == 0, over.stderr
    assert len(custom_ids(tmp_path / "out.jsonl")) == 5


def test_ctrl_c_on_a_watched_answer_cancels_its_job(tmp_path: Path) -> None:
    with started(tmp_path, "up", *SIMULATED, "--engine.step_s", "0.05", "--json") as up:
        ready(up)
        body = '{"prompt": "x", "max_tokens": 2000, "ignore_eos": true}'
        (tmp_path / "body.json").write_text(body)
        words = ["stream", "--body", "body.json", "--endpoint", "completions", "--id", "watched"]
        with started(tmp_path, *words) as stream:
            assert stream.stdout is not None
            assert stream.stdout.read(1)
            stream.send_signal(signal.SIGINT)
            assert stream.wait(20) == 130
        stored = json.loads(penstock(tmp_path, "result", "watched", "--json").stdout)
        assert stored["status"] == "cancelled"


def test_a_broker_that_never_saw_a_consumer_is_no_mystery(tmp_path: Path) -> None:
    with started(tmp_path, "up", "--no-consumer", "--json") as up:
        ready(up)
        submitted = penstock(tmp_path, "submit", "x")
        assert (submitted.returncode, "known: none yet" in submitted.stderr) == (2, True)
        assert penstock(tmp_path, "jobs").returncode == 0
        assert penstock(tmp_path, "result", "x").returncode == 4
        cancelled = penstock(tmp_path, "cancel", "x")
        assert (cancelled.returncode, "no job x" in cancelled.stderr) == (2, True)
