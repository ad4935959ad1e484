"""Takes `--section.key value` out of a command line before argparse sees it. Pure.

argparse would hand the value of an option it does not know to the next positional argument.
"""

from __future__ import annotations

import re

_OVERRIDE = re.compile(r"--[A-Za-z_][\w-]*(\.[\w-]+)+(=.*)?", re.DOTALL)


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What argparse should see, and the overrides as they came. After `--` nothing is an override."""
    rest: list[str] = []
    overrides: list[str] = []
    words = iter(range(len(arguments)))
    for index in words:
        word = arguments[index]
        if word == "--":
            rest += arguments[index:]
            break
        if not _OVERRIDE.fullmatch(word):
            rest.append(word)
            continue
        overrides.append(word)
        if "=" not in word and index + 1 < len(arguments) and not _is_option(arguments[index + 1]):
            overrides.append(arguments[next(words)])
    return rest, overrides


def _is_option(word: str) -> bool:
    return word.startswith("--")
