"""How long token events are gathered before they are sent. No I/O, no clock.

Nothing is gathered while sending keeps up: each engine step leaves as it comes. When a pass over the inboxes takes a
large part of the time there is, or the connection holds back what it was given, passes move apart, up to `_WIDEST_S`: a
frame then carries several steps, and costs little more than one did. When the strain is gone they close up again.
"""

from __future__ import annotations

# No reader sees the difference, and 50 frames a second and inbox are few.
_WIDEST_S = 0.02
_FIRST_S = 0.002
# Of the event loop's time, which the engine's front end needs too.
_SHARE_MAX = 0.25
# First tokens may follow right after another pass, which is no strain by itself.
_PERIOD_MIN_S = 0.004
# What a socket takes at once; more waits for the broker, or for a slow network.
_HELD_BACK_BYTES = 256 * 1024


class FramePace:
    """`interval_s` from one pass to the next, at least `narrowest_s`."""

    def __init__(self, narrowest_s: float) -> None:
        self._narrowest_s = narrowest_s
        self.interval_s = narrowest_s

    def after_pass(self, *, took_s: float, period_s: float, held_back_bytes: int) -> None:
        """A pass took `took_s`, and began `period_s` after the one before it."""
        period_s = max(period_s, _PERIOD_MIN_S)
        if held_back_bytes > _HELD_BACK_BYTES or took_s > _SHARE_MAX * period_s:
            wider = min(_WIDEST_S, max(_FIRST_S, 2 * self.interval_s))
            self.interval_s = max(self._narrowest_s, wider)
        # Only where twice as many passes would still be no strain, or it would swing for ever.
        elif took_s < _SHARE_MAX / 2 * period_s:
            narrower = self.interval_s / 2
            self.interval_s = max(self._narrowest_s, narrower if narrower >= _FIRST_S else 0.0)
