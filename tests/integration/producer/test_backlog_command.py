"""The commands about what waits, with a stand-in for the dispatcher."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from schemas.dispatch import (
    Amount,
    Cancel,
    Cancelled,
    Change,
    ListJobs,
    Promise,
    Quote,
    Snapshot,
    WaitingJob,
    WaitingJobs,
)
from tests.support.broker import TestBroker
from tests.support.echo_consumer import EchoConsumer
from tests.support.stand_in_dispatcher import StandInDispatcher

PENSTOCK = [sys.executable, "-c", "from producer.cli import main; raise SystemExit(main())"]
SOON = 4_000_000_000_000


class Scene:
    """A broker, a pool and a stand-in, in a loop of their own beside the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.dispatcher: StandInDispatcher
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._live()))

    def open(self) -> None:
        self._thread.start()
        assert self._ready.wait(20)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._loop.close()

    def dispatcher_dies(self) -> None:
        asyncio.run_coroutine_threadsafe(self.dispatcher.broker.close(), self._loop).result(10)

    def penstock(self, *words: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK__")}
        environment = {**kept, "XDG_DATA_HOME": str(self.folder), "PENSTOCK__BROKER__URL": self.url}
        return subprocess.run(
            [*PENSTOCK, *words],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    async def _live(self) -> None:
        async with TestBroker(self.folder / "nats") as broker:
            async with EchoConsumer(broker.url):
                pass
            async with StandInDispatcher(broker.url) as self.dispatcher:
                self.url = broker.url
                self._ready.set()
                await self._over.wait()


@pytest.fixture
def scene(tmp_path: Path) -> Generator[Scene]:
    made = Scene(tmp_path)
    made.open()
    yield made
    made.close()


def test_submit_tells_when_on_stderr_and_only_the_id_on_stdout(scene: Scene) -> None:
    waiting = WaitingJob(job="mine", tenant="default", lane="bulk", position=12, eta_unix_ms=SOON)
    scene.dispatcher.answers["find"] = lambda _: WaitingJobs(jobs=[waiting] if len(scene.dispatcher.asked) > 1 else [])

    plain = scene.penstock("submit", "hello", "--lane", "bulk", "--id", "mine")

    assert plain.stdout == "mine\n"
    assert "12 before it" in plain.stderr
    assert "2096-10-02" in plain.stderr


def test_submit_with_a_deadline_tells_the_promise_as_json_and_a_refusal_is_exit_2(scene: Scene) -> None:
    scene.dispatcher.answers["quote"] = lambda _: Promise(eta_unix_ms=SOON, latest_unix_ms=SOON + 9, position=3)
    taken = scene.penstock("submit", "hello", "--deadline", "1h", "--batch", "b", "--json")
    scene.dispatcher.answers["quote"] = lambda _: Promise(is_accepted=False, earliest_unix_ms=SOON)
    refused = scene.penstock("submit", "hello", "--deadline", "1h", "--json")
    anyway = scene.penstock("submit", "hello", "--deadline", "1h", "--best-effort")

    promise = json.loads(taken.stdout)["promise"]
    assert (promise["eta_unix_ms"], promise["position"]) == (SOON, 3)
    assert (refused.returncode, json.loads(refused.stdout)["error"]["code"]) == (2, "deadline_impossible")
    assert "2096-10-02" in refused.stderr
    assert anyway.returncode == 0


def test_the_list_has_place_time_and_reason_and_says_what_the_pool_has_before_it(scene: Scene) -> None:
    jobs = [
        WaitingJob(job="a", tenant="default", lane="bulk", position=1, eta_unix_ms=SOON),
        WaitingJob(job="b", tenant="default", lane="bulk", state="held", why_held="tenant default is paused"),
    ]
    scene.dispatcher.answers["list"] = lambda _: WaitingJobs(jobs=jobs)
    scene.dispatcher.answers["look"] = lambda _: Snapshot(
        pool="default", dispatcher="d", unix_ms=1, lanes={"bulk": Amount(jobs=1500, prompt_tokens=9000)}, paused=["*"]
    )

    listed = scene.penstock("jobs", "--all-tenants")

    assert "POS" in listed.stdout
    assert "ETA" in listed.stdout
    assert "tenant default is paused" in listed.stdout
    assert "1,500 jobs wait with about 9,000 tokens" in listed.stderr
    assert "paused: the pool" in listed.stderr
    assert scene.dispatcher.questions(ListJobs)[0].tenant == "*"


def test_jobs_that_wait_for_nobody_are_pointed_out(scene: Scene) -> None:
    scene.dispatcher_dies()
    submitted = scene.penstock("submit", "hello")
    assert submitted.returncode == 0
    assert "penstock dispatcher" in submitted.stderr

    listed = scene.penstock("jobs")

    assert "1 job waits" in listed.stderr
    assert "start one: penstock dispatcher" in listed.stderr
    paused = scene.penstock("pause")
    assert (paused.returncode, "penstock dispatcher" in paused.stderr) == (3, True)


def test_pause_resume_weights_and_cancels_are_questions_to_the_dispatcher(scene: Scene) -> None:
    scene.dispatcher.answers["change"] = lambda _: {}
    scene.dispatcher.answers["cancel"] = lambda _: Cancelled(jobs=7)
    scene.dispatcher.answers["look"] = lambda _: Snapshot(
        pool="default", dispatcher="d", unix_ms=1, tenants={"a": Amount(jobs=3, prompt_tokens=5)}, tenants_total=1
    )

    said = [
        scene.penstock(*words.split())
        for words in (
            "pause --tenant t",
            "resume --batch b",
            "pause",
            "tenants --weight a=3 --weight b=0.5",
            "cancel --batch night",
            "cancel --all --tenant t",
        )
    ]

    assert [one.returncode for one in said] == [0] * 6
    assert scene.dispatcher.questions(Change) == [
        Change(pause_tenants=["t"]),
        Change(resume_batches=["b"]),
        Change(pause_pool=True),
        Change(weights={"a": 3, "b": 0.5}),
    ]
    rows: list[Any] = [row.split() for row in said[3].stdout.splitlines()]
    assert rows[1][:4] == ["a", "3", "3", "5"]
    assert rows[2][:2] == ["b", "0.5"]
    assert [(one.tenant, one.batch) for one in scene.dispatcher.questions(Cancel)] == [("default", "night"), ("t", "")]
    assert "7 jobs cancelled" in said[4].stdout


def test_a_file_that_cannot_be_done_in_time_is_refused_before_its_first_line(scene: Scene) -> None:
    scene.dispatcher.answers["quote"] = lambda _: Promise(is_accepted=False, earliest_unix_ms=SOON)
    body = {"messages": [{"role": "user", "content": "x" * 400}], "max_tokens": 7}
    lines = [{"custom_id": f"{n}", "method": "POST", "url": "/v1/chat/completions", "body": body} for n in range(20)]
    (scene.folder / "in.jsonl").write_text("\n".join(json.dumps(line) for line in lines))

    ran = scene.penstock("run-batch", "-i", "in.jsonl", "-o", "out.jsonl", "--deadline", "1h", "--json")

    (quote,) = scene.dispatcher.questions(Quote)
    assert (ran.returncode, json.loads(ran.stdout)["error"]["code"]) == (2, "deadline_impossible")
    assert (quote.jobs, quote.output_tokens_max, quote.is_firm, quote.lane) == (20, 140, True, "bulk")
    assert not (scene.folder / "out.jsonl.penstock").exists()


STRANGER = """
import asyncio, json, sys
import nats

async def main(url):
    nc = await nats.connect(url)
    js = nc.jetstream()
    job = "a7c1"
    payload = {"id": job, "body": {"messages": [{"role": "user", "content": "hello"}]}}
    headers = {
        "Nats-Msg-Id": job, "Penstock-Job": job, "Penstock-Version": "1",
        "Penstock-Ticket": "1,250,64,,,9c1f03aa52d07be1,,nightly,",
    }
    ack = await js.publish("penstock.backlog.default.bulk.stranger", json.dumps(payload).encode(), headers=headers)

    async def ask(question):
        reply = await nc.request("penstock.control.default.dispatch", json.dumps(question).encode(), timeout=5)
        return json.loads(reply.data)

    found = await ask({"ask": "find", "tenant": "stranger", "jobs": [job]})
    quote = await ask({"ask": "quote", "tenant": "stranger", "lane": "standard", "jobs": 20, "prompt_tokens": 5000,
                       "output_tokens_max": 1280, "deadline_unix_ms": 1, "is_firm": True})
    print(json.dumps({"stream": ack.stream, "found": found, "quote": quote}))
    await nc.close()

asyncio.run(main(sys.argv[1]))
"""


def test_a_plain_nats_client_submits_a_job_that_waits_and_asks_when(scene: Scene) -> None:
    scene.dispatcher.answers["quote"] = lambda _: Promise(is_accepted=False, earliest_unix_ms=SOON)
    scene.dispatcher.answers["find"] = lambda question: WaitingJobs(
        jobs=[WaitingJob(job=question.jobs[0], tenant=question.tenant, lane="bulk", eta_unix_ms=SOON)]
    )
    script = scene.folder / "stranger.py"
    script.write_text(STRANGER)

    ran = subprocess.run(
        [sys.executable, "-P", str(script), scene.url], capture_output=True, text=True, check=False, timeout=60
    )

    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert said["stream"] == "PENSTOCK_BACKLOG_default"
    assert (said["found"]["jobs"][0]["job"], said["found"]["jobs"][0]["eta_unix_ms"]) == ("a7c1", SOON)
    assert said["quote"] == {"is_accepted": False, "earliest_unix_ms": SOON}
    assert scene.dispatcher.questions(Quote)[0].output_tokens_max == 1280
    scene.dispatcher_dies()
    cancelled = scene.penstock("cancel", "a7c1", "--tenant", "stranger")
    assert cancelled.stdout == "a7c1 cancelled\n", cancelled.stderr
