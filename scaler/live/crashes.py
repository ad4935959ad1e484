"""Which replicas die again and again. No I/O, no clock."""

from __future__ import annotations

from scaler.drivers.port import Fleet

# More deaths than this, within so many seconds.
_DEATHS = 2
_WITHIN_S = 600.0


class Crashes:
    """Of one pool; `note` each fleet that is seen."""

    def __init__(self) -> None:
        self._restarts: dict[str, int] = {}
        self._deaths_s: dict[str, list[float]] = {}

    def note(self, fleet: Fleet, now_s: float) -> int:
        """How many are looping now."""
        looping = 0
        known: dict[str, int] = {}
        for replica in fleet.replicas:
            # A failing one has died once more than it was started again.
            died = replica.restarts + (replica.phase == "failing")
            deaths = self._deaths_s.setdefault(replica.id, [])
            # Of one that is found at work nobody knows when it died, and it lives.
            before = self._restarts.get(replica.id, 0 if replica.phase == "failing" else died)
            deaths += [now_s] * max(0, died - before)
            self._deaths_s[replica.id] = recent = [at for at in deaths if at > now_s - _WITHIN_S]
            known[replica.id] = max(died, self._restarts.get(replica.id, 0))
            looping += len(recent) > _DEATHS
        self._restarts = known
        self._deaths_s = {name: self._deaths_s[name] for name in known}
        return looping
