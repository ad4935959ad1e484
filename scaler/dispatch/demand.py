"""Which promises can be kept, and how long other work may still go first. No I/O.

**Which can be kept.** Work with deadlines fits a server of a given rate if and only if, for every deadline D, all work
due by D fits between now and D: the demand-bound test for earliest deadline first (Baruah, Rosier, Howell 1990; for
jobs that are here already it is both necessary and sufficient). A deadline is refused only where the test fails with
it added, so that no order at all would keep it and the earlier promises, *given the rates and the estimates*, and with
these allowed to be wrong in the asker's favour by what is usual (`DOUBT`); jobs that are held until a time count from
now on (an order that must wait for them can only be worse).

**Who goes first.** Slack stealing (Lehoczky, Ramos-Thuel 1992): slack(D) = time to D less the work due by D. While the
least slack is positive, anything may be served and every promise is still kept; so tenants take fair turns, and each
second of work given to them uses up at most a second of slack. Before it is gone the earliest deadline goes first.
What keeps promises, to be shown of each change: (1) jobs come in only where the test holds; (2) turns are taken only
while the slack less a margin is positive, and each is deducted at once; (3) under pressure only the earliest deadlines
are served, which leaves every slack as it is; so slack never passes the margin downwards but by errors of rates and
estimates, and the margin is for these. Fair turns do cost something: work that waits less long than the least urgent
was given its turn, so a burst that nobody foresaw finds less room than if all had gone by deadline from the morning on.

**What is given up.** Where more was promised than can be done after all, earliest deadline first makes every job a
little late. `Pressure` says how much is too much (`excess_s`), and the backlog gives up the largest few.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left

import numpy as np

from scaler.dispatch.capacity import Capacity, Cost
from scaler.dispatch.columns import Numbers
from scaler.dispatch.due import BIN_BITS, bin_of

# Fair turns end while this share of the time to a deadline, and this many seconds, are still to spare. Work that waits
# long is what bursts come on top of: on three simulated days with full hours 0.15% were missed with 0.3, 0.06% with 0.4
# and 0.07% with 0.5, which on another day suspended turns for hours.
MARGIN_SHARE = 0.4
MARGIN_S = 30.0
# A job's actual cost differs from its estimate by about as much as it is: that of n jobs by a share of 1/sqrt(n). So
# much is promised beyond what can be done, because to refuse what could have been kept is the worse mistake.
DOUBT = 1.0
# Of promises that turn out to be too many, some are given up that are due within this time and among so many jobs: the
# more there are to choose from, the fewer large ones it takes (a quarter fewer than among those of ten minutes).
NEAR_S = 1800.0
NEAR_JOBS = 4000
# The last job of a deadline is started so many usual durations before it, for it may be a long one. On three simulated
# days with full hours 0.15% were missed at 3 and 0.18% at 5, where more are given up for it than it saves. Fair turns
# end at twice that, or what is due would be given up before it was ever urgent.
GUARD = 3.0
# How often, under pressure, it is asked whether there still is any.
_LOOK_MS = 200


class Demand:
    """How much is due when: jobs, prompt tokens and output tokens a bin, of all that waits and is not paused."""

    __slots__ = ("_bins", "_jobs", "_output", "_prompt")

    def __init__(self) -> None:
        self._bins = array("q")
        self._jobs = array("q")
        self._prompt = array("q")
        self._output = array("q")

    def add(self, deadline_unix_ms: int, jobs: int, prompt: int, output: int) -> None:
        """Negative amounts take away."""
        number = deadline_unix_ms >> BIN_BITS
        bins = self._bins
        at = bisect_left(bins, number)
        if at == len(bins) or bins[at] != number:
            bins.insert(at, number)
            self._jobs.insert(at, jobs)
            self._prompt.insert(at, prompt)
            self._output.insert(at, output)
            return
        self._jobs[at] += jobs
        self._prompt[at] += prompt
        self._output[at] += output

    @property
    def bytes_held(self) -> int:
        return 4 * 8 * len(self._bins)

    def rebuild(self, deadlines: Numbers, prompt: Numbers, output: Numbers) -> None:
        """Anew, of jobs one by one."""
        bins, which = np.unique(deadlines >> BIN_BITS, return_inverse=True)
        sums = (np.bincount(which, weights, bins.size) for weights in (None, prompt, output))
        self._set(bins, *sums)

    def rows(self) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        """Bins in order, and jobs, prompt and output tokens of each: copies."""
        return np.array(self._bins), np.array(self._jobs), np.array(self._prompt), np.array(self._output)

    def curve(self, now_unix_ms: int, cost: Cost) -> Curve:
        """The demand from now on; what is past its deadline is no demand any more."""
        bins, jobs, prompt, output = self.rows()
        some = jobs > 0
        if bins.size > 64 and np.count_nonzero(some) < bins.size // 2:
            self._set(bins[some], jobs[some], prompt[some], output[some])
        # An emptied bin asks for nothing, however soon it ends.
        some &= bins >= bin_of(now_unix_ms)
        bins, jobs, prompt, output = bins[some], jobs[some], prompt[some], output[some]
        units = cost.prompt * prompt + cost.output * output + cost.job * jobs
        work_s = np.cumsum(units) / cost.per_s if cost.per_s else np.zeros(units.size)
        # A bin's end: its jobs are due at most eight seconds before, and nothing is refused for these.
        time_s = (((bins + 1) << BIN_BITS) - now_unix_ms) / 1000
        return Curve(bins, time_s, work_s, np.cumsum(jobs))

    def _set(self, bins: Numbers, jobs: Numbers, prompt: Numbers, output: Numbers) -> None:
        self._bins = array("q", bins.astype(np.int64).tobytes())
        self._jobs = array("q", jobs.astype(np.int64).tobytes())
        self._prompt = array("q", prompt.astype(np.int64).tobytes())
        self._output = array("q", output.astype(np.int64).tobytes())


class Curve:
    """At each bin's end: seconds until then, and seconds of work and jobs due by then."""

    __slots__ = ("bins", "jobs", "time_s", "work_s")

    def __init__(self, bins: Numbers, time_s: Numbers, work_s: Numbers, jobs: Numbers) -> None:
        self.bins = bins
        self.time_s = time_s
        self.work_s = work_s
        self.jobs = jobs

    def room_s(self, ahead_s: float) -> Numbers:
        """Seconds of work that may still become due by then, if estimates err to our favour as much as is usual."""
        doubt_s = DOUBT * self.work_s / np.sqrt(np.maximum(self.jobs, 1))
        return self.time_s - ahead_s - self.work_s + doubt_s

    def work_due_s(self, deadline_unix_ms: int) -> float:
        """Seconds of work due by then."""
        at = int(np.searchsorted(self.bins, bin_of(deadline_unix_ms), side="right"))
        return float(self.work_s[at - 1]) if at else 0.0

    def fits(self, extra_s: float, deadline_unix_ms: int, time_s: float, ahead_s: float) -> bool:
        """Whether so much more work may be due then, `time_s` from now."""
        at = int(np.searchsorted(self.bins, bin_of(deadline_unix_ms)))
        due_s = float(self.work_s[at - 1]) if at else 0.0
        doubt_s = DOUBT * due_s / float(np.sqrt(self.jobs[at - 1])) if at and self.jobs[at - 1] > 0 else 0.0
        if due_s + extra_s > time_s - ahead_s + doubt_s:
            return False
        return not bool((self.room_s(ahead_s)[at:] < extra_s).any())

    def earliest_s(self, extra_s: float, ahead_s: float) -> float:
        """How many seconds from now so much more work could be due at the earliest."""
        # Wherever it is due, it takes room from all later deadlines: the first place behind which there is enough.
        too_tight = np.flatnonzero(self.room_s(ahead_s) < extra_s)
        first = int(too_tight[-1]) + 1 if too_tight.size else 0
        before = float(self.work_s[first - 1]) if first else 0.0
        soonest = float(self.time_s[first - 1]) if first else 0.0
        # Work due between two bins' ends does not grow the demand of the earlier: it may be due as soon as it is done.
        return max(soonest, ahead_s + before + extra_s)


