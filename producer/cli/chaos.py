"""`penstock chaos NAME …`: hands over to `producer/chaos/<name>.py`."""

from __future__ import annotations

from importlib import import_module

from producer.cli.terminal import say
from schemas.errors import ConfigError

# Each module has `main(arguments: list[str]) -> int`.
STORIES = {
    "batch": ("producer.chaos.batch", "one batch while gateway, consumer and dispatcher are killed"),
}


def chaos(arguments: list[str]) -> int:
    if not arguments or arguments[0] in {"-h", "--help"}:
        say("usage: penstock chaos NAME [arguments]\n")
        for name, (_, what) in sorted(STORIES.items()):
            say(f"  {name:<14}{what}")
        return 0
    name = arguments[0]
    if name not in STORIES:
        raise ConfigError(f"no chaos {name!r}: there is {', '.join(sorted(STORIES))}", param="NAME")
    code: int = import_module(STORIES[name][0]).main(arguments[1:])
    return code
