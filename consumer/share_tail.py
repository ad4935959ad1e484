"""Acts on what `tail` decides: keeps the view of the pool, holds pulls off, offers jobs to faster peers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from consumer.engine.port import Capacity
from consumer.hand_over import HandOver
from consumer.lengths import ANYBODY, Origin
from consumer.peers import Peers
from consumer.puller import Puller
from consumer.running import Held, HeldJobs
from consumer.tail import HeldJob, Pace, View, copies, fastest, hand_overs, holds_off

_TICK_S = 0.1
_VIEW_LASTS_S = 0.02
# A job that moved this often stays where it is.
_MOVES_MAX = 2
# Holding off for longer than a job takes cannot pay; what waits in spite of it is taken then.
_HOLD_OFF_JOBS = 4
_HOLD_OFF_MIN_S = 2.0
# Answers are taken to be as long as this share of them is at most: of long-tailed ones, about the mean.
_SHARE = 0.6
# And a long one as this.
_LONG_SHARE = 0.95

# Tokens a sequence of an origin will add at most in a share of all cases, given those produced and the most.
Remaining = Callable[[Origin, int, int, float], int]


class TailSharer:
    """`run` hands over until cancelled; `holds_off` is asked before every pull."""

    def __init__(
        self,
        *,
        name: str,
        held: HeldJobs,
        peers: Peers,
        hand_over: HandOver,
        puller: Puller,
        capacity: Callable[[], Capacity],
        room: Callable[[], tuple[int, int]],
        remaining: Remaining,
    ) -> None:
        """`room`: more jobs that would run at once, and jobs it would take from a peer."""
        self._name = name
        self._held = held
        self._peers = peers
        self._hand_over = hand_over
        self._puller = puller
        self._capacity = capacity
        self._room = room
        self._remaining = remaining
        self._held_off_since: float | None = None
        self._seen: tuple[float, View] | None = None

    async def run(self) -> None:
        await self._hand_over.start()
        while True:
            await asyncio.sleep(_TICK_S)
            await self._offer_late_ones()

    def holds_off(self) -> bool:
        """Whether the next job is better left to a peer. Never for long."""
        if not self._peers.fresh():
            return False
        view = self._recent_view()
        long_tokens = self._typical_tokens()
        if not holds_off(view, long_tokens):
            self._held_off_since = None
            return False
        now = asyncio.get_running_loop().time()
        if self._held_off_since is None:
            self._held_off_since = now
        limit_s = max(_HOLD_OFF_MIN_S, _HOLD_OFF_JOBS * long_tokens * view.here.step_s)
        return now - self._held_off_since < limit_s

    def pace(self) -> Pace:
        """What this consumer says of itself."""
        room, places = self._room()
        return Pace(
            name=self._name,
            step_s=self._capacity().step_s,
            running=sum(held.is_admitted for held in self._held),
            room=room,
            places=places,
            remaining_tokens=sum(self._remaining_of(held) * _sequences(held) for held in self._held),
        )

    async def _offer_late_ones(self) -> None:
        view = self._view()
        if fastest(view) is None:
            return
        movable = {held.key: held for held in self._held if _is_movable(held)}
        jobs = [
            HeldJob(
                key=key,
                produced=_produced(held),
                remaining=self._remaining_of(held),
                remaining_at_most=self._remaining_of(held, _LONG_SHARE),
            )
            for key, held in movable.items()
        ]
        chosen = hand_overs(view, jobs) or copies(view, jobs)
        offers = [self._hand_over.offer(movable[one.key], one.to, is_copy=one.is_copy) for one in chosen]
        await asyncio.gather(*offers)

    def _recent_view(self) -> View:
        """Every pull asks, and nothing that it says changes as fast."""
        now = asyncio.get_running_loop().time()
        if self._seen is None or now - self._seen[0] > _VIEW_LASTS_S:
            self._seen = now, self._view()
        return self._seen[1]

    def _view(self) -> View:
        fresh = self._peers.fresh()
        # Whoever asked last knows best how much is left; who holds off does not ask.
        known = [(self._puller.heard_at, self._puller.backlog)]
        known += [(heard_at - report.backlog_age_s, report.backlog) for heard_at, report in fresh]
        return View(
            here=self.pace(),
            peers=[report.pace for _, report in fresh],
            backlog=max(known)[1],
            typical_tokens=self._typical_tokens(),
        )

    def _remaining_of(self, held: Held, share: float = _SHARE) -> int:
        """Of one sequence."""
        need = held.progress.need
        if need is None:
            return self._typical_tokens()
        produced = _produced(held)
        if need.output_tokens_min >= need.output_tokens_max:
            return max(1, need.output_tokens_max - produced)
        origin = Origin(held.lane.value, held.tenant)
        return self._remaining(origin, produced, need.output_tokens_max, share)

    def _typical_tokens(self) -> int:
        """Of a job not started yet."""
        return self._remaining(ANYBODY, 0, self._capacity().context_tokens_max, _SHARE)


def _produced(held: Held) -> int:
    """Tokens of one sequence so far."""
    need = held.progress.need
    return need.produced() // need.sequences if need is not None and held.is_admitted else 0


def _sequences(held: Held) -> int:
    return held.progress.need.sequences if held.progress.need is not None else 1


def _is_movable(held: Held) -> bool:
    """Nobody reads it as it comes, it is no suspect, and the broker awaits one answer for it."""
    return (
        not held.job.reply_to
        and not held.is_alone
        and not held.is_ending
        and held.why_stopped is None
        and held.moves < _MOVES_MAX
        and not held.is_copy
        and not held.was_copied
        and len(held.deliveries) == 1
    )
