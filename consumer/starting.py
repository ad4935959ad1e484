"""The two ends of a start through a zygote, as the command line says them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping, Sequence

from infra.life import die_with_parent
from schemas.errors import ConfigError

_OPERATOR = 2
_WITH_PARENT = "--with-parent"


def serve_zygote(words: Sequence[str], environment: MutableMapping[str, str]) -> int:
    """`--serve-zygote SOCKET` and the settings of an engine; what else a consumer takes is said by who asks for one."""
    from consumer import zygote  # noqa: PLC0415 - a stand-in needs it not
    from consumer.engine.registry import environment_defaults, environment_of_zygote, preload  # noqa: PLC0415
    from consumer.main import main  # noqa: PLC0415
    from infra import settings  # noqa: PLC0415

    try:
        path, rest = _split(words, "--serve-zygote")
        config_file, rest = _split(rest, "--config") if "--config" in rest else ("", rest)
        cfg = settings.load_config(config_file, [word for word in rest if word != _WITH_PARENT], environment)
        needed = {**environment_defaults(cfg.engine), **environment_of_zygote(cfg.engine)}
        if missing := {name: value for name, value in needed.items() if name not in environment}:
            # Some are read by the loader of libraries, before any line of ours: so once more from the beginning.
            os.execve(sys.executable, sys.orig_argv, {**environment, **missing})  # noqa: S606 - no shell is the point
        if _WITH_PARENT in rest:
            die_with_parent()
        return zygote.main(path, lambda: preload(cfg.engine.kind), main)
    except ConfigError as error:
        sys.stderr.write(f"penstock consumer: {error.message}\n")
        return _OPERATOR


def through_zygote(words: Sequence[str], environment: Mapping[str, str]) -> int | None:
    """The exit code, or None where this process must be the consumer itself; `sys.argv` is without the zygote then."""
    from consumer.zygote_client import stand_in  # noqa: PLC0415 - only here

    try:
        path, rest = _split(words, "--zygote")
    except ConfigError as error:
        sys.stderr.write(f"penstock consumer: {error.message}\n")
        return _OPERATOR
    # Our parent is not the consumer's; it ends with us.
    if _WITH_PARENT in rest:
        die_with_parent()
    code = stand_in(path, [word for word in rest if word != _WITH_PARENT], environment)
    if code is None:
        sys.stderr.write(f"penstock consumer: no zygote answers at {path}; starting without one\n")
        sys.argv = [sys.argv[0], *rest]
    return code


def _split(words: Sequence[str], option: str) -> tuple[str, list[str]]:
    """The option's value, and all other words."""
    at = list(words).index(option)
    value = words[at + 1] if at + 1 < len(words) else ""
    if not value or value.startswith("--"):
        raise ConfigError(f"{option} needs the path of a socket", param=option)
    return value, [*words[:at], *words[at + 2 :]]
