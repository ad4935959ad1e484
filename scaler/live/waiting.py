"""What waits in a pool, in tokens and by deadline: READY as the broker counts, BACKLOG as its dispatcher does. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from scaler.live.learned import Mean
from scaler.live.seen import InReady, Seen
from scaler.observation import INTERACTIVE, Due, Tokens
from schemas.dispatch import Amount, Snapshot

MeanOf = Callable[[str], Mean]
# A promise may be almost over; its window is not.
_WINDOW_MIN_S = 60.0


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    interactive: Tokens
    # In order of deadline.
    due: list[Due]
    by_lane: dict[str, int]
    # Not interactive, and nobody said by when: they must not wait until a start is worth it.
    impatient_jobs: int

    @property
    def jobs(self) -> int:
        return sum(self.by_lane.values())


def waiting_of(
    seen: Seen, snapshot: Snapshot | None, running: Mapping[str, int], mean_of: MeanOf, waits_s: Mapping[str, float]
) -> Waiting:
    """`running`: jobs that run, by lane, as consumers say."""
    in_ready = {lane: _at_ready(seen, lane, running.get(lane, 0)) for lane in waits_s}
    told = snapshot.lanes if snapshot else {}
    by_lane = {lane: in_ready[lane] + told.get(lane, Amount()).jobs for lane in waits_s}
    interactive = _sum(_guessed(in_ready[INTERACTIVE], mean_of(INTERACTIVE)), _tokens(told.get(INTERACTIVE, Amount())))
    due: list[Due] = []
    impatient = 0
    for lane in waits_s:
        if lane == INTERACTIVE:
            continue
        looked_at = [one for one in seen.first if one.lane == lane][: in_ready[lane]]
        due += [_due_of(one, seen.unix_s, mean_of(lane)) for one in looked_at if one.deadline_unix_ms]
        others = in_ready[lane] - sum(bool(one.deadline_unix_ms) for one in looked_at)
        if others:
            due.append(_undated(_guessed(others, mean_of(lane)), seen.unix_s, 0.0, waits_s[lane]))
            impatient += others
    if snapshot is not None:
        dated, undated, jobs = _in_backlog(snapshot, seen.unix_s, waits_s)
        due += [*dated, *undated]
        impatient += jobs
    due.sort(key=lambda one: one.deadline_unix_s)
    return Waiting(interactive=interactive, due=due, by_lane=by_lane, impatient_jobs=impatient)


def _at_ready(seen: Seen, lane: str, running: int) -> int:
    """Not pulled, or pulled and not running: at a door, or in the hands of a consumer that is gone."""
    ready = seen.lanes.get(lane)
    return ready.pending + max(0, ready.in_flight - running) if ready else 0


def _in_backlog(snapshot: Snapshot, now_s: float, waits_s: Mapping[str, float]) -> tuple[list[Due], list[Due], int]:
    """By deadline; without one, by lane; and how many jobs the latter are."""
    lanes = {lane: amount for lane, amount in snapshot.lanes.items() if lane != INTERACTIVE and amount.jobs}
    oldest_ms = min((amount.oldest_unix_ms for amount in lanes.values() if amount.oldest_unix_ms), default=0)
    waited_s = max(0.0, now_s - oldest_ms / 1000) if oldest_ms else 0.0
    dated = [
        Due(
            deadline_unix_s=one.deadline_unix_ms / 1000,
            window_s=max(_WINDOW_MIN_S, one.deadline_unix_ms / 1000 - now_s + waited_s),
            tokens=Tokens(jobs=one.jobs, prompt=float(one.prompt_tokens), output=float(one.output_tokens)),
        )
        for one in snapshot.due
    ]
    total = sum(amount.jobs for amount in lanes.values())
    # What is held has deadlines too, and is in no lane.
    share = max(0.0, 1 - sum(one.jobs for one in snapshot.due) / total) if total else 0.0
    undated = [
        _undated(
            _scaled(_tokens(amount), share),
            now_s,
            max(0.0, now_s - amount.oldest_unix_ms / 1000) if amount.oldest_unix_ms else 0.0,
            waits_s.get(lane, max(waits_s.values())),
        )
        for lane, amount in lanes.items()
        if round(amount.jobs * share)
    ]
    return dated, undated, sum(one.tokens.jobs for one in undated)


def _undated(tokens: Tokens, now_s: float, waited_s: float, wait_s: float) -> Due:
    return Due(deadline_unix_s=now_s - waited_s + wait_s, window_s=wait_s, tokens=tokens)


def _due_of(one: InReady, now_s: float, mean: Mean) -> Due:
    left_s = one.deadline_unix_ms / 1000 - now_s
    output = min(mean.output, one.output_tokens_max) if one.output_tokens_max else mean.output
    tokens = Tokens(jobs=1, prompt=float(one.prompt_tokens or mean.prompt), output=float(output))
    return Due(deadline_unix_s=one.deadline_unix_ms / 1000, window_s=max(_WINDOW_MIN_S, left_s), tokens=tokens)


def _tokens(amount: Amount) -> Tokens:
    return Tokens(jobs=amount.jobs, prompt=float(amount.prompt_tokens), output=float(amount.output_tokens))


def _guessed(jobs: int, mean: Mean) -> Tokens:
    return Tokens(jobs=jobs, prompt=jobs * mean.prompt, output=jobs * mean.output)


def _scaled(tokens: Tokens, share: float) -> Tokens:
    return Tokens(jobs=round(tokens.jobs * share), prompt=tokens.prompt * share, output=tokens.output * share)


def _sum(one: Tokens, other: Tokens) -> Tokens:
    return Tokens(jobs=one.jobs + other.jobs, prompt=one.prompt + other.prompt, output=one.output + other.output)
