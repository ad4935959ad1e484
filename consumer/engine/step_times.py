"""What a step of a real engine takes, learned from the time between steps. No I/O; the clock's readings are given.

Least squares with exponential forgetting: `base + a * sequences + b * prompt tokens`. What is forgotten is forgotten
for each size of steps by itself: while an engine is full, it must still be known what a step of a few sequences takes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from consumer.engine.port import StepCost

# The weight of what was seen falls to a third in so many steps of its size.
_MEMORY_STEPS = 300.0
# Sizes of steps: sequences by powers of two, with prompt tokens or without.
_SIZES = 24
# A longer gap is no step: the engine was idle, or this process was stopped.
_GAP_MAX_S = 2.0
# Of the recent mean.
_MEAN_WEIGHT = 0.05
# Solved anew after so many steps.
_SOLVE_EVERY = 32
# Enough to keep the sum solvable while all steps look alike.
_RIDGE = 1e-3


class StepTimes:
    """`record` each step; `mean_s` and `cost` are what was learned."""

    def __init__(self) -> None:
        self.steps = 0
        self.mean_s = 0.0
        self.cost = StepCost()
        self._last_at: float | None = None
        self._squares = np.zeros((_SIZES, 3, 3))
        self._products = np.zeros((_SIZES, 3))
        # So that all three columns are about one in size.
        self._scale = np.array([1.0, 1 / 64, 1 / 512])

    def record(self, now_s: float, sequences: int, prefill_tokens: int) -> None:
        """A step that ended now, with what it ran. The next one is timed from here if anything runs on."""
        self.steps += 1
        last_at, self._last_at = self._last_at, now_s
        if last_at is None or now_s - last_at > _GAP_MAX_S:
            return
        took_s = now_s - last_at
        self.mean_s += (_MEAN_WEIGHT if self.mean_s else 1.0) * (took_s - self.mean_s)
        row = np.array([1.0, sequences, prefill_tokens]) * self._scale
        size = min(2 * sequences.bit_length() + (prefill_tokens > 0), _SIZES - 1)
        keep = 1 - 1 / _MEMORY_STEPS
        self._squares[size] = keep * self._squares[size] + np.outer(row, row)
        self._products[size] = keep * self._products[size] + row * took_s
        if self.steps % _SOLVE_EVERY == 0:
            squares: npt.NDArray[np.float64] = self._squares.sum(axis=0)
            products: npt.NDArray[np.float64] = self._products.sum(axis=0)
            found = np.linalg.solve(squares + _RIDGE * np.eye(3), products) * self._scale
            base_s, per_sequence_s, per_prefill_token_s = np.maximum(found, 0.0).tolist()
            self.cost = StepCost(base_s, per_sequence_s, per_prefill_token_s)

    def idle(self) -> None:
        """Nothing runs: the time until the next step is no step's."""
        self._last_at = None
