"""The cache over the coming steps: how many blocks the running jobs are expected to hold, and how surely. Pure.

Every running sequence takes one token a step, until it ends. With S the survival function of answers (`lengths`), a
sequence that has produced p tokens is there after t more steps with probability S(p + t - 1) / S(p) and then holds the
blocks of prompt + p + t tokens. Sequences end independently, so means and variances add; the sum of many is close to
normal, and `mean + z * deviation` bounds it with a confidence that z sets. What does not average out is the doubt about
S itself, which all share: its standard errors add up instead. The bound is never more than the worst case, where
everybody uses all of `max_tokens`.

Looked at on a grid of steps that is fine near now and coarse far away, more closely around the peak, and exactly where
answers of known length end.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from consumer.engine.port import KvGroup
from consumer.lengths import Predictions

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Neighbouring points of the grid are this factor apart.
_GRID_RATIO = 1.25
# Of the ends known exactly, so many are looked at.
_ENDS_MAX = 64
# Further points around the highest one.
_CLOSER_LOOKS = 12

_PROMPT, _MOST, _LEAST, _SHARED, _COUNT, _ORIGIN = range(6)


def grid_of(steps_max: int) -> Integers:
    """0, 1, 2, … and then ever further, up to `steps_max`."""
    count = int(np.log(max(2, steps_max)) / np.log(_GRID_RATIO)) + 2
    points = np.unique(np.round(_GRID_RATIO ** np.arange(count)).astype(np.int64))
    return np.concatenate([[0], points[points < steps_max], [max(1, steps_max)]])


class Rows:
    """The jobs a forecast is about, one row each: every sequence of a job is taken to be like its others."""

    def __init__(self) -> None:
        self._columns = np.zeros((6, 64), dtype=np.int64)
        self._produced: list[Callable[[], int]] = []
        self._keys: list[int] = []
        self._row_of: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def add(
        self,
        key: int,
        *,
        prompt: int,
        tokens_max: int,
        tokens_min: int,
        sequences: int,
        shared: int,
        origin: int,
        produced: Callable[[], int],
    ) -> None:
        """`shared`: blocks of each sequence that are counted elsewhere. `origin`: an index of `Predictions`."""
        row = len(self._keys)
        if row == self._columns.shape[1]:
            self._columns = np.concatenate([self._columns, np.zeros_like(self._columns)], axis=1)
        self._columns[:, row] = (prompt, tokens_max, tokens_min, shared, sequences, origin)
        self._produced.append(produced)
        self._keys.append(key)
        self._row_of[key] = row

    def remove(self, key: int) -> None:
        # The last one takes its place.
        row, last = self._row_of.pop(key), len(self._keys) - 1
        if row != last:
            self._columns[:, row] = self._columns[:, last]
            self._produced[row] = self._produced[last]
            self._keys[row] = self._keys[last]
            self._row_of[self._keys[row]] = row
        self._produced.pop()
        self._keys.pop()

    def share(self, shared_by: Callable[[int], int]) -> None:
        """Asks anew what each job shares."""
        self._columns[_SHARED, : len(self)] = [shared_by(key) for key in self._keys]

    def columns(self) -> tuple[Integers, Integers]:
        """The columns, and what each sequence has produced by now."""
        columns = self._columns[:, : len(self)]
        produced = np.array([read() for read in self._produced], dtype=np.int64)
        return columns, produced // columns[_COUNT]


class Forecast:
    """Mean, variance and worst case of the blocks held, at each step of a grid."""

    def __init__(
        self, rows: Rows, grid: Integers, groups: tuple[KvGroup, ...], predictions: Predictions, end: int = 0
    ) -> None:
        """`end`: also look at this step exactly."""
        columns, produced = rows.columns()
        is_known = columns[_LEAST] >= columns[_MOST]
        self.steps = _with_ends(grid, (columns[_MOST] - produced)[is_known], end)
        self._groups = groups
        self._figures = _figures(columns, produced, self.steps, groups, predictions)
        closer = self._around_peak()
        if len(closer):
            self.steps = np.concatenate([self.steps, closer])
            more = _figures(columns, produced, closer, groups, predictions)
            self._figures = np.concatenate([self._figures, more], axis=1)

    def _around_peak(self) -> Integers:
        """Steps between those looked at, on both sides of the highest: jobs that began together peak sharply."""
        at = int((self._figures[0] + np.sqrt(self._figures[1])).argmax())
        before, after = int(self.steps[max(0, at - 1)]), int(self.steps[min(len(self.steps) - 1, at + 1)])
        between = np.unique(np.linspace(before, after, _CLOSER_LOOKS).astype(np.int64))
        return between[~np.isin(between, self.steps)]

    def looks_at(self, step: int) -> bool:
        return step in self.steps

    @property
    def now(self) -> float:
        """Blocks held at this moment: no step has any doubt yet."""
        return float(self._figures[0, 0])

    def one_more(self, rows: Rows, predictions: Predictions) -> Floats:
        """What these rows would add, for `peak` and `add`."""
        columns, produced = rows.columns()
        return _figures(columns, produced, self.steps, self._groups, predictions)

    def add(self, more: Floats) -> None:
        self._figures = self._figures + more

    def add_fixed(self, blocks: float) -> None:
        """Blocks held whatever happens."""
        self._figures[0] += blocks
        self._figures[3] += blocks

    def peak(self, deviations: float, more: Floats | None = None, times: int = 1) -> float:
        """The most that will ever be held at once, with that confidence; with `more` there `times` as well."""
        figures = self._figures if more is None else self._figures + more * times
        mean, variance, error, worst = figures
        return float(np.minimum(mean + deviations * np.sqrt(variance + error * error), worst).max())


def expected_peak(rows: Rows, grid: Integers, groups: tuple[KvGroup, ...], predictions: Predictions) -> float:
    """The most blocks that these rows by themselves are expected to hold."""
    columns, produced = rows.columns()
    return float(_figures(columns, produced, grid, groups, predictions)[0].max())


def _with_ends(grid: Integers, ends: Integers, end: int) -> Integers:
    if not len(ends) and not end:
        return grid
    if len(ends) > _ENDS_MAX:
        ends = np.sort(ends)[np.linspace(0, len(ends) - 1, _ENDS_MAX).astype(np.int64)]
    return np.unique(np.concatenate([grid, ends[ends > 0], [end]]))


def _figures(
    columns: Integers, produced: Integers, steps: Integers, groups: tuple[KvGroup, ...], predictions: Predictions
) -> Floats:
    """Four rows over the steps: mean, variance, the error all share, worst case."""
    prompt, most, least, shared, count, origin = columns
    tokens = (prompt + produced)[:, None] + steps
    blocks = np.maximum(_blocks_of(tokens, groups) - shared[:, None], 0)
    # Now everybody is there, whatever the limits say.
    is_possible = (produced[:, None] + steps <= most[:, None]) | (steps == 0)
    here = np.maximum(produced, least - 1)
    share_here = predictions.survival(here[:, None], origin)
    reached = np.maximum(produced[:, None] + np.maximum(steps - 1, 0), here[:, None])
    share = np.minimum(predictions.survival(reached, origin) / share_here, 1.0) * is_possible
    doubt = share * (1 - share)
    # Of the answers seen, only those that came this far say what follows.
    error = np.sqrt(doubt / (predictions.seen[origin][:, None] * share_here + 1))
    return np.stack(
        [
            count @ (blocks * share),
            count @ (blocks * blocks * doubt),
            count @ (blocks * error),
            count @ (blocks * is_possible).astype(np.float64),
        ]
    )


def _blocks_of(tokens: Integers, groups: tuple[KvGroup, ...]) -> Integers:
    """`blocks_of` for many."""
    total = np.zeros_like(tokens)
    for group in groups:
        blocks = (tokens + (group.block_size - 1)) // group.block_size
        total += np.minimum(blocks, group.blocks_max) if group.blocks_max else blocks
    return total


def blocks_of(tokens: int, groups: tuple[KvGroup, ...]) -> int:
    """Blocks that a sequence of so many tokens holds, over all groups."""
    total = 0
    for group in groups:
        blocks = -(-tokens // group.block_size)
        total += min(blocks, group.blocks_max) if group.blocks_max else blocks
    return total
