"""How long answers get, learned from those that ended and from those still running. No I/O, no clock.

What is kept is a survival function for each (lane, tenant): S(x), the share of answers longer than x tokens. It is the
Kaplan-Meier estimator (Kaplan & Meier, "Nonparametric Estimation from Incomplete Observations", 1958), because much of
what we see is incomplete: answers cut at `max_tokens`, and those still running. Counting only the finished would call
answers short for as long as the long ones run, which is exactly when the cache fills.

Where little is known, the nearest wider group answers: tenant, then lane, then everything, then a prior. Beyond the
longest ever seen, S falls like 1/x: what has become that long is expected to double.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from itertools import accumulate

import msgspec
import numpy as np
import numpy.typing as npt

Table = npt.NDArray[np.float64]


class Survival(msgspec.Struct, frozen=True, eq=False):
    """Entry x of `table` is the share of answers longer than x tokens; its last entry is never zero."""

    table: Table
    # How many answers were seen: what the table's own doubt is made of.
    seen: float

    def at(self, tokens: int) -> float:
        """S(tokens), also beyond the table's end."""
        last = len(self.table) - 1
        if tokens <= last:
            return float(self.table[tokens])
        return float(self.table[last]) * max(last, 1) / tokens


# Enough to be stable to a few percent, few enough to follow a change of traffic within minutes.
_REMEMBERED = 512
# Of these so many are kept across restarts: 256 groups of them must fit one message.
_KEPT = 256
# A group with fewer endings has nothing of its own to say.
_ENOUGH = 32
# Groups are dropped least recently used: tenants come and go.
_GROUPS_MAX = 256
_ORIGINS_MAX = 4096
# A table is made anew after so many endings; each costs some ten microseconds.
_REFRESH_EVERY = 8
# Before anything ended: lognormal with median 200 tokens, at even quantiles. A guess, that counts as two answers seen.
_PRIOR = (43, 83, 120, 170, 235, 330, 480, 930)
_PRIOR_SEEN = 2.0


class Origin(msgspec.Struct, frozen=True):
    """Whose answers resemble each other."""

    lane: str = ""
    tenant: str = ""

    @property
    def wider(self) -> Origin | None:
        """The next group to ask."""
        if self.tenant:
            return Origin(self.lane)
        return Origin() if self.lane else None


ANYBODY = Origin()


class Ending(msgspec.Struct, frozen=True, array_like=True):
    """An answer stopped after `tokens`. `is_cut`: by a limit, so it would have become longer."""

    tokens: int
    is_cut: bool = False


class Learned(msgspec.Struct, frozen=True):
    """What one group is kept as: its recent endings, below zero where they were cut."""

    lane: str = ""
    tenant: str = ""
    endings: list[int] = []


def survival(endings: Iterable[Ending], running: Iterable[int] = (), seen: float | None = None) -> Survival:
    """The estimate from `endings`, and from `running`: how many tokens those have that did not end yet."""
    endings = list(endings)
    known = np.sort(np.array([*(ending.tokens for ending in endings), *running], dtype=np.int64))
    ended = np.array([ending.tokens for ending in endings if not ending.is_cut], dtype=np.int64)
    if not len(known):
        return Survival(np.ones(1), 0.0)
    lengths, counts = np.unique(ended, return_counts=True)
    # Those cut and those running count as long as we saw them.
    at_risk = len(known) - np.searchsorted(known, lengths, side="left")
    # One more at risk than seen: the longest of n is not the longest there is.
    shares = np.concatenate([[1.0], np.cumprod(1 - counts / (at_risk + 1))])
    table = shares[np.searchsorted(lengths, np.arange(int(known[-1]) + 1), side="right")]
    return Survival(table, len(endings) if seen is None else seen)


class Predictions:
    """The survival functions of several origins, each by its index, in one array: one look-up serves all."""

    def __init__(self, survivals: list[Survival]) -> None:
        # Many origins share the function of a wider group.
        distinct = {id(one): one for one in survivals}
        starts = dict(zip(distinct, accumulate((len(one.table) for one in distinct.values()), initial=0), strict=False))
        self._table = np.concatenate([one.table for one in distinct.values()])
        self._start = np.array([starts[id(one)] for one in survivals], dtype=np.int64)
        self._last = np.array([len(one.table) - 1 for one in survivals], dtype=np.int64)
        self._shortest = int(self._last.min())
        # By origin: how many answers its function was made of.
        self.seen = np.array([one.seen for one in survivals])

    def survival(self, tokens: npt.NDArray[np.int64], origins: npt.NDArray[np.int64]) -> Table:
        """S(tokens) row by row, each by the function of its origin."""
        start = self._start[origins][:, None]
        if tokens.max(initial=0) <= self._shortest:
            return self._table[start + tokens]
        last = self._last[origins][:, None]
        beyond = np.maximum(last, 1) / np.maximum(tokens, 1)
        return self._table[start + np.minimum(tokens, last)] * np.minimum(beyond, 1.0)


