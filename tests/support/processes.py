"""The processes a test started: found by their parent, never by name alone."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def children_of_this_process(name_contains: str = "") -> list[int]:
    """Pids of our descendants whose command line or name contains `name_contains`. Linux only."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text()
            names[int(folder.name)] = (folder / "cmdline").read_text() + stat[stat.index("(") : stat.rindex(")")]
        except OSError:
            continue
        parents[int(folder.name)] = int(stat[stat.rindex(")") + 2 :].split()[1])
    return [pid for pid in parents if _descends(pid, parents) and name_contains in names[pid]]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _descends(pid: int, parents: dict[int, int]) -> bool:
    while pid in parents:
        pid = parents[pid]
        if pid == os.getpid():
            return True
    return False
