"""Near the end of a backlog: whether to start a job here, and which running ones a faster peer should have. No I/O.

While much is left, every consumer takes what fits and speed sorts itself out. At the end a slow consumer's last job
decides when everything is done. Three rules, all on predicted lengths:

1. Hold off: a job that would end here after the whole fleet is done, and sooner on a faster peer, is not started here.
2. Hand over: a job that runs here and would end after the fleet goes to a faster peer that would end it clearly sooner,
   although it starts again from nothing.
3. Run twice: when nothing is left to pull, slots of faster peers idle. They run copies of what a slow consumer still
   has, in case it turns out long; whoever is first stores the result. (Backup tasks: "MapReduce", OSDI 2004.)

With no faster peer no rule ever applies, so nothing waits for somebody who is not there.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

# A job that a peer would end long before the fleet is done may as well go later: perhaps it ends here.
_HASTE = 1.5
# Closer speeds than this are the same speed: measured steps vary by as much.
_FASTER = 0.8
# The time a hand-over takes by itself, and what it must save at least: a share of the work it throws away.
_HAND_OVER_S = 0.1
_GAIN = 0.8


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """What one consumer says of itself."""

    name: str
    # Seconds a step takes, in which each running sequence gets one token; 0 while unknown.
    step_s: float
    running: int
    # More jobs that would run at once.
    room: int
    # Jobs it would take from a peer.
    places: int
    # Predicted, over all it holds.
    remaining_tokens: int


class HeldJob(msgspec.Struct, frozen=True, kw_only=True):
    """One job that may be handed over."""

    key: str
    produced: int
    remaining: int
    # Should it turn out long.
    remaining_at_most: int


class HandOver(msgspec.Struct, frozen=True):
    """Offer job `key` to consumer `to`; with `is_copy` it runs on here."""

    key: str
    to: str
    is_copy: bool = False


class View(msgspec.Struct, frozen=True, kw_only=True):
    """The pool as this consumer knows it. `peers` are the fresh ones that are not draining, without `here`."""

    here: Pace
    peers: list[Pace]
    # Jobs nobody has pulled.
    backlog: int
    # What a fresh job is predicted to produce.
    typical_tokens: int


def fastest(view: View) -> Pace | None:
    """The fastest peer, if it is clearly faster than this consumer."""
    if view.here.step_s <= 0:
        return None
    known = [peer for peer in view.peers if 0 < peer.step_s <= view.here.step_s * _FASTER]
    return min(known, key=lambda peer: peer.step_s, default=None)


def fleet_done_in_s(view: View) -> float:
    """When all that is known of would be done, if every consumer were busy until then."""
    fleet = [pace for pace in (view.here, *view.peers) if pace.step_s > 0]
    tokens_per_s = sum((pace.running + pace.room) / pace.step_s for pace in fleet)
    tokens = view.backlog * view.typical_tokens + sum(pace.remaining_tokens for pace in fleet)
    return tokens / tokens_per_s if tokens_per_s else 0.0


def holds_off(view: View, long_tokens: int) -> bool:
    """Whether a job that turns out long (`long_tokens`) should be left to a faster peer."""
    peer = fastest(view)
    if peer is None:
        return False
    return long_tokens * view.here.step_s > fleet_done_in_s(view) + long_tokens * peer.step_s


def hand_overs(view: View, jobs: Iterable[HeldJob]) -> list[HandOver]:
    """Which of `jobs` to offer to whom now, the one that gains most first."""
    peer = fastest(view)
    if peer is None:
        return []
    done_s = fleet_done_in_s(view)
    late = [job for job in jobs if job.remaining * view.here.step_s > done_s]
    late.sort(key=lambda job: job.remaining, reverse=True)
    places = {peer.name: peer.places for peer in view.peers}
    chosen: list[HandOver] = []
    for job in late:
        takers = [one for one in view.peers if one.step_s > 0 and places[one.name] > 0]
        taker = min(takers, key=lambda one: one.step_s, default=None)
        if taker is None:
            break
        here_s = job.remaining * view.here.step_s
        there_s = (job.produced + job.remaining) * taker.step_s + _HAND_OVER_S
        if (
            there_s < here_s * _GAIN
            and done_s < there_s * _HASTE
            and (there_s <= done_s or taker.step_s <= peer.step_s)
        ):
            places[taker.name] -= 1
            chosen.append(HandOver(job.key, taker.name))
    return chosen


def copies(view: View, jobs: Iterable[HeldJob]) -> list[HandOver]:
    """Which of `jobs` idle faster peers should run as well, the one that may take longest first."""
    if view.backlog:
        return []
    idle = {peer.name: peer.room for peer in view.peers if 0 < peer.step_s <= view.here.step_s * _FASTER}
    peers = sorted((peer for peer in view.peers if peer.name in idle), key=lambda peer: peer.step_s)
    chosen: list[HandOver] = []
    for job in sorted(jobs, key=lambda job: job.remaining_at_most, reverse=True):
        taker = next((peer for peer in peers if idle[peer.name] > 0), None)
        if taker is None:
            break
        there_s = (job.produced + job.remaining_at_most) * taker.step_s + _HAND_OVER_S
        if there_s < job.remaining_at_most * view.here.step_s:
            idle[taker.name] -= 1
            chosen.append(HandOver(job.key, taker.name, is_copy=True))
    return chosen
