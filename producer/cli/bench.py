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
    "interference": ("producer.bench.interference", "bursts of chats beside three batches on the same consumer"),
    "gateway": ("producer.bench.gateway", "what HTTP adds: the OpenAI front door on the simulated engine"),
    "parity": ("producer.bench.parity", "`vllm run-batch` and `penstock run-batch` give the same tokens"),
    "prefixes": ("producer.bench.prefixes", "jobs with the same beginning, put side by side by the dispatcher"),
    "tail": ("producer.bench.tail", "consumers of different speed share the end of a backlog"),
    "streaming": ("producer.bench.streaming", "what NATS adds to tokens that an engine streams"),
    "submit": ("producer.bench.submit", "a million jobs from one process, every one on disk"),
    "throughput": ("producer.bench.throughput", "offline vLLM, `vllm serve` and penstock on the same requests"),
}


# Benches of the scaler's own. `python -m scaler.bench NAME` runs them, and this process becomes it: siblings do not
# import each other.
PASSED_ON = {
    "deadlines": "a simulated day of deadlines: what is missed, and what was refused for good reason",
    "order": "the index of a million waiting jobs: memory, time and shares",
    "wake": "from the first job of an empty pool to its consumer's process",
    "fairness": "a million jobs of ten thousand tenants, served by their weights",
}
_RUNNER = "scaler.bench"


def bench(arguments: list[str]) -> int:
    what_of = {name: what for name, (_, what) in BENCHES.items()}
    if find_spec(f"{_RUNNER}.__main__") is not None:
        what_of |= {name: what for name, what in PASSED_ON.items() if find_spec(f"{_RUNNER}.{name}") is not None}
    if not arguments or arguments[0] in {"-h", "--help"}:
        say("usage: penstock bench NAME [arguments]\n")
        for name, what in sorted(what_of.items()):
            say(f"  {name:<14}{what}")
        return 0
    name = arguments[0]
    if name not in what_of:
        raise ConfigError(f"no bench {name!r}: there is {', '.join(sorted(what_of))}", param="NAME")
    if name in PASSED_ON:
        os.execv(sys.executable, [sys.executable, "-P", "-m", _RUNNER, *arguments])  # noqa: S606 - no shell is the point
    try:
        module = import_module(BENCHES[name][0])
    except ModuleNotFoundError as error:
        raise ConfigError(f"bench {name} is not installed: {error}") from error
    code: int = module.main(arguments[1:])
    return code
