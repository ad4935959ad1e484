"""Which engine a name stands for. An engine's libraries are imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import cast

from consumer.engine.port import Engine
from schemas.config import EngineSection

_MODULES = {"vllm": "consumer.engine.vllm", "simulated": "consumer.engine.simulated"}


def make_engine(section: EngineSection, data_dir: Path) -> Engine:
    """The engine of `section.kind`, not started."""
    factory = cast("Callable[[EngineSection, Path], Engine]", import_module(_MODULES[section.kind]).make)
    return factory(section, data_dir)


def preload(kind: str) -> None:
    """Imports what an engine of this kind will need, and starts nothing."""
    import_module(_MODULES[kind]).preload()


def environment_defaults(section: EngineSection) -> dict[str, str]:
    """Environment variables the engine's libraries read at import, where the user has set none."""
    if section.kind != "vllm":
        return {}
    from consumer.engine.vllm_arguments import environment_defaults as of_vllm  # noqa: PLC0415

    return of_vllm(section)


def environment_of_zygote(section: EngineSection) -> dict[str, str]:
    """What a process must begin with whose forks are to run this engine."""
    if section.kind != "vllm":
        return {}
    from consumer.engine.vllm_arguments import environment_of_zygote as of_vllm  # noqa: PLC0415

    return of_vllm()
