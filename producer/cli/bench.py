"""`penstock bench NAME …`: hands over to `producer/bench/<name>.py`."""

from __future__ import annotations

from importlib import import_module

from producer.cli.terminal import say
from schemas.errors import ConfigError

# Each module has `main(arguments: list[str]) -> int`.
BENCHES = {
    "admission": ("producer.bench.admission", "who is let into the engine: our forecast, fixed concurrency and others"),
    "interference": ("producer.bench.interference", "bursts of chats beside three batches on the same consumer"),
    "parity": ("producer.bench.parity", "`vllm run-batch` and `penstock run-batch` give the same tokens"),
    "tail": ("producer.bench.tail", "consumers of different speed share the end of a backlog"),
    "streaming": ("producer.bench.streaming", "what NATS adds to tokens that an engine streams"),
    "throughput": ("producer.bench.throughput", "offline vLLM, `vllm serve` and penstock on the same requests"),
}


def bench(arguments: list[str]) -> int:
    if not arguments or arguments[0] in {"-h", "--help"}:
        say("usage: penstock bench NAME [arguments]\n")
        for name, (_, what) in BENCHES.items():
            say(f"  {name:<14}{what}")
        return 0
    name = arguments[0]
    if name not in BENCHES:
        raise ConfigError(f"no bench {name!r}: there is {', '.join(BENCHES)}", param="NAME")
    try:
        module = import_module(BENCHES[name][0])
    except ModuleNotFoundError as error:
        raise ConfigError(f"bench {name} is not installed: {error}") from error
    code: int = module.main(arguments[1:])
    return code
