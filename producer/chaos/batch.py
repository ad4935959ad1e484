"""`penstock chaos batch`: one batch through a gateway, a consumer and a dispatcher that are killed all the time.

Everything real but the engine. At the end every custom_id must stand once in the output or the error file, and the
gateway must never have held more memory than a small process may.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from infra.embedded import EmbeddedServer
from producer.bench.report import Report, bar, show, this_machine
from producer.chaos.api import Api
from producer.chaos.victims import Victim
from producer.cli.terminal import note
from producer.local.children import CONSUMER, DISPATCHER, Program

_GATEWAY = Program(("producer.gateway", "--with-parent"), "gateway.ready")
# So that a death is noticed in a second or two; with the defaults a run would mostly wait.
_FAST: dict[str, list[str]] = {
    "gateway": ["--gateway.batch_lease_s", "1.5"],
    "dispatcher": ["--dispatcher.lease_s", "1.5"],
    "consumer": [
        *("--consumer.ack_wait_s", "4", "--consumer.heartbeat_s", "1", "--consumer.attempts_max", "1000"),
        *("--consumer.attempts_shared", "1000", "--engine.kind", "simulated", "--engine.step_s", "0.002"),
        *("--engine.sequences_max", "512", "--engine.blocks", "40000"),
    ],
}
_ENDED = ("completed", "failed", "expired", "cancelled")
_LOOK_S = 0.05
_LIMIT_S = 1800.0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="penstock chaos batch", description=__doc__)
    parser.add_argument("--lines", type=int, default=2000, metavar="N")
    parser.add_argument("--kills", type=int, default=6, metavar="N", help="of gateway, consumer and dispatcher, in all")
    parser.add_argument("--seed", type=int, default=None, metavar="N", help="repeats the moments of an earlier run")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(10**6) if asked.seed is None else asked.seed
    report = uvloop.run(_bounded(asked.lines, asked.kills, seed))
    show(report, as_json=asked.json)
    is_whole = all(report.bars[name].value == 0 for name in ("lost", "doubled", "strange"))
    if not is_whole:
        note(f"repeat it with --seed {seed}")
    return 0 if is_whole else 1


async def _bounded(lines: int, kills: int, seed: int) -> Report:
    async with asyncio.timeout(_LIMIT_S):
        with tempfile.TemporaryDirectory(prefix="penstock-chaos-") as folder:
            return await _run(Path(folder), lines, kills, random.Random(seed), seed)  # noqa: S311 - to be repeated


async def _run(folder: Path, lines: int, kills: int, rng: random.Random, seed: int) -> Report:
    source = folder / "in.jsonl"
    _write_input(source, lines)
    port = _free_port()
    server = EmbeddedServer(folder / "broker")
    url = await server.start()
    try:
        async with AsyncExitStack() as life:
            # Not only what is needed: whoever runs this may have the interpreter's own settings there.
            environment = {**os.environ, "PENSTOCK__BROKER__URL": url, "PENSTOCK__DATA_DIR": str(folder)}  # noqa: TID251
            programs = {"consumer": CONSUMER, "dispatcher": DISPATCHER, "gateway": _GATEWAY}
            victims: dict[str, Victim] = {}
            for name, program in programs.items():
                own = ["--log.format", "json", *_FAST[name]]
                own += ["--gateway.port", str(port)] if name == "gateway" else []
                victims[name] = await life.enter_async_context(Victim(name, program, own, environment))
            return await _story(Api(port), source, victims, lines, kills, rng, seed)
    finally:
        await server.stop()


async def _story(
    api: Api, source: Path, victims: dict[str, Victim], lines: int, kills: int, rng: random.Random, seed: int
) -> Report:
    loop = asyncio.get_running_loop()
    file_id = await api.upload(source)
    cpu_before = {name: victim.cpu_s for name, victim in victims.items()}
    began = loop.time()
    batch = await api.create(file_id)
    # In the order in which the batch comes to them; each kills when so much of it is done, or when nothing moves.
    moments = sorted(rng.uniform(0.0, 0.95) for _ in range(kills))
    names = [rng.choice(sorted(victims)) for _ in moments]
    for moment, name in zip(moments, names, strict=True):
        await asyncio.sleep(rng.uniform(0.0, 1.0))
        await _reached(api, batch["id"], moment * lines)
        await victims[name].kill()
    while (batch := await api.batch(batch["id"]))["status"] not in _ENDED:
        await asyncio.sleep(_LOOK_S)
    seconds = loop.time() - began
    counted = await _counted(api, batch)
    expected = {_custom_id(number) for number in range(lines)}
    gateway = victims["gateway"]
    bars = {
        "lost": bar([len(expected - counted.keys())], "lines"),
        "doubled": bar([sum(times > 1 for times in counted.values())], "lines"),
        "strange": bar([len(counted.keys() - expected) + (batch["status"] != "completed")], "lines"),
        "gateway_peak_rss_mb": bar([gateway.peak_rss_mb], "MB"),
        "lines_per_s": bar([lines / seconds], "1/s"),
        "gateway_cpu_us_per_line": bar([(gateway.cpu_s - cpu_before["gateway"]) / lines * 1e6], "us"),
    }
    detail: dict[str, Any] = {
        "seed": seed,
        "lines": lines,
        "seconds": round(seconds, 1),
        "kills": {name: victim.kills for name, victim in victims.items()},
        "status": batch["status"],
        "request_counts": batch["request_counts"],
        "errors_logged": {name: victim.warnings[:5] for name, victim in victims.items() if victim.warnings},
        "cpu_s": {name: round(victim.cpu_s - cpu_before[name], 1) for name, victim in victims.items()},
    }
    return Report(bench="chaos-batch", machine=this_machine(), bars=bars, detail=detail)


async def _reached(api: Api, batch_id: str, wanted: float) -> None:
    """Until so many lines are done, or the batch is."""
    while True:
        batch = await api.batch(batch_id)
        counts = batch["request_counts"]
        if counts["completed"] + counts["failed"] >= wanted or batch["status"] in _ENDED:
            return
        await asyncio.sleep(_LOOK_S)


async def _counted(api: Api, batch: dict[str, Any]) -> Counter[str]:
    """How often each custom_id stands in the files."""
    counted: Counter[str] = Counter()
    for name in ("output_file_id", "error_file_id"):
        if batch[name]:
            for line in (await api.content(batch[name])).splitlines():
                counted[msgspec.json.decode(line)["custom_id"]] += 1
    return counted


def _write_input(path: Path, lines: int) -> None:
    """Small answers, and now and then a request that no engine takes."""
    with path.open("wb") as handle:
        for number in range(lines):
            body: dict[str, Any] = {"model": "tiny", "prompt": f"{number} rivers to cross", "max_tokens": 4}
            if number % 100 == 99:
                body["max_tokens"] = -1
            line = {"custom_id": _custom_id(number), "method": "POST", "url": "/v1/completions", "body": body}
            handle.write(msgspec.json.encode(line) + b"\n")


def _custom_id(number: int) -> str:
    return f"line-{number}"


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
