"""What a driver is. Laws, which `tests/conformance/test_driver.py` holds every driver to:

1. `apply(pool, n)` makes the fleet have `n` replicas that do not drain, whatever was asked before; asking twice is
   asking once. It returns when the platform has accepted, not when replicas are ready.
2. Fewer: replicas that start go first, then `victims` in their order, then any. Those that run are drained (SIGTERM or
   the platform's word for it, with at least `consumer.grace_s`), never killed at work, and are `draining` until gone.
3. `current` is the platform's own truth, also for replicas that another scaler, since dead, has started. A new driver
   object finds them again.
4. A replica that dies by itself is replaced as the platform does it, with growing pauses, and `restarts` counts that;
   it is `failing` while it waits for its next start.
5. Whatever the platform answers (away, refused, conflict, half done) becomes `DriverUnavailable` or `DriverRefused`;
   nothing was lost, and the next `apply` puts it right.
6. `close` stops watching and leaves the fleet as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import msgspec

from schemas.errors import OperatorError, PenstockError


class DriverUnavailable(PenstockError):
    """The platform does not answer, or had something else to do first; the next tick tries again."""

    status_code = 503
    code = "driver_unavailable"


class DriverRefused(OperatorError):
    """The platform says no, and will until a person changes something: permissions, a name, an image."""

    code = "driver_refused"


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """One consumer as the platform sees it.

    `id` is the platform's name for it, and where the driver may choose, also the consumer's own name in telemetry
    (`consumer`; empty while not known).
    """

    id: str
    consumer: str = ""
    phase: Literal["starting", "running", "draining", "failing"] = "starting"
    asked_unix_ms: int = 0
    restarts: int = 0
    # Why it does not run, in the platform's words; empty where it does or only takes its time.
    reason: str = ""


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """All replicas of a pool, as of `unix_ms`. `gpus`: how many there are for this driver in all; 0: it cannot say."""

    pool: str
    unix_ms: int
    replicas: list[Replica] = []
    gpus: int = 0

    @property
    def staying(self) -> int:
        """Those that do not drain: what `apply` counts."""
        return sum(replica.phase != "draining" for replica in self.replicas)


class Driver(Protocol):
    @property
    def name(self) -> str: ...

    async def open(self, on_change: Callable[[str], None]) -> None:
        """Connects; `on_change(pool)` is called when a fleet may have changed by itself.

        Raises:
            DriverUnavailable, DriverRefused: with what a person must do.
        """
        ...

    async def current(self, pool: str) -> Fleet:
        """Raises DriverUnavailable, DriverRefused."""
        ...

    async def apply(self, pool: str, replicas: int, *, victims: Sequence[str] = ()) -> None:
        """`victims`: consumers' names, the least busy first. Raises DriverUnavailable, DriverRefused."""
        ...

    async def close(self) -> None: ...
