"""`python -m scaler.bench deadlines|fairness|order|wake [--json] [--quick]`."""

from __future__ import annotations

import argparse
import os
import sys

import msgspec

from infra.report import Report
from scaler.bench.deadlines import deadlines
from scaler.bench.fairness import fairness
from scaler.bench.order import order
from scaler.bench.wake import wake


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scaler.bench")
    parser.add_argument("bench", choices=["deadlines", "fairness", "order", "wake"])
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--quick", action="store_true", help="smaller, within a minute")
    parser.add_argument("--rounds", type=int, default=0, help="how many seeds")
    parser.add_argument("--tries", type=int, default=0, help="wake: how often from zero (default: 100, quick: 8)")
    given = parser.parse_args()
    if given.bench == "deadlines":
        report = deadlines(is_quick=given.quick, rounds=given.rounds or (3 if given.quick else 8))
    elif given.bench == "fairness":
        report = fairness(is_quick=given.quick, rounds=given.rounds or 1)
    elif given.bench == "wake":
        environment = os.environ  # noqa: TID251 - this is a main()
        report = wake(tries=given.tries or (8 if given.quick else 100), environment=environment)
    else:
        report = order(is_quick=given.quick, rounds=given.rounds or (1 if given.quick else 3))
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n" if given.json else _table(report))
    return 0


def _table(report: Report) -> str:
    width = max(len(name) for name in report.bars)
    lines = [
        f"{name:<{width}}  {one.value:>12,.4f} {one.unit:<6} n={one.n} spread={one.spread:.0%}"
        for name, one in report.bars.items()
    ]
    return "\n".join([f"penstock bench {report.bench}", *lines, ""])


if __name__ == "__main__":
    sys.exit(main())
