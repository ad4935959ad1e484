"""What a run came to, for a person."""

from __future__ import annotations

from rich.console import Console

from producer.batch.stats import Spread, Summary


def show_summary(summary: Summary, console: Console) -> None:
    def line(name: str, value: str) -> None:
        console.print(f"  {name:<12}{value}", highlight=False)

    earlier = f", {summary.skipped} answered before" if summary.skipped else ""
    line("done", f"{summary.done} completed, {summary.failed} failed{earlier}")
    for reason, count in summary.failed_by_reason.items():
        line("", f"{count} × {reason}")
    line("tokens", f"{summary.completion_tokens:,} in {summary.seconds:.1f} s = {summary.tokens_per_s:,.0f} tok/s")
    for name, spread, unit in (
        ("TTFT", summary.ttft_s, "s"),
        ("engine TTFT", summary.engine_ttft_s, "s"),
        ("ITL", summary.itl_ms, "ms"),
        ("TPOT", summary.tpot_ms, "ms"),
    ):
        if spread is not None:
            line(name, spread_text(spread, unit))
    line("answers", summary.output)


def spread_text(spread: Spread, unit: str) -> str:
    return f"p50 {spread.p50:g} {unit}, p99 {spread.p99:g} {unit}"
