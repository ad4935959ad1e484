"""`penstock bench parity`: does `penstock run-batch` give the tokens that `vllm run-batch` gives?

The same file at temperature 0 through both, and through `vllm run-batch` once more with its lines reversed: where that
differs from itself, the difference is the batch's composition (floating-point sums in another order), not the queue's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvloop

from infra import settings
from producer.bench.report import Report, bar, show, this_machine
from producer.bench.vllm_words import MODULE_RUN_BATCH, engine_words, quiet_environment
from schemas.config import Config
from schemas.errors import EngineFailed

_QUESTIONS = (
    "What is a penstock?",
    "中国四大名著是什么？",
    "Tell me a short story about a mill.",
    "什么是消息队列？",
    "Write a haiku about rivers.",
    "长江有多长？",
    "Give me a river as JSON.",
    "写一首关于水的短诗",
)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="penstock bench parity", description=__doc__)
    parser.add_argument("--lines", type=int, default=120)
    parser.add_argument("--quick", action="store_true", help="24 lines")
    parser.add_argument("--json", action="store_true")
    settings.add_config_options(parser)
    options, extra = parser.parse_known_args(arguments)
    environment = dict(os.environ)  # noqa: TID251 - this is a main()
    cfg = settings.load_config(options.config, extra, environment)
    environment["PENSTOCK__DATA_DIR"] = str(settings.data_dir(cfg, environment))
    report = uvloop.run(measure(cfg, extra, environment, lines=24 if options.quick else options.lines))
    show(report, as_json=options.json)
    return 0


def the_lines(count: int) -> list[dict[str, Any]]:
    """Chat in two languages, short and long answers; half of them far from anything the tiny model knows.

    Chat only: `vllm run-batch` 0.32 takes no completions.
    """
    rng = random.Random(1)  # noqa: S311
    lines: list[dict[str, Any]] = []
    for number in range(count):
        question = _QUESTIONS[number % len(_QUESTIONS)]
        text = question if number % 2 else f"{question} ({rng.randrange(10**6)} {rng.choice('abcdefgh')})"
        messages = [{"role": "user", "content": text}]
        body = {"messages": messages, "temperature": 0, "max_tokens": rng.choice([8, 32, 64, 128])}
        line = {"custom_id": f"line-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        lines.append(line)
    return lines


async def measure(cfg: Config, extra: list[str], environment: dict[str, str], *, lines: int) -> Report:
    wanted = the_lines(lines)
    with tempfile.TemporaryDirectory(prefix="penstock-parity-") as name:
        folder = Path(name)
        straight, reverse = folder / "in.jsonl", folder / "reversed.jsonl"
        _write(straight, wanted)
        _write(reverse, wanted[::-1])
        ours = await _run_ours(straight, folder, extra, environment)
        model = await asyncio.to_thread(_model_of, cfg, environment)
        theirs = await _run_theirs(straight, folder / "vllm.jsonl", model, cfg, environment)
        again = await _run_theirs(reverse, folder / "again.jsonl", model, cfg, environment)
    ids = [str(line["custom_id"]) for line in wanted]
    different = [one for one in ids if ours.get(one) != theirs.get(one)]
    unstable = [one for one in ids if theirs.get(one) != again.get(one)]
    bars = {
        "same_as_vllm": bar([1 - len(different) / len(ids)], "ratio"),
        "vllm_same_as_itself": bar([1 - len(unstable) / len(ids)], "ratio"),
        "unexplained": bar([float(len(set(different) - set(unstable)))], "lines"),
    }
    shown = {
        one: {"penstock": ours.get(one), "vllm": theirs.get(one), "vllm_reversed": again.get(one)}
        for one in different[:10]
    }
    detail: dict[str, Any] = {"lines": lines, "model": cfg.engine.model, "different": shown, "unstable": unstable}
    return Report(bench="parity", machine=this_machine(), bars=bars, detail=detail)


async def _run_ours(batch: Path, folder: Path, extra: list[str], environment: dict[str, str]) -> dict[str, str]:
    output = folder / "penstock.jsonl"
    command = "import sys; from producer.cli import main; sys.exit(main())"
    words = ("-P", "-c", command, "run-batch", "-i", str(batch), "-o", str(output), "--json", *extra)
    await _run(words, environment)
    return _texts(output)


async def _run_theirs(
    batch: Path, output: Path, model: str, cfg: Config, environment: dict[str, str]
) -> dict[str, str]:
    words = ("-m", MODULE_RUN_BATCH, "-i", str(batch), "-o", str(output), *engine_words(model, cfg))
    await _run(words, {**quiet_environment(), **environment})
    return _texts(output)


async def _run(words: tuple[str, ...], environment: dict[str, str]) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *words,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode:
        tail = output.decode(errors="replace").strip().splitlines()[-3:]
        raise EngineFailed(f"{' '.join(words[:3])} ended with {process.returncode}: {' | '.join(tail)}")


def _model_of(cfg: Config, environment: dict[str, str]) -> str:
    """The tiny model's folder: `penstock run-batch` has made it by now."""
    if cfg.engine.model != "tiny":
        return cfg.engine.model
    models = Path(environment["PENSTOCK__DATA_DIR"]) / "models"
    return str(max(models.glob("tiny-*"), key=lambda folder: folder.stat().st_mtime))


def _write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def _texts(path: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        output = json.loads(line)
        body = (output.get("response") or {}).get("body") or {}
        choices = body.get("choices") or [{}]
        answer = (choices[0].get("message") or {}).get("content")
        texts[output["custom_id"]] = json.dumps(output.get("error")) if answer is None else answer
    return texts