class Pressure:
    """Whether deadlines must go first now. Looks at the curve only when what was spare may have been used up."""

    __slots__ = ("_cost", "_looked_unix_ms", "_spare_s", "_used_s", "excess_bin", "excess_s", "last_bin", "urgent_s")

    def __init__(self) -> None:
        self._looked_unix_ms = 0
        self._spare_s = -1.0
        self._used_s = 0.0
        self._cost = Capacity().cost()
        # Jobs due up to this bin go first.
        self.last_bin = -1
        # Seconds of work of these, and of all before them.
        self.urgent_s = 0.0
        # Seconds of work due up to the other bin that cannot be done in time.
        self.excess_s = 0.0
        self.excess_bin = -1

    def use(self, work_s: float) -> None:
        """Work was given to somebody's turn."""
        self._used_s += work_s

    def add(self, jobs: int, prompt: int, output: int) -> None:
        """More has become due."""
        self._used_s += self._cost.seconds(jobs, prompt, output)

    def forget(self) -> None:
        """Something else has changed: look when asked next."""
        self._looked_unix_ms = 0

    def is_on(self, demand: Demand, now_unix_ms: int, capacity: Capacity, picked_s: float) -> bool:
        """`picked_s`: work picked since `capacity` was measured."""
        since_ms = now_unix_ms - self._looked_unix_ms
        if since_ms >= 0 and self._spare_s > self._used_s + since_ms / 1000:
            return False
        if not (0 <= since_ms < _LOOK_MS and self._spare_s <= 0):
            self.look(demand, now_unix_ms, capacity, picked_s)
        return self._spare_s <= 0

    def is_urgent(self, deadline_unix_ms: int) -> bool:
        """As of the last look."""
        return self._spare_s <= 0 and bin_of(deadline_unix_ms) <= self.last_bin

    def look(self, demand: Demand, now_unix_ms: int, capacity: Capacity, picked_s: float) -> None:
        self._cost = capacity.cost()
        curve = demand.curve(now_unix_ms, self._cost)
        ahead_s = capacity.ahead_s + picked_s + 2 * GUARD * capacity.service_s + MARGIN_S
        spare = curve.time_s * (1 - MARGIN_SHARE) - curve.work_s - ahead_s
        self._looked_unix_ms, self._used_s = now_unix_ms, 0.0
        # Rates change, so it looks again after five seconds at the latest; what is added meanwhile is deducted.
        self._spare_s = min(float(spare.min(initial=5.0)), 5.0)
        tight = np.flatnonzero(spare <= 0)
        self.last_bin = int(curve.bins[tight[-1]]) if tight.size else -1
        self.urgent_s = float(curve.work_s[tight[-1]]) + capacity.ahead_s + picked_s if tight.size else 0.0
        self.excess_s = 0.0
        if tight.size:
            self._find_excess(curve, capacity, picked_s)

    def _find_excess(self, curve: Curve, capacity: Capacity, picked_s: float) -> None:
        near = (curve.time_s <= NEAR_S) & (curve.jobs <= NEAR_JOBS)
        # The last of them to start must have the time that jobs take, long ones too.
        late_s = (curve.work_s - curve.time_s)[near] + capacity.ahead_s + picked_s + GUARD * capacity.service_s
        late_s = np.minimum(late_s, curve.work_s[near])
        if late_s.size and late_s.max() > 0:
            at = int(np.argmax(late_s))
            self.excess_s, self.excess_bin = float(late_s[at]), int(curve.bins[at])
