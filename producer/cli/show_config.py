"""`penstock config`."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from producer.cli.main import Invocation
from producer.cli.settings import config_of
from producer.cli.terminal import say, say_json
from schemas.config import masked


def show_config(invocation: Invocation) -> int:
    """As TOML, ready to be a penstock.toml."""
    tree = masked(config_of(invocation))
    if invocation.arguments.json:
        say_json(tree)
    else:
        say(toml_of(tree))
    return 0


def toml_of(tree: dict[str, Any]) -> str:
    lines: list[str] = [f"{key} = {_value(value)}" for key, value in tree.items() if not isinstance(value, dict)]
    for section, values in tree.items():
        if isinstance(values, dict):
            lines += ["", f"[{section}]"]
            for key, value in cast("dict[str, Any]", values).items():
                if (section, key) == ("engine", "arguments"):
                    # They are written as the section's own, as `load` reads them.
                    members = cast("dict[str, Any]", value)
                    lines += [f"{name} = {_value(member)}" for name, member in members.items() if member is not None]
                else:
                    lines.append(f"{key} = {_value(value)}")
    return "\n".join(lines)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return "{ " + ", ".join(f"{_key(key)} = {_value(member)}" for key, member in members.items()) + " }"
    # TOML's texts, numbers, truths and lists are written as JSON's are.
    return msgspec.json.encode(value).decode()


def _key(name: str) -> str:
    """Names of models hold dots and slashes."""
    return name if name.replace("-", "_").isidentifier() and name.isascii() else msgspec.json.encode(name).decode()
