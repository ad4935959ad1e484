"""Where pulled jobs wait until the KV budget has room: `admission`'s decisions, made awaitable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from consumer.engine.port import Capacity, Need
from consumer.lengths import ANYBODY, Origin
from consumer.waiting import Rank, Waiting
from schemas.errors import EngineBusy, PenstockError


class Line(Protocol):
    """Those who wait, and who of them may go in: `admission.Admission`, or what it is measured against."""

    def __len__(self) -> int: ...
    def push(self, one: Waiting) -> None: ...
    def withdraw(self, one: Waiting) -> bool: ...
    def admit(self, capacity: Capacity) -> list[Waiting]: ...
    def leave(self, job_id: str) -> None: ...


class Door:
    """`enter` waits for room; `leave` gives it back."""

    def __init__(self, line: Line, capacity: Callable[[], Capacity], *, wait_s: float) -> None:
        self._line = line
        self._capacity = capacity
        self._wait_s = wait_s
        # By job: its turn, and since when it waits.
        self._turns: dict[str, tuple[asyncio.Future[None], float]] = {}
        self._closed: PenstockError | None = None
        self._look_again: asyncio.Handle | None = None

    @property
    def waiting(self) -> int:
        return len(self._line)

    async def enter(
        self,
        job_id: str,
        need: Need,
        rank: Rank,
        origin: Origin = ANYBODY,
        *,
        alone: bool = False,
        is_firm: bool = False,
    ) -> None:
        """Returns when the budget holds the job.

        Raises:
            PromptTooLong: it never will.
            EngineBusy: it did not within `wait_s`; another consumer may be free.
            ConsumerDraining: nobody enters any more.
        """
        if self._closed is not None:
            raise self._closed
        waiting = Waiting(rank, job_id, need, origin, alone, is_firm)
        self._line.push(waiting)
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._turns[job_id] = turn, loop.time()
        self.let_in()
        if turn.done():
            # Mostly there is room, and a timer costs more than all of this.
            del self._turns[job_id]
            return turn.result()
        try:
            async with asyncio.timeout(None if alone else self._wait_s):
                await turn
        except BaseException as error:
            if self._line.withdraw(waiting):
                self.let_in()
            else:
                # Let in at the very moment it gave up.
                self.leave(job_id)
            if isinstance(error, TimeoutError):
                raise EngineBusy(f"no room in the KV cache within {self._wait_s:g}s") from error
            raise
        finally:
            del self._turns[job_id]

    def close(self, why: PenstockError) -> None:
        """Sends everybody away who waits, and whoever comes; those inside stay."""
        self._closed = why
        for turn, _ in self._turns.values():
            if not turn.done():
                turn.set_exception(why)

    def send_away(self, jobs: int, *, waiting_s: float) -> None:
        """Gives up to so many jobs back that have waited that long, the last to come first: others could run them."""
        now = asyncio.get_running_loop().time()
        late = [turn for turn, since in self._turns.values() if not turn.done() and now - since >= waiting_s]
        for turn in late[::-1][:jobs]:
            turn.set_exception(EngineBusy(f"no room in the KV cache within {waiting_s:g}s, and others have some"))

    def leave(self, job_id: str) -> None:
        """The job holds nothing any more. Safe for one that never entered."""
        self._line.leave(job_id)
        # Many end in one engine step: look once for all of them.
        if self._look_again is None and self.waiting:
            self._look_again = asyncio.get_running_loop().call_soon(self.let_in)

    def let_in(self) -> None:
        """Admits whoever may enter now."""
        self._look_again = None
        if not self.waiting or self._closed is not None:
            return
        for one in self._line.admit(self._capacity()):
            turn, _ = self._turns[one.job_id]
            # One that gave up in this very moment: its own task gives the room back.
            if not turn.done():
                turn.set_result(None)
