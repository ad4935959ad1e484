"""Dispatch: one lazily imported module a command, one line for every error that was foreseen."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import NamedTuple

from producer.cli import overrides
from producer.cli.exits import Exit, exit_of
from producer.cli.terminal import note, say_json
from schemas.errors import PenstockError


class Invocation(NamedTuple):
    """What a command gets: its arguments, the configuration's overrides, and the environment."""

    arguments: argparse.Namespace
    overrides: list[str]
    environment: Mapping[str, str]


# Words that another program of ours reads; this process becomes it, so that signals and exit codes need no go-between.
PROGRAMS = {
    "consumer": ("consumer",),
    "dispatcher": ("scaler", "dispatcher"),
    "scaler": ("scaler", "scaler"),
    "gateway": ("producer.gateway",),
    "simulate": ("scaler.simulate",),
    "plan": ("scaler.simulate", "plan"),
    "schedule": ("scaler.schedule",),
}

Command = Callable[[Invocation], int]

# Modules and functions by command; imported when asked for.
COMMANDS = {
    "up": ("producer.cli.up", "up"),
    "submit": ("producer.cli.one_job", "submit"),
    "stream": ("producer.cli.one_job", "stream"),
    "result": ("producer.cli.one_job", "result"),
    "cancel": ("producer.cli.steer", "cancel"),
    "pause": ("producer.cli.steer", "pause"),
    "resume": ("producer.cli.steer", "resume"),
    "tenants": ("producer.cli.steer", "tenants"),
    "jobs": ("producer.cli.jobs", "jobs"),
    "scale": ("producer.cli.scale", "scale"),
    "explain": ("producer.cli.scale", "explain"),
    "run-batch": ("producer.cli.run_batch", "run_batch"),
    "config": ("producer.cli.show_config", "show_config"),
}


def main(arguments: list[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    if words and words[0] in PROGRAMS:
        program = [sys.executable, "-P", "-m", *PROGRAMS[words[0]], *words[1:]]
        os.execv(sys.executable, program)  # noqa: S606 - no shell is the point
    if words and words[0] == "keys":
        from producer.gateway.keys_cli import main as keys  # noqa: PLC0415 - each command pays for its own imports

        return _guarded(lambda: keys(words[1:]), as_json="--json" in words)
    if words and words[0] == "webhooks":
        from producer.gateway.webhooks.command import main as webhooks  # noqa: PLC0415 - as above

        return _guarded(lambda: webhooks(words[1:]), as_json="--json" in words)
    if words and words[0] == "bench":
        from producer.cli.bench import bench  # noqa: PLC0415 - as above

        return _guarded(lambda: bench(words[1:]), as_json="--json" in words)
    if words and words[0] == "chaos":
        from producer.cli.chaos import chaos  # noqa: PLC0415 - as above

        return _guarded(lambda: chaos(words[1:]), as_json="--json" in words)
    from producer.cli.parser import parser  # noqa: PLC0415 - as above

    seen, settings = overrides.split(words)
    parsed = parser(_version() if "--version" in words else "").parse_args(seen)
    invocation = Invocation(parsed, settings, os.environ)  # noqa: TID251 - this is a main()
    module, function = COMMANDS[parsed.command]

    def run() -> int:
        command: Command = getattr(import_module(module), function)
        return command(invocation)

    return _guarded(run, as_json=parsed.json)


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415 - slow, and asked for once in a blue moon

    return version("penstock")


def _guarded(run: Callable[[], int], *, as_json: bool) -> int:
    # The library's warnings are for programs that configure logging; here an error is one line, said once.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        return run()
    except PenstockError as error:
        code = exit_of(error)
        if as_json:
            say_json({"error": {"message": error.message, "code": error.code, "param": error.param}})
        note(f"penstock: {error.message}")
        return code
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone; say nothing more, and keep the interpreter from trying at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
