"""What every bench prints: one JSON object for machines, a table for people."""

from __future__ import annotations

from typing import Any

import msgspec

from infra.report import Bar, Report, bar, this_machine
from producer.cli.terminal import say

__all__ = ["Bar", "Report", "bar", "show", "show_table", "this_machine"]


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
