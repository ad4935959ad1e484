"""Where a job goes: straight to the consumers' queue, or to the backlog that a dispatcher orders. Pure: no clock."""

from __future__ import annotations

from enum import Enum, auto
from functools import lru_cache

from schemas import subjects
from schemas.errors import JobMalformed
from schemas.subjects import Lane

# A pool without a backlog may get one any moment; until we know, its jobs go to READY, which is as well.
NONE_REMEMBERED_S = 5.0
# A backlog goes only when somebody deletes its stream; a publish then says so.
FOUND_REMEMBERED_S = 3600.0
# Snapshots come every second. Without them there is no dispatcher, and interactive work must not wait for one.
HELD_BACK_REMEMBERED_S = 5.0

_NOBODY: frozenset[str] = frozenset()


class Route(Enum):
    READY = auto()
    BACKLOG = auto()


class Backlogs:
    """What we know of pools: which have a backlog, and who has too much in READY already."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[bool, float]] = {}
        self._held_back: dict[str, tuple[frozenset[str], float]] = {}

    def has(self, pool: str, now_s: float) -> bool | None:
        """None: the broker must be asked."""
        is_there, until_s = self._known.get(pool, (False, 0.0))
        return is_there if now_s < until_s else None

    def remember(self, pool: str, *, is_there: bool, now_s: float) -> None:
        self._known[pool] = (is_there, now_s + (FOUND_REMEMBERED_S if is_there else NONE_REMEMBERED_S))

    def forget(self, pool: str) -> None:
        self._known.pop(pool, None)

    def note_held_back(self, pool: str, tenants: frozenset[str], now_s: float) -> None:
        """Of the pool's newest snapshot: whose interactive jobs wait as well."""
        self._held_back[pool] = (tenants, now_s + HELD_BACK_REMEMBERED_S)
        self.remember(pool, is_there=True, now_s=now_s)

    def is_held_back(self, pool: str, tenant: str, now_s: float) -> bool:
        tenants, until_s = self._held_back.get(pool, (_NOBODY, 0.0))
        return now_s < until_s and (tenant in tenants or "*" in tenants)


def needs_backlog_known(lane: Lane, *, must_wait: bool, is_held_back: bool) -> bool:
    """Whether it matters if the pool has a backlog: an interactive job goes past it, and waits for no question."""
    return lane is not Lane.INTERACTIVE or must_wait or is_held_back


def route(lane: Lane, *, must_wait: bool, is_held_back: bool, has_backlog: bool) -> Route:
    """`must_wait`: it has a not-before or a window."""
    if has_backlog and needs_backlog_known(lane, must_wait=must_wait, is_held_back=is_held_back):
        return Route.BACKLOG
    return Route.READY


def no_dispatcher_for(field: str, pool: str) -> JobMalformed:
    """A job that must wait for its time has nowhere to wait."""
    return JobMalformed(
        f"{field} needs a dispatcher, and pool {pool} never had one: start it with `penstock dispatcher` (or "
        f"`penstock up`), or leave {field} out",
        param=field,
        code="no_dispatcher",
    )


# Cached: checking three names costs more than all else about a subject, and a client has few of them.
ready_subject = lru_cache(maxsize=16384)(subjects.ready)
backlog_subject = lru_cache(maxsize=16384)(subjects.backlog)