# What the unfinished sequences have produced, each with whose it is.
Running = Callable[[], Iterable[tuple[Origin, int]]]


class OutputLengths:
    """Recent endings by group, and the survival tables made of them."""

    def __init__(self) -> None:
        self._groups: OrderedDict[Origin, _Group] = OrderedDict({ANYBODY: _Group()})
        self._indices: dict[Origin, int] = {}
        self._predictions: Predictions | None = None

    def index_of(self, origin: Origin) -> int:
        """Its index in `predictions`, for ever. Beyond some thousand origins only the lane counts."""
        index = self._indices.get(origin)
        if index is None:
            if len(self._indices) >= _ORIGINS_MAX and origin.tenant:
                return self.index_of(Origin(origin.lane))
            index = self._indices[origin] = len(self._indices)
            self._predictions = None
        return index

    def predictions(self) -> Predictions:
        """What is known now, of every origin asked about so far."""
        if self._predictions is None:
            self._predictions = Predictions([self.survival(origin) for origin in self._indices or {ANYBODY: 0}])
        return self._predictions

    def observe(self, origin: Origin, ending: Ending, running: Running = tuple) -> None:
        """One sequence ended; `running` is asked, where it matters, what the others have produced."""
        group: Origin | None = origin
        while group is not None:
            found = self._group(group)
            if found.add(ending):
                found.refresh([tokens for other, tokens in running() if _is_within(other, group)])
                self._predictions = None
            group = group.wider

    def survival(self, origin: Origin) -> Survival:
        """Of the narrowest group that knows enough."""
        group: Origin | None = origin
        while group is not None:
            found = self._groups.get(group)
            if found is not None and len(found.endings) >= _ENOUGH:
                return found.survival
            group = group.wider
        return self._groups[ANYBODY].survival

    def remaining(self, origin: Origin, produced: int, tokens_max: int, share: float = 0.5) -> int:
        """Tokens that a sequence of `produced` will add at most, in that share of all cases; at least one."""
        bound = max(1, tokens_max - produced)
        known = self.survival(origin)
        wanted = known.at(produced) * (1 - share)
        last = len(known.table) - 1
        if wanted >= known.table[last]:
            # The table falls: the first entry at or below what is wanted.
            total = int(np.searchsorted(-known.table, -wanted, side="left"))
        else:
            total = math.ceil(last * known.table[last] / wanted) if wanted > 0 else tokens_max
        return max(1, min(bound, total - produced))

    def learned(self) -> list[Learned]:
        """For `recall` after a restart; the least recently used group first."""
        return [
            Learned(origin.lane, origin.tenant, [-one.tokens if one.is_cut else one.tokens for one in group.recent()])
            for origin, group in self._groups.items()
            if group.endings
        ]

    def recall(self, learned: list[Learned]) -> None:
        """Starts from what was kept; it counts like what was seen here."""
        for one in learned:
            group = self._group(Origin(one.lane, one.tenant))
            group.endings.extend(Ending(abs(tokens), tokens < 0) for tokens in one.endings)
            group.refresh([])
        self._predictions = None

    def _group(self, origin: Origin) -> _Group:
        group = self._groups.get(origin)
        if group is None:
            group = self._groups[origin] = _Group()
            if len(self._groups) > _GROUPS_MAX:
                # Never the widest, which is used with every ending and so never the first for long.
                self._groups.popitem(last=False)
        self._groups.move_to_end(origin)
        return group


class _Group:
    def __init__(self) -> None:
        self.endings: deque[Ending] = deque(maxlen=_REMEMBERED)
        self.survival = survival(map(Ending, _PRIOR), seen=_PRIOR_SEEN)
        self._since_refresh = 0

    def recent(self) -> list[Ending]:
        return list(self.endings)[-_KEPT:]

    def add(self, ending: Ending) -> bool:
        """Whether the table should be made anew."""
        self.endings.append(ending)
        self._since_refresh += 1
        return self._since_refresh >= _REFRESH_EVERY or len(self.endings) <= _ENOUGH

    def refresh(self, running: list[int]) -> None:
        self._since_refresh = 0
        if len(self.endings) >= _ENOUGH:
            self.survival = survival(self.endings, running)
            return
        prior = map(Ending, _PRIOR)
        self.survival = survival([*prior, *self.endings], running, _PRIOR_SEEN + len(self.endings))


def _is_within(origin: Origin, group: Origin) -> bool:
    return group.lane in ("", origin.lane) and group.tenant in ("", origin.tenant)
