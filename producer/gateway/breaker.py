"""Whether a pool should get any more requests now, and why not. Pure: time is passed in.

Closed: all go. Open: none, until a time. Half-open: one at a time goes to see; what becomes of it decides.
"""

from __future__ import annotations

from collections import deque

import msgspec

from schemas.config import GatewaySection

# Consumers may be restarted one after another; only a gap longer than this is a pool with nobody in it.
NOBODY_S = 15.0
_OPEN_S_MAX = 120.0
# Faults older than this say nothing about now.
_WINDOW_S = 60.0
_WINDOW_ANSWERS = 100
# A probe whose caller hung up was no answer; the next one may go after so long.
_PROBE_S = 30.0


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """The pool as it looks now, for one request."""

    consumers: int
    # For how long nobody has served it.
    gone_s: float = 0.0
    # At the measured rate, for what is ahead; and how long the request may take.
    wait_s: float = 0.0
    allowed_s: float = 0.0


class Verdict(msgspec.Struct, frozen=True):
    is_closed: bool
    reason: str = ""
    retry_after_s: float = 0.0
    # Its answer decides whether the others may follow.
    is_probe: bool = False


_GO = Verdict(is_closed=True)


class Breaker:
    """Of one pool. A breaker is closed when requests flow, as with electricity."""

    def __init__(self, cfg: GatewaySection) -> None:
        self._cfg = cfg
        self._answers: deque[tuple[float, bool]] = deque(maxlen=_WINDOW_ANSWERS)
        self._opened_s = 0.0
        self._open_for_s = 0.0
        self._probed_s = -_PROBE_S
        self._reason = ""

    def ask(self, sight: Sight, now_s: float) -> Verdict:
        if not sight.consumers and not self._cfg.wait_for_consumers and sight.gone_s > NOBODY_S:
            return Verdict(is_closed=False, reason="no consumer serves it", retry_after_s=NOBODY_S)
        if sight.wait_s > sight.allowed_s > 0:
            return Verdict(
                is_closed=False,
                reason=f"its backlog takes about {sight.wait_s:.0f} s and this may take {sight.allowed_s:.0f} s",
                retry_after_s=sight.wait_s - sight.allowed_s,
            )
        if not self._reason:
            return _GO
        left_s = self._opened_s + self._open_for_s - now_s
        if left_s > 0:
            return Verdict(is_closed=False, reason=self._reason, retry_after_s=left_s)
        if now_s - self._probed_s < _PROBE_S:
            return Verdict(is_closed=False, reason=f"{self._reason}; one request is trying", retry_after_s=1.0)
        self._probed_s = now_s
        return Verdict(is_closed=True, reason="half-open", is_probe=True)

    def report(self, now_s: float, *, is_fault: bool, is_probe: bool = False) -> None:
        """What became of a request: a fault is the pool's own, never the caller's."""
        if is_probe:
            if is_fault:
                self._open(self._reason, min(_OPEN_S_MAX, 2 * self._open_for_s), now_s)
            else:
                self._reason = ""
                self._answers.clear()
            self._probed_s = now_s - _PROBE_S
            return
        self._answers.append((now_s, is_fault))
        if self._reason or not is_fault:
            return
        lately = [fault for at_s, fault in self._answers if now_s - at_s < _WINDOW_S]
        faults = sum(lately)
        if len(lately) >= self._cfg.breaker_answers and faults >= self._cfg.breaker_share * len(lately):
            self._open(f"{faults} of its last {len(lately)} answers were faults", self._cfg.breaker_open_s, now_s)

    def release(self) -> None:
        """A probe whose caller hung up: the next request may be one."""
        self._probed_s = -_PROBE_S

    def why_closed(self, sight: Sight) -> str:
        """For who only looks: why the next request would be refused; nothing changes by asking."""
        if not sight.consumers and not self._cfg.wait_for_consumers and sight.gone_s > NOBODY_S:
            return "no consumer serves it"
        return self._reason

    @property
    def reason(self) -> str:
        """Why it opened; empty while it is closed."""
        return self._reason

    def _open(self, reason: str, for_s: float, now_s: float) -> None:
        self._reason, self._opened_s, self._open_for_s = reason, now_s, for_s
        self._answers.clear()
