"""`penstock bench NAME …`: hands over to `producer/bench/<name>.py`."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec

from producer.cli.terminal import say
from schemas.errors import ConfigError

# Each module has `main(arguments: list[str]) -> int`.
BENCHES = {
    "admission": ("producer.bench.admission", "who is let into the engine: our forecast, fixed concurrency and others"),
    "parity": ("producer.bench.parity", "`vllm run-batch` and `penstock run-batch` give the same tokens"),
    "prefixes": ("producer.bench.prefixes", "jobs with the same beginning, put side by side by the dispatcher"),
    "tail": ("producer.bench.tail", "consumers of different speed share the end of a backlog"),
    "streaming": ("producer.bench.streaming", "what NATS adds to tokens that an engine streams"),
    "submit": ("producer.bench.submit", "a million jobs from one process, every one on disk"),
    "throughput": ("producer.bench.throughput", "offline vLLM, `vllm serve` and penstock on the same requests"),
}


# Benches of the scaler's own: `python -m scaler.bench NAME`, which this process becomes, because siblings do not import
# each other.
PASSED_ON = {
    "deadlines": ("scaler.bench", "a simulated day of deadlines: what is missed, and what was refused for good reason"),
    "fairness": ("scaler.bench", "a million jobs of ten thousand tenants, served by their weights"),
}


def bench(arguments: list[str]) -> int:
    passed_on = {name: one for name, one in PASSED_ON.items() if find_spec(one[0]) is not None}
    if not arguments or arguments[0] in {"-h", "--help"}:
        say("usage: penstock bench NAME [arguments]\n")
        for name, (_, what) in sorted({**BENCHES, **passed_on}.items()):
            say(f"  {name:<14}{what}")
        return 0
    name = arguments[0]
    if name in passed_on:
        program = [sys.executable, "-P", "-m", passed_on[name][0], *arguments]
        os.execv(sys.executable, program)  # noqa: S606 - no shell is the point
    if name not in BENCHES:
        raise ConfigError(f"no bench {name!r}: there is {', '.join(sorted({**BENCHES, **passed_on}))}", param="NAME")
    try:
        module = import_module(BENCHES[name][0])
    except ModuleNotFoundError as error:
        raise ConfigError(f"bench {name} is not installed: {error}") from error
    code: int = module.main(arguments[1:])
    return code
