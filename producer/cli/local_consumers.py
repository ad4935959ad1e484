"""What the command line gives to consumers that it starts itself, and how it shows what they say."""

from __future__ import annotations

from infra.children import LogLine
from producer.cli.main import Invocation
from producer.cli.terminal import note
from producer.local.fleet import Watcher

# Fields that a person at a terminal does not need beside the event.
_QUIET_FIELDS = {"consumer", "pid"}


def consumer_arguments(invocation: Invocation, *, pool: str) -> list[str]:
    """The same configuration as ours, for a consumer that serves `pool`."""
    arguments = invocation.arguments
    words = shared_arguments(invocation)
    if arguments.model:
        words += ["--engine.model", arguments.model]
    return [*words, "--consumer.pool", pool]


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
