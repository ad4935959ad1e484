"""Identical deterministic requests that wait or run at once: one is computed, the others get its answer. No I/O.

The first of a kind that is picked goes to READY; those that are picked while it is there stay behind, and share its
result when it completes. When it does not, they go back in line, and the first of them is computed. Only clients know
what is deterministic: they set `same_key` or do not. Of two tenants the requests are never the same, unless the
configuration says so: that somebody asked the same before could be seen in the time an answer takes.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from scaler.dispatch.backlog import Waiting

Kind = tuple[str, int]


class _Group(msgspec.Struct):
    first_seq: int
    # Tenant and id of the first, once it is being moved.
    first: tuple[str, str] | None = None
    behind: list[int] = []


class Coalescer:
    """Of one pool, while it leads."""

    def __init__(self, scope: Literal["off", "tenant", "all"]) -> None:
        self._scope = scope
        self._groups: dict[Kind, _Group] = {}
        self._kind_of: dict[tuple[str, str], Kind] = {}
        self._kind_of_seq: dict[int, Kind] = {}

    def stays_behind(self, waiting: Waiting) -> bool:
        """Asked of each picked job, in order."""
        if not waiting.same_key or self._scope == "off":
            return False
        kind = (waiting.tenant if self._scope == "tenant" else "", waiting.same_key)
        group = self._groups.get(kind)
        if group is None:
            self._groups[kind] = _Group(waiting.seq)
            self._kind_of_seq[waiting.seq] = kind
            return False
        if group.first_seq == waiting.seq:
            return False
        group.behind.append(waiting.seq)
        return True

    def came(self, seq: int, tenant: str, job: str) -> None:
        """A first one is being moved; known by its id from now on."""
        kind = self._kind_of_seq.get(seq)
        if kind is not None:
            self._groups[kind].first = (tenant, job)
            self._kind_of[tenant, job] = kind

    def ended(self, tenant: str, job: str) -> list[int]:
        """Those that waited for this job; they are in no group any more."""
        kind = self._kind_of.pop((tenant, job), None)
        if kind is None:
            return []
        group = self._groups.pop(kind)
        self._kind_of_seq.pop(group.first_seq, None)
        return group.behind

    def gave_up(self, seq: int) -> list[int]:
        """A first one that is not moved after all: those that waited for it."""
        kind = self._kind_of_seq.pop(seq, None)
        if kind is None:
            return []
        group = self._groups.pop(kind)
        if group.first is not None:
            self._kind_of.pop(group.first, None)
        return group.behind

    def behind(self) -> list[int]:
        """All that stay behind."""
        return [seq for group in self._groups.values() for seq in group.behind]

    def leave(self, seqs: set[int]) -> None:
        """They are cancelled or late, and wait for nobody."""
        for group in self._groups.values():
            if not seqs.isdisjoint(group.behind):
                group.behind = [seq for seq in group.behind if seq not in seqs]

    def clear(self) -> None:
        """Another lead begins."""
        self._groups.clear()
        self._kind_of.clear()
        self._kind_of_seq.clear()
