"""Platforms for the drivers' conformance suite, and what a test may do to them from outside."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Protocol, Self

from infra.life import unix_ms
from scaler.drivers.dry_run import DryRun
from scaler.drivers.port import Driver


class Rig(Protocol):
    """One platform for one test: `async with` begins and ends it, with everything that runs on it.

    `can`: which of the following it is able to do; a test that needs another is skipped for it.
    - `starts_slowly`: replicas asked for from now on are `starting` until `let_start`.
    - `works`: replicas that are asked to stop go on working (and drain) until `let_finish`.
    - `dies`: `kill(replica)` ends one as a crash does; `crash_all` makes every start end at once, until `mend`.
    - `fails`: after `break_off` the platform takes no orders, or starts nothing, until `mend`.
    """

    can: frozenset[str]

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    def driver(self) -> Driver:
        """A new object, not open, as a scaler has after its start; the platform is the same each time."""
        ...

    def start_slowly(self) -> None: ...

    def let_start(self) -> None: ...

    def keep_working(self) -> None: ...

    def let_finish(self) -> None: ...

    async def kill(self, replica: str) -> None: ...

    def crash_all(self) -> None: ...

    def break_off(self) -> None: ...

    def mend(self) -> None: ...


class PaperRig:
    """The dry run: nothing happens to it by itself."""

    can: frozenset[str] = frozenset()

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def driver(self) -> Driver:
        return DryRun(self._folder, unix_ms=unix_ms, new_id=lambda: str(next(self._numbers)))

    def start_slowly(self) -> None: ...

    def let_start(self) -> None: ...

    def keep_working(self) -> None: ...

    def let_finish(self) -> None: ...

    async def kill(self, replica: str) -> None: ...

    def crash_all(self) -> None: ...

    def break_off(self) -> None: ...

    def mend(self) -> None: ...
