"""What every bench prints: one JSON object for machines, a table for people."""

from __future__ import annotations

import os
import platform
import statistics
from typing import Any

import msgspec

from producer.cli.terminal import say


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


def show(report: Report, *, as_json: bool) -> None:
    if as_json:
        say(msgspec.json.encode(report).decode())
        return
    from rich.console import Console  # noqa: PLC0415 - the JSON needs none
    from rich.table import Table  # noqa: PLC0415

    table = Table(title=f"penstock bench {report.bench}", title_justify="left")
    for heading in ("figure", "median", "unit", "rounds", "spread"):
        table.add_column(heading, justify="left" if heading in {"figure", "unit"} else "right")
    for name, one in report.bars.items():
        table.add_row(name, f"{one.value:,.3f}", one.unit, str(one.n), f"{one.spread:.0%}")
    Console().print(table)


def show_table(title: str, rows: list[dict[str, Any]]) -> None:
    """Rows of equal keys, on a terminal."""
    from rich.console import Console  # noqa: PLC0415 - the JSON needs none
    from rich.table import Table  # noqa: PLC0415

    table = Table(title=title, title_justify="left")
    for heading, value in rows[0].items() if rows else ():
        table.add_column(heading, justify="left" if isinstance(value, str) else "right")
    for row in rows:
        table.add_row(*(f"{value:g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)
