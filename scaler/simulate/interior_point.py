"""A linear programme whose rows join one step of time with the step before: min c·x, Ax = b, x ≥ 0.

Mehrotra's predictor and corrector; the normal equations are block-tridiagonal and solved in one sweep each way.
The dual solution is the proof: whatever the rounding, `lower` is what it certifies.
"""

from __future__ import annotations

import msgspec
import numpy as np

from scaler.simulate.service import Floats


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """Row t reads `row_now @ x[t] + row_before @ x[t-1] = right[t]`."""

    row_now: Floats
    row_before: Floats
    right: Floats
    cost: Floats

    def times(self, x: Floats) -> Floats:
        out = x @ self.row_now.T
        out[1:] += x[:-1] @ self.row_before.T
        return out

    def transposed(self, y: Floats) -> Floats:
        out = y @ self.row_now
        out[:-1] += y[1:] @ self.row_before
        return out


class Solution(msgspec.Struct, frozen=True, kw_only=True):
    values: Floats
    lower: float
    gap: float


class _Normal:
    """A·diag(d)·Aᵀ, factored."""

    def __init__(self, chain: Chain, d: Floats) -> None:
        now, before = chain.row_now, chain.row_before
        diagonal = np.einsum("ij,tj,kj->tik", now, d, now, optimize=True)
        diagonal[1:] += np.einsum("ij,tj,kj->tik", before, d[:-1], before, optimize=True)
        # Rows that are nearly dependent near the end must not stop the factoring.
        size = now.shape[0]
        diagonal[:, range(size), range(size)] *= 1 + 1e-11
        below = np.einsum("ij,tj,kj->tik", before, d[:-1], now, optimize=True)
        inverses = np.empty_like(diagonal)
        steps = np.empty_like(below)
        inverses[0] = np.linalg.inv(diagonal[0])
        for t in range(1, len(diagonal)):
            steps[t - 1] = below[t - 1] @ inverses[t - 1]
            inverses[t] = np.linalg.inv(diagonal[t] - steps[t - 1] @ below[t - 1].T)
        self._inverses, self._steps = inverses, steps

    def solve(self, right: Floats) -> Floats:
        forward = right.copy()
        for t in range(1, len(right)):
            forward[t] -= self._steps[t - 1] @ forward[t - 1]
        out = np.einsum("tij,tj->ti", self._inverses, forward)
        for t in range(len(right) - 2, -1, -1):
            out[t] -= self._steps[t].T @ out[t + 1]
        return out


def solve(chain: Chain, tolerance: float = 1e-5, rounds_max: int = 120) -> Solution:
    x, y, s = _begin(chain)
    count = x.size
    for _ in range(rounds_max):
        primal = chain.right - chain.times(x)
        dual = chain.cost - chain.transposed(y) - s
        mu = float((x * s).sum()) / count
        upper, lower = float((chain.cost * x).sum()), float((chain.right * y).sum())
        is_feasible = max(np.abs(primal).max(), np.abs(dual).max()) < 1e-6 * (1 + np.abs(chain.right).max())
        if is_feasible and upper - lower < tolerance * (1 + abs(upper)):
            break
        normal = _Normal(chain, x / s)
        dx, dy, ds = _direction(chain, normal, (x, s), (primal, dual), -x * s)
        a, b = _longest(x, dx), _longest(s, ds)
        mu_after = float(((x + a * dx) * (s + b * ds)).sum()) / count
        centre = (mu_after / mu) ** 3 * mu
        dx, dy, ds = _direction(chain, normal, (x, s), (primal, dual), centre - x * s - dx * ds)
        a, b = 0.995 * _longest(x, dx), 0.995 * _longest(s, ds)
        x, y, s = x + a * dx, y + b * dy, s + b * ds
    upper, lower = float((chain.cost * x).sum()), float((chain.right * y).sum())
    return Solution(values=x, lower=lower, gap=max(0.0, upper - lower) / max(abs(upper), 1e-9))


def _begin(chain: Chain) -> tuple[Floats, Floats, Floats]:
    """Mehrotra's first point: least squares, moved inside."""
    normal = _Normal(chain, np.ones_like(chain.cost))
    x = chain.transposed(normal.solve(chain.right))
    y = normal.solve(chain.times(chain.cost))
    s = chain.cost - chain.transposed(y)
    x += max(-1.5 * float(x.min()), 0.1)
    s += max(-1.5 * float(s.min()), 0.1)
    product = float((x * s).sum())
    return x + 0.5 * product / float(s.sum()), y, s + 0.5 * product / float(x.sum())


def _direction(
    chain: Chain, normal: _Normal, point: tuple[Floats, Floats], residual: tuple[Floats, Floats], target: Floats
) -> tuple[Floats, Floats, Floats]:
    x, s = point
    primal, dual = residual
    dy = normal.solve(primal + chain.times((x * dual - target) / s))
    ds = dual - chain.transposed(dy)
    return (target - x * ds) / s, dy, ds


def _longest(values: Floats, change: Floats) -> float:
    """How far the change may go before a value reaches zero, at most all the way."""
    falling = change < 0
    return min(1.0, float((-values[falling] / change[falling]).min())) if falling.any() else 1.0
