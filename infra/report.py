"""What every bench prints: one JSON object for machines. Each sibling has its own table for people."""

from __future__ import annotations

import os
import platform
import statistics
from typing import Any

import msgspec


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One figure: the median of `n` interleaved rounds. `spread` is (max - min) / median."""

    value: float
    unit: str
    n: int
    spread: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    bench: str
    machine: dict[str, Any]
    bars: dict[str, Bar]
    detail: dict[str, Any]


def bar(values: list[float], unit: str) -> Bar:
    middle = statistics.median(values)
    spread = (max(values) - min(values)) / middle if middle else 0.0
    return Bar(value=round(middle, 4), unit=unit, n=len(values), spread=round(spread, 4))


def this_machine() -> dict[str, Any]:
    """Enough to know whether two figures may be compared."""
    return {
        "cpus": os.cpu_count(),
        "arch": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
    }
