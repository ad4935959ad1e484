"""How many consumers a person asked for, instead of the policies, and until when. The newest message counts."""

from __future__ import annotations

import msgspec


class Override(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`replicas` None: nobody asks, the policies decide. `until_unix_ms` 0: until somebody says otherwise."""

    replicas: int | None = None
    until_unix_ms: int = 0
    set_unix_ms: int = 0

    def replicas_at(self, unix_ms: int) -> int | None:
        """What is asked for then, if anything."""
        if self.until_unix_ms and unix_ms >= self.until_unix_ms:
            return None
        return self.replicas
