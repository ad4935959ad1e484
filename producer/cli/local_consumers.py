"""What the command line gives to consumers that it starts itself, and how it shows what they say."""

from __future__ import annotations

import msgspec

from infra.children import LogLine
from infra.gpus import gpus_here
from producer.cli.main import Invocation
from producer.cli.terminal import note
from producer.local.fleet import Watcher
from schemas.config import Config
from schemas.errors import ConfigError

# Each vLLM on a CPU wants some GB and all cores.
_MOST_WITHOUT_GPUS = 2
# Fields that a person at a terminal does not need beside the event.
_QUIET_FIELDS = {"consumer", "pid"}


def consumer_arguments(invocation: Invocation, *, pool: str) -> list[str]:
    """The same configuration as ours, for a consumer that serves `pool`."""
    arguments = invocation.arguments
    words = shared_arguments(invocation)
    if arguments.model:
        words += ["--engine.model", arguments.model]
    return [*words, "--consumer.pool", pool]


def scaler_arguments(invocation: Invocation, config: Config) -> list[str]:
    """The same configuration as ours, for a scaler that starts consumers here.

    Raises:
        ConfigError: `--max` and `scaler.pools` say different things.
    """
    words = consumer_arguments(invocation, pool=config.consumer.pool)
    most: int | None = invocation.arguments.consumers_max
    if config.scaler.pools:
        if most is not None:
            raise ConfigError("scaler.pools says how many consumers there may be: leave --max out", param="--max")
        return words
    pool = {"maximum": most or len(gpus_here(invocation.environment)) or _MOST_WITHOUT_GPUS, "cold_start_s": 60.0}
    pools = msgspec.json.encode({config.consumer.pool: pool}).decode()
    # Beyond our own grace nobody waits for a drain at Ctrl-C; until then a consumer may take its time.
    return [*words, "--scaler.driver", "process", "--scaler.pools", pools]


def shared_arguments(invocation: Invocation) -> list[str]:
    """The same configuration as ours, for any program of ours."""
    arguments = invocation.arguments
    return [*(["--config", arguments.config] if arguments.config else []), *invocation.overrides]


class LogView(Watcher):
    """Lets consumers' events through, one line each, under the consumer's name."""

    def __init__(self, *, is_verbose: bool) -> None:
        self._is_verbose = is_verbose

    def on_line(self, consumer: str, line: LogLine) -> None:
        if line.event:
            if line.level != "debug" or self._is_verbose:
                fields = " ".join(f"{key}={value}" for key, value in line.fields.items() if key not in _QUIET_FIELDS)
                note(f"{consumer} | {line.event} {fields}".rstrip())
        elif self._is_verbose and line.text:
            note(f"{consumer} | {line.text}")

    def on_death(self, consumer: str, reason: str, restart_in_s: float | None) -> None:
        then = "not started again" if restart_in_s is None else f"starting again in {restart_in_s:g} s"
        note(f"{consumer} | died: {reason}; {then}")
