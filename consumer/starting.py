"""The two ends of a start through a zygote, as the command line says them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from infra.life import die_with_parent
from schemas.errors import ConfigError

_OPERATOR = 2
_WITH_PARENT = "--with-parent"


def serve_zygote(words: Sequence[str]) -> int:
    """`--serve-zygote SOCKET [--engine.kind KIND]`; what else a consumer takes is said by who asks for one."""
    from consumer import zygote  # noqa: PLC0415 - a stand-in needs it not
    from consumer.engine.registry import preload  # noqa: PLC0415 - as above
    from consumer.main import main  # noqa: PLC0415 - as above

    try:
        path, rest = _split(words, "--serve-zygote")
        kind, rest = _split(rest, "--engine.kind") if "--engine.kind" in rest else ("vllm", rest)
        if unknown := [word for word in rest if word != _WITH_PARENT]:
            raise ConfigError(f"--serve-zygote takes --engine.kind and nothing else, not {unknown[0]}")
        if _WITH_PARENT in rest:
            die_with_parent()
        return zygote.main(path, lambda: preload(kind), main)
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
