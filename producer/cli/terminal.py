"""Where the command line writes: answers to stdout, everything said beside them to stderr."""

from __future__ import annotations

import sys
from typing import Any

import msgspec


def say(text: str = "", *, end: str = "\n") -> None:
    sys.stdout.write(text + end)
    sys.stdout.flush()


def say_json(value: Any) -> None:
    """One object on one line, so that scripts may read line by line."""
    say(msgspec.json.encode(value).decode())


def note(text: str) -> None:
    """Beside the answer: a person reads it, a pipe does not."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def is_terminal() -> bool:
    return sys.stderr.isatty()


def is_stdout_terminal() -> bool:
    return sys.stdout.isatty()
